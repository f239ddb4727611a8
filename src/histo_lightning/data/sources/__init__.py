"""Where images come from: the embedded set, BreakHis from its authors, an archive, or a tree of folders."""
