"""The version of this package, which every run records."""

__version__ = "0.2.0"
