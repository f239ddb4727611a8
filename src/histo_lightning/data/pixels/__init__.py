"""Pixels: image files decoded once into a cache, and what they look like."""
