"""Figures and HTML, made from the tables of a run folder: never from a model."""
