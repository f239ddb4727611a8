"""The embedded data set: H&E-like images drawn under BreakHis names."""
