"""BreakHis itself: its file names, its census, its images on disk, and what is wrong with a copy."""
