"""Evaluation: predictions table -> scores, intervals, thresholds. NumPy and SciPy only."""

from histo_lightning.evaluation.registry import all_scores, get_score, score
from histo_lightning.evaluation.remarks import coverage_of, influence_table
from histo_lightning.evaluation.summary import pool, score_pooled, score_predictions
from histo_lightning.evaluation.table import Table, make_table, read_predictions, table_of, write_predictions

__all__ = ["Table", "all_scores", "coverage_of", "get_score", "influence_table", "make_table", "pool"]
__all__ += ["read_predictions", "score", "score_pooled", "score_predictions", "table_of", "write_predictions"]
