"""Scores as functions of case weights: a bootstrap draw counts each case 0, 1, 2, ... times.

A ``Statistic`` takes (B, C) weights of the C cases and returns (B,) scores, so the point value (ones), all
bootstrap draws and all leave-one-case-out values come from one formula, over sums by case computed once.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_lightning.data.breakhis.names import SUBTYPES
from histo_lightning.evaluation import scores, subtypes
from histo_lightning.evaluation.calibration import fit, logit, refit
from histo_lightning.evaluation.levels import Units

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]

_CHUNK = 250
"""Draws at a time where a draw needs a number for every unit (bounds memory at 250 x units)."""


def sums_by_case(units: Units, values: NDArray[Any]) -> Floats:
    """(C,) sums over the units of each case of (n,) values."""
    return np.bincount(units.case, weights=values, minlength=len(units.cases)).astype(np.float64)


def mean_of(units: Units, values: NDArray[Any], among: NDArray[np.bool_] | None = None) -> Statistic:
    """The mean of (n,) values over all units, or among some."""
    kept = np.ones(len(units)) if among is None else among.astype(np.float64)
    totals, counts = sums_by_case(units, values * kept), sums_by_case(units, kept)
    return lambda weights: scores.ratio(weights @ totals, weights @ counts)


def right_pairs(units: Units, positive: NDArray[np.bool_], score: Floats) -> tuple[Floats, Floats]:
    """Pairs of a negative and a positive unit of one fold, by the cases they belong to.

    Returns:
        (C, C) counts of pairs ordered rightly (ties half) and of all pairs; rows are the negatives' cases.
    """
    right = np.zeros((len(units.cases), len(units.cases)))
    pairs = np.zeros_like(right)
    for row in np.unique(units.case[~positive]):
        members = (units.case == row) & ~positive
        negatives = np.sort(score[members])
        rivals = positive & (units.fold == units.fold[members][0])  # a case is in one fold
        below = np.searchsorted(negatives, score[rivals], "left")
        below = below + np.searchsorted(negatives, score[rivals], "right")
        columns = units.case[rivals]
        right[row] = np.bincount(columns, weights=below / 2, minlength=len(right))
        pairs[row] = np.bincount(columns, minlength=len(right)) * len(negatives)
    return right, pairs


def auroc_of(units: Units, positive: NDArray[np.bool_], score: Floats) -> Statistic:
    """AUROC over pairs within a fold: theta = w' A w / w' N w, A and N from ``right_pairs``."""
    right, pairs = right_pairs(units, positive, score)
    return lambda weights: scores.ratio(
        ((weights @ right) * weights).sum(axis=1), ((weights @ pairs) * weights).sum(axis=1)
    )


def average_precision_of(units: Units, positive: NDArray[np.bool_], score: Floats) -> Statistic:
    """Average precision of weighted units: cumulative weights down the ranking, read where a tie ends."""
    order = np.argsort(-score, kind="stable")
    case, hit = units.case[order], positive[order].astype(np.float64)[:, None]
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))

    def statistic(weights: Floats) -> Floats:
        result = []
        for start in range(0, len(weights), _CHUNK):
            each = weights[start : start + _CHUNK].T[case]  # (n, draws): one row a unit
            ranked = np.cumsum(each, axis=0)[ends]
            found = np.cumsum(each * hit, axis=0)[ends]
            precision = np.divide(found, ranked, out=np.zeros_like(found), where=ranked > 0)
            total = (np.diff(found, axis=0, prepend=0.0) * precision).sum(axis=0)
            both = (found[-1] > 0) & (ranked[-1] > found[-1])
            result.append(np.where(both, scores.ratio(total, found[-1]), np.nan))
        return np.concatenate(result)

    return statistic


def _refit_of(units: Units, offset: Floats, design: Floats) -> Statistic:
    """The last coefficient of a logistic regression of the weighted units; NaN where it has no finite value."""
    start = fit(units.truth, offset, design)

    def statistic(weights: Floats) -> Floats:
        if start is None:
            return np.full(len(weights), np.nan)
        return np.concatenate(
            [
                refit(units.truth, offset, design, weights[first : first + _CHUNK].T[units.case], start)[-1]
                for first in range(0, len(weights), _CHUNK)
            ]
        )

    return statistic


def calibration_intercept_of(units: Units) -> Statistic:
    """Calibration in the large (see ``calibration``)."""
    return _refit_of(units, logit(units.p), np.ones((len(units), 1)))


def calibration_slope_of(units: Units) -> Statistic:
    """Calibration slope (see ``calibration``)."""
    return _refit_of(units, np.zeros(len(units)), np.column_stack([np.ones(len(units)), logit(units.p)]))


def mean_over_folds_of(units: Units, make: Callable[[Units], Statistic]) -> Statistic:
    """The mean of a score over the folds in which a draw leaves both classes."""
    folds = []
    for fold in np.unique(units.fold):
        members = units.chosen(units.fold == fold)
        by_class = [sums_by_case(members, members.truth == c) for c in (0, 1)]
        if all(counts.any() for counts in by_class):
            folds.append((make(members), by_class))

    def statistic(weights: Floats) -> Floats:
        values = np.full((len(weights), len(folds)), np.nan)
        for column, (score, (benign, malignant)) in enumerate(folds):
            both = (weights @ benign > 0) & (weights @ malignant > 0)
            values[:, column] = np.where(both, score(weights), np.nan)
        return subtypes.mean_where_defined(values)

    return statistic


def count_statistics(units: Units) -> dict[str, Statistic]:
    """A statistic for each score of the 2 x 2 table (accuracy, sensitivity, ...)."""
    cells = [
        sums_by_case(units, (units.truth == truth) & (units.decision == decision))
        for truth, decision in ((1, 1), (0, 1), (1, 0), (0, 0))
    ]

    def from_counts(score: Callable[[scores.Counts], Floats]) -> Statistic:
        return lambda weights: score(scores.Counts(*(weights @ cell for cell in cells)))

    return {name: from_counts(score) for name, score in scores.COUNT_SCORES.items()}


def recognition_statistics(units: Units) -> dict[str, Statistic]:
    """Patient recognition rate of slide units: overall, benign, malignant."""
    return {
        "patient_recognition_rate": mean_of(units, units.correct_share),
        "patient_recognition_rate_benign": mean_of(units, units.correct_share, units.truth == 0),
        "patient_recognition_rate_malignant": mean_of(units, units.correct_share, units.truth == 1),
    }


def binary_statistics(units: Units) -> dict[str, Statistic]:
    """A statistic for each binary score that has an interval (all but ECE)."""
    statistics = count_statistics(units) | {
        "auroc": auroc_of(units, units.truth == 1, units.p),
        "auprc": mean_over_folds_of(units, lambda u: average_precision_of(u, u.truth == 1, u.p)),
        "auprc_benign": mean_over_folds_of(units, lambda u: average_precision_of(u, u.truth == 0, 1 - u.p)),
        "brier": mean_of(units, scores.squared_error(units.truth, units.p)),
        "log_loss": mean_of(units, scores.log_error(units.truth, units.p)),
        "calibration_intercept": mean_over_folds_of(units, calibration_intercept_of),
        "calibration_slope": mean_over_folds_of(units, calibration_slope_of),
    }
    return statistics | (recognition_statistics(units) if units.level == "slide" else {})


def subtype_statistics(units: Units) -> dict[str, Statistic]:
    """A statistic for each eight-class score and each class's recall."""
    count = subtypes.CLASSES_COUNT
    flat = np.zeros((len(units.cases), count * count))
    np.add.at(flat, (units.case, units.truth * count + units.decision), 1.0)

    def from_confusion(score: Callable[[Floats], Floats]) -> Statistic:
        return lambda weights: score((weights @ flat).reshape(-1, count, count))

    def recall_of(k: int) -> Statistic:
        return from_confusion(lambda confusion: subtypes.recalls(confusion)[:, k])

    headline = subtypes.headline_classes(units)
    one_against_rest = [auroc_of(units, units.truth == k, units.probabilities[:, k]) for k in range(count)]
    return {
        "accuracy": from_confusion(subtypes.accuracy),
        "balanced_accuracy": from_confusion(lambda c: subtypes.mean_where_defined(subtypes.recalls(c))),
        "balanced_accuracy_headline": from_confusion(
            lambda c: subtypes.mean_where_defined(subtypes.recalls(c)[:, headline])
        ),
        "auroc": lambda weights: subtypes.mean_where_defined(
            np.stack([score(weights) for score in one_against_rest], axis=1)
        ),
        "f1": from_confusion(subtypes.macro_f1),
        "mcc": from_confusion(subtypes.mcc),
        "log_loss": mean_of(units, subtypes.subtype_log_error(units)),
    } | {f"recall_{name}": recall_of(k) for k, name in enumerate(SUBTYPES)}
