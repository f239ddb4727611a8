"""The score of every arm, magnification and replicate: whole, without each case, by fold and in case resamples."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from histo_lightning.errors import UserError
from histo_lightning.evaluation import scores
from histo_lightning.evaluation.arms import Arm, Design, Replicate
from histo_lightning.evaluation.levels import Floats, Units, units
from histo_lightning.evaluation.named_scores import NamedScore


@dataclass(frozen=True, slots=True, eq=False)
class ArmScores:
    """Scores of A arms (the reference first), M magnifications, R replicates, C cases, K folds, B resamples.

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

    @property
    def over_magnifications(self) -> "ArmScores":
        """The mean over the magnifications, which stay as an axis of length 1."""
        return ArmScores(*(getattr(self, name).mean(axis=1, keepdims=True) for name in ArmScores.__slots__))

    @property
    def less_reference(self) -> "ArmScores":
        """The differences of the other A - 1 arms and the reference."""
        return ArmScores(*(getattr(self, name)[1:] - getattr(self, name)[:1] for name in ArmScores.__slots__))


def _pooled_auroc(units_: Units, score: NamedScore) -> float:
    if score.score != "auroc":
        return float("nan")
    return scores.auroc(units_.truth, units_.p, np.zeros_like(units_.fold))


def _one(replicate: Replicate, score: NamedScore, plan: Design, weights: Floats) -> tuple[Floats, float]:
    """(rows of weights,) scores and the pooled AUROC of one replicate."""
    here = units(replicate.table, score.level, fold=np.asarray(replicate.fold, np.int64))
    # A copy may lack a case at one magnification; the weights of the others still are the joint ones.
    present = np.searchsorted(plan.cases, here.cases)
    return score.statistic(here)(weights[:, present]), _pooled_auroc(here, score)


def _refuse_undefined(plan: Design, score: NamedScore, where: str, value: float, left_out: Floats) -> None:
    if not np.isfinite(value):
        raise UserError(
            f"{where}: {score.words} is undefined (no fold with both classes, or an empty class); "
            "compare by another score or give more cases"
        )
    if not np.isfinite(left_out).all():
        case = plan.cases[int((~np.isfinite(left_out)).argmax())]
        raise UserError(
            f"{where}: {score.words} is undefined without case {case}, so it has no standard error; give more cases"
        )


def arm_scores(arms: Mapping[str, Arm], plan: Design, score: NamedScore, resamples: Floats) -> ArmScores:
    """Score every arm with the same case weights at all magnifications.

    Args:
        arms: checked by ``arm_checks.design``; plan: its result; score: what to compare by.
        resamples: (B, C) weights of cases, B may be 0.

    Raises:
        UserError: the score is undefined on an arm or without one of its cases.
    """
    count, folds = len(plan.cases), plan.folds
    shape = (len(plan.arms), len(plan.magnifications), plan.replicates)
    result = ArmScores(
        value=np.zeros(shape),
        left_out=np.zeros((*shape, count)),
        by_fold=np.zeros((*shape, folds)),
        resampled=np.zeros((*shape[:2], len(resamples))),
        pooled_auroc=np.zeros(shape),
    )
    for r in range(plan.replicates):
        of_fold = (plan.fold[r] == np.arange(folds)[:, None]).astype(np.float64)
        weights = np.concatenate([np.ones((1, count)), 1 - np.eye(count), of_fold, resamples])
        for a, name in enumerate(plan.arms):
            for m, magnification in enumerate(plan.magnifications):
                found, pooled = _one(arms[name][magnification][r], score, plan, weights)
                value, left_out, by_fold, resampled = np.split(found, np.cumsum([1, count, folds]))
                where = f"{name} at {magnification}, replicate {r + 1}"
                _refuse_undefined(plan, score, where, float(value[0]), left_out)
                result.value[a, m, r] = value[0]
                result.left_out[a, m, r] = left_out
                result.by_fold[a, m, r] = by_fold
                result.resampled[a, m] += resampled / plan.replicates
                result.pooled_auroc[a, m, r] = pooled
    return result
