"""A trained network on other data: evaluate, predict, explain, export."""
