"""Honest, fast, reproducible ResNet experiments on BreakHis breast histology."""

__version__ = "0.1.0"
