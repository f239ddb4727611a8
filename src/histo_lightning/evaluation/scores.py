"""Formulas that scores and pictures share: on plain arrays, and as functions of case weights.

Binary truths have 1 for malignant, the positive class; what is undefined is NaN. A ``Statistic`` takes (B, C) weights of
the C cases, how often a bootstrap draw counts each, to (B,) scores: point value, draws and leave-one-out by one formula.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_lightning.evaluation.levels import Units
from histo_lightning.evaluation.table import Floats, Integers

Statistic = Callable[[Floats], Floats]

SMALLEST_P = float(np.finfo(np.float64).eps)
"""Probabilities are clipped to [eps, 1 - eps] before a logarithm is taken, as scikit-learn does."""
MOST_BINS = 5
_CHUNK = 250
"""Draws at a time where a draw needs a number for every unit (bounds memory at 250 x units)."""


def confusion(truth: Integers, decision: Integers, classes: int) -> Integers:
    """(classes, classes) counts; rows are the truth, columns the decision."""
    cells = np.bincount(truth * classes + decision, minlength=classes * classes)
    return cells.reshape(classes, classes).astype(np.int64)


def ratio(part: Any, whole: Any) -> Floats:
    """part / whole, NaN where whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    undefined = np.full(np.broadcast(part, whole).shape, np.nan)
    return np.asarray(np.divide(part, whole, out=undefined, where=whole != 0))


def mean_where_defined(values: Floats) -> Floats:
    """Mean over the last axis without its NaNs; NaN where nothing is left. (..., K) to (...)."""
    known = np.isfinite(values)
    return ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))


def recalls(confusion: Floats) -> Floats:
    """(..., K) recall of each class from (..., K, K) counts, NaN for a class without a unit."""
    return ratio(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1))


def class_f1(confusion: Floats) -> Floats:
    """(..., K) F1 of each class against the rest from (..., K, K) counts, NaN for a class without a unit."""
    truths = confusion.sum(axis=-1)
    each = ratio(2 * np.diagonal(confusion, axis1=-2, axis2=-1), truths + confusion.sum(axis=-2))
    return np.where(truths > 0, each, np.nan)


def log_error(truth: Integers, p: Floats) -> Floats:
    """(n,) negative log likelihoods in nats, p clipped by ``SMALLEST_P``; their mean is the log loss."""
    clipped = np.clip(p, SMALLEST_P, 1 - SMALLEST_P)
    return -np.where(truth == 1, np.log(clipped), np.log1p(-clipped))


def bin_index(p: Floats) -> Integers:
    """(n,) bin of each unit: at most five bins of equal mass by mid-rank, so ties share a bin and row order is moot."""
    _, inverse, counts = np.unique(p, return_inverse=True, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2)[inverse] / len(p)
    return np.floor(middle * min(MOST_BINS, len(p))).astype(np.int64)


def ece(truth: Integers, p: Floats) -> float:
    """Expected calibration error over at most five equal-mass bins (Naeini et al. 2015), in [0, 1]."""
    return float(np.abs(np.bincount(bin_index(p), weights=truth - p)).sum() / len(p))


def ece_if_calibrated(p: Floats) -> float:
    """Expected ``ece`` if each truth were an independent draw with probability p: exact, by convolution in each bin."""
    total, bins = 0.0, bin_index(p)
    for members in (p[bins == b] for b in np.unique(bins)):
        chances = np.ones(1)
        for q in members:
            chances = np.append(chances * (1 - q), 0.0) + np.append(0.0, chances * q)
        total += float(chances @ np.abs(np.arange(len(chances)) - members.sum()))
    return total / len(p)


def why_undefined(truth: Integers) -> str:
    """Why a score is NaN on these truths, in words."""
    if not len(truth):
        return "no unit of this class here"
    if (truth == truth[0]).all():
        return f"only {'malignant' if truth[0] else 'benign'} cases here"
    return "no finite value on these predictions"


def value_of(statistic: Statistic, units: Units) -> float:
    """The value where each case counts once."""
    return float(statistic(np.ones((1, len(units.cases))))[0])


def sums_by_case(units: Units, values: NDArray[Any]) -> Floats:
    """(C,) sums over the units of each case of (n,) values."""
    return np.bincount(units.case, weights=values, minlength=len(units.cases)).astype(np.float64)


def unit_weights(units: Units, weights: Floats) -> Iterator[Floats]:
    """(n, b) weights of the units from (B, C) weights of their cases, some draws b at a time."""
    for start in range(0, len(weights), _CHUNK):
        yield weights[start : start + _CHUNK].T[units.case]


def of_confusion(function: Statistic, units: Units) -> Statistic:
    """A function of (B, K, K) weighted counts of K classes, rows the truth, as one of (B, C) case weights."""
    classes = units.probabilities.shape[1]
    cells = (units.case * classes + units.truth) * classes + units.decision
    flat = np.bincount(cells, minlength=len(units.cases) * classes**2).reshape(-1, classes**2)
    return lambda weights: function((weights @ flat).reshape(-1, classes, classes))


def mean_of(units: Units, values: NDArray[Any], among: NDArray[np.bool_] | None = None) -> Statistic:
    """The mean of (n,) values over all units, or among some."""
    counted = np.ones(len(units)) if among is None else among.astype(np.float64)
    totals, counts = sums_by_case(units, values * counted), sums_by_case(units, counted)
    return lambda weights: ratio(weights @ totals, weights @ counts)


def auroc_of(units: Units, positive: NDArray[np.bool_], score: Floats) -> Statistic:
    """AUROC over pairs within a fold: theta = w' A w / w' N w.

    A and N (C, C) count rightly ordered pairs (ties half) and all pairs of a negative (rows) and a positive of two cases.
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
    return lambda weights: ratio(
        ((weights @ right) * weights).sum(axis=1), ((weights @ pairs) * weights).sum(axis=1)
    )


def called_sums(positive: NDArray[np.bool_], p: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """(t, b) weights of positives and negatives from each distinct threshold up, the highest first, of (n, b) weights."""
    order = np.argsort(-p, kind="stable")
    last_of_ties = np.flatnonzero(np.append(np.diff(p[order]) != 0, True))
    classes = (positive[order, None], ~positive[order, None])
    hits, alarms = (np.cumsum(weights[order] * members, axis=0)[last_of_ties] for members in classes)
    return hits, alarms


def average_precision_of(units: Units, positive: NDArray[np.bool_], score: Floats) -> Statistic:
    """Average precision of weighted units: the sum over thresholds of the step in recall times the precision."""

    def of_units(each: Floats) -> Floats:
        hits, alarms = called_sums(positive, score, each)
        steps = np.diff(hits, axis=0, prepend=0.0)
        total = np.nansum(steps * ratio(hits, hits + alarms), axis=0)
        return np.where(alarms[-1] > 0, ratio(total, hits[-1]), np.nan)

    return lambda weights: np.concatenate([of_units(each) for each in unit_weights(units, weights)])


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
        return mean_where_defined(values)

    return statistic
