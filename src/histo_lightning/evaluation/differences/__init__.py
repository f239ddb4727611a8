"""Differences between models over the same cases, exactly by section 5 of the statistical protocol."""

from histo_lightning.evaluation.differences.comparison import compare_levels
from histo_lightning.evaluation.differences.layout import Replicate

__all__ = ["Replicate", "compare_levels"]
