"""The score of every level, magnification and replicate: of all cases, without each, by fold and in case resamples."""

from typing import NamedTuple

import numpy as np

from histo_lightning.errors import UserError
from histo_lightning.evaluation.differences.layout import Layout, Predictions
from histo_lightning.evaluation.levels import units
from histo_lightning.evaluation.named_scores import NamedScore
from histo_lightning.evaluation.table import Floats


class Scores(NamedTuple):
    """Scores of A levels (the reference first), M magnifications, R replicates, C cases, K folds, B resamples."""

    value: Floats  # (A, M, R), finite
    left_out: Floats  # (A, M, R, C), finite: without one case, at every magnification at once
    by_fold: Floats  # (A, M, R, K): of one fold's cases, NaN where undefined
    resampled: Floats  # (A, M, B), mean over the replicates: in resamples of cases, NaN where undefined
    all_pairs: Floats  # (A, M, R): over all pairs, whatever the fold, of a score over pairs; else NaN

    def over_magnifications(self) -> "Scores":
        """The mean over the magnifications, whose axis is gone."""
        return Scores(*(array.mean(axis=1) for array in self))

    def less_reference(self) -> "Scores":
        """The differences of the other A - 1 levels and the reference."""
        return Scores(*(array[1:] - array[:1] for array in self))


def score_levels(predictions: Predictions, layout: Layout, score: NamedScore, resamples: Floats) -> Scores:
    """Score every level with the same case weights at all magnifications.

    Args:
        predictions: checked by ``layout_of``, which gave ``layout``; score: what to compare by.
        resamples: (B, C) weights of cases, B may be 0.

    Raises:
        UserError: the score is undefined for a level or without one of its cases.
    """
    count, folds = len(layout.cases), layout.folds
    shape = (len(layout.levels), len(layout.magnifications), len(layout.fold))
    values, all_pairs = np.zeros((*shape, 1 + count + folds + len(resamples))), np.full(shape, np.nan)
    for a, m, r in np.ndindex(shape):
        of_fold = (layout.fold[r] == np.arange(folds)[:, None]).astype(np.float64)
        weights = np.concatenate([np.ones((1, count)), 1 - np.eye(count), of_fold, resamples])
        table, fold = predictions[layout.levels[a]][layout.magnifications[m]][r]
        here = units(table, score.level, fold=np.asarray(fold, np.int64))
        # A copy may lack a case at one magnification; the weights of the others still are the joint ones.
        values[a, m, r] = score.about.statistic(here)(weights[:, np.searchsorted(layout.cases, here.cases)])
        undefined = ~np.isfinite(values[a, m, r, : 1 + count])
        if undefined.any():
            where = f"{layout.levels[a]} at {layout.magnifications[m]}, replicate {r + 1}: {score.words} is undefined"
            why = f"without case {layout.cases[undefined[1:].argmax()]}, so it has no standard error"
            if undefined[0]:
                why = "(no fold with both classes, or an empty class); compare by another score"
            raise UserError(f"{where} {why}, or give more cases")
        if score.about.pairs:
            all_pairs[a, m, r] = score.about.value(here.as_one_fold())
    value, left_out, by_fold, resampled = np.split(values, [1, 1 + count, 1 + count + folds], axis=-1)
    return Scores(value[..., 0], left_out, by_fold, resampled.mean(axis=2), all_pairs)
