"""Hydra's plugins of histo_lightning: Hydra only takes them from the namespace package ``hydra_plugins``."""
