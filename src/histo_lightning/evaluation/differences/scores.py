"""The score of every level, magnification and replicate: whole, without each case, by fold and in case resamples."""

from typing import NamedTuple

import numpy as np

from histo_lightning.errors import UserError
from histo_lightning.evaluation.differences.layout import Layout, Predictions, Replicate
from histo_lightning.evaluation.levels import Floats, units
from histo_lightning.evaluation.named_scores import NamedScore
from histo_lightning.evaluation.scores import auroc


class Scores(NamedTuple):
    """Scores of A levels (the reference first), M magnifications, R replicates, C cases, K folds, B resamples.

    Attributes:
        value: (A, M, R), finite.
        left_out: (A, M, R, C), finite: without one case, at every magnification at once.
        by_fold: (A, M, R, K): of one fold's cases, NaN where undefined.
        resampled: (A, M, B), mean over the replicates: in resamples of cases, NaN where undefined.
        pooled_auroc: (A, M, R): over all pairs, whatever the fold, beside an AUROC; else NaN.
    """

    value: Floats
    left_out: Floats
    by_fold: Floats
    resampled: Floats
    pooled_auroc: Floats

    def over_magnifications(self) -> "Scores":
        """The mean over the magnifications, which stay as an axis of length 1."""
        return Scores(*(array.mean(axis=1, keepdims=True) for array in self))

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
        pooled_auroc=np.zeros(shape),
    )
    for r, case_fold in enumerate(layout.fold):
        of_fold = (case_fold == np.arange(folds)[:, None]).astype(np.float64)
        weights = np.concatenate([np.ones((1, count)), 1 - np.eye(count), of_fold, resamples])
        for a, name in enumerate(layout.levels):
            for m, magnification in enumerate(layout.magnifications):
                found, pooled = _score(predictions[name][magnification][r], score, layout, weights)
                value, left_out, by_fold, resampled = np.split(found, np.cumsum([1, count, folds]))
                where = f"{name} at {magnification}, replicate {r + 1}"
                _refuse_undefined(layout, score, where, float(value[0]), left_out)
                result.value[a, m, r] = value[0]
                result.left_out[a, m, r] = left_out
                result.by_fold[a, m, r] = by_fold
                result.resampled[a, m] += resampled / len(layout.fold)
                result.pooled_auroc[a, m, r] = pooled
    return result


def _score(replicate: Replicate, score: NamedScore, layout: Layout, weights: Floats) -> tuple[Floats, float]:
    """(rows of weights,) scores and the pooled AUROC of one replicate."""
    here = units(replicate.table, score.level, fold=np.asarray(replicate.fold, np.int64))
    # A copy may lack a case at one magnification; the weights of the others still are the joint ones.
    present = np.searchsorted(layout.cases, here.cases)
    pooled = auroc(here.truth, here.p, np.zeros_like(here.fold)) if score.score == "auroc" else float("nan")
    return score.statistic(here)(weights[:, present]), pooled


def _refuse_undefined(layout: Layout, score: NamedScore, where: str, value: float, left_out: Floats) -> None:
    if not np.isfinite(value):
        raise UserError(
            f"{where}: {score.words} is undefined (no fold with both classes, or an empty class); "
            "compare by another score or give more cases"
        )
    if not np.isfinite(left_out).all():
        case = layout.cases[int((~np.isfinite(left_out)).argmax())]
        raise UserError(
            f"{where}: {score.words} is undefined without case {case}, so it has no standard error; give more cases"
        )
