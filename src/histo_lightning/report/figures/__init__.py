"""Figures by topic: each is a function from tables to a matplotlib figure, without any global state."""
