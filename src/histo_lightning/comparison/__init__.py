"""Comparison: runs on disk -> one tidy table -> what may be compared -> results. Never torch."""
