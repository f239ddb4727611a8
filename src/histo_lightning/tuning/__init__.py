"""Hyper-parameter search: what is searched, who works on it, what comes out."""
