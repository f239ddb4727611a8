"""The score of every level, magnification and replicate: whole, without each case, by fold and in case resamples."""

from typing import NamedTuple

import numpy as np

from histo_lightning.errors import UserError
from histo_lightning.evaluation.differences.layout import Layout, Predictions
from histo_lightning.evaluation.levels import Floats, units
from histo_lightning.evaluation.named_scores import NamedScore
from histo_lightning.evaluation.scores import auroc


class Scores(NamedTuple):
    """Scores of A levels (the reference first), M magnifications, R replicates, C cases, K folds, B resamples."""

    value: Floats  # (A, M, R), finite
    left_out: Floats  # (A, M, R, C), finite: without one case, at every magnification at once
    by_fold: Floats  # (A, M, R, K): of one fold's cases, NaN where undefined
    resampled: Floats  # (A, M, B), mean over the replicates: in resamples of cases, NaN where undefined
    pooled_auroc: Floats  # (A, M, R): over all pairs, whatever the fold, beside an AUROC; else NaN

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
    result = Scores(
        value=np.zeros(shape),
        left_out=np.zeros((*shape, count)),
        by_fold=np.zeros((*shape, folds)),
        resampled=np.zeros((*shape[:2], len(resamples))),
        pooled_auroc=np.full(shape, np.nan),
    )
    for a, m, r in np.ndindex(shape):
        of_fold = (layout.fold[r] == np.arange(folds)[:, None]).astype(np.float64)
        weights = np.concatenate([np.ones((1, count)), 1 - np.eye(count), of_fold, resamples])
        table, fold = predictions[layout.levels[a]][layout.magnifications[m]][r]
        here = units(table, score.level, fold=np.asarray(fold, np.int64))
        # A copy may lack a case at one magnification; the weights of the others still are the joint ones.
        each = score.statistic(here)(weights[:, np.searchsorted(layout.cases, here.cases)])
        undefined = ~np.isfinite(each[: 1 + count])
        if undefined.any():
            where = f"{layout.levels[a]} at {layout.magnifications[m]}, replicate {r + 1}: {score.words} is undefined"
            if undefined[0]:
                why = "(no fold with both classes, or an empty class); compare by another score"
            else:
                why = f"without case {layout.cases[undefined[1:].argmax()]}, so it has no standard error"
            raise UserError(f"{where} {why}, or give more cases")
        result.value[a, m, r] = each[0]
        result.left_out[a, m, r] = each[1 : 1 + count]
        result.by_fold[a, m, r] = each[1 + count : 1 + count + folds]
        result.resampled[a, m] += each[1 + count + folds :] / len(layout.fold)
        if score.score == "auroc":
            result.pooled_auroc[a, m, r] = auroc(here.truth, here.p, np.zeros_like(here.fold))
    return result
