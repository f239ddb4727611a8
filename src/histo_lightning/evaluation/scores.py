"""Formulas on plain arrays that scores and pictures share; binary truths have 1 for malignant, the positive class.

What the data leave undefined is NaN; ``why_undefined`` says why.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SMALLEST_P = float(np.finfo(np.float64).eps)
"""Probabilities are clipped to [eps, 1 - eps] before a logarithm is taken, as scikit-learn does."""
MOST_BINS = 5


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


def log_error(truth: Integers, p: Floats) -> Floats:
    """(n,) negative log likelihoods in nats, p clipped by ``SMALLEST_P``; their mean is the log loss."""
    clipped = np.clip(p, SMALLEST_P, 1 - SMALLEST_P)
    return -np.where(truth == 1, np.log(clipped), np.log1p(-clipped))


def auroc(truth: Integers, p: Floats, fold: Integers) -> float:
    """Share of the (benign, malignant) pairs of one fold that p orders rightly, ties half; pairs of all folds together.

    With one fold it is the Mann-Whitney form of the area under the ROC curve (Hanley and McNeil 1982).
    """
    right = pairs = 0.0
    for k in np.unique(fold):
        benign = np.sort(p[(fold == k) & (truth == 0)])
        malignant = p[(fold == k) & (truth == 1)]
        below = np.searchsorted(benign, malignant, "left") + np.searchsorted(benign, malignant, "right")
        right += float(below.sum()) / 2
        pairs += len(benign) * len(malignant)
    return right / pairs if pairs else float("nan")


def average_precision(positive: NDArray[np.bool_], score: Floats) -> float:
    """Area under the precision-recall steps, sum (R_i - R_(i-1)) P_i over distinct thresholds, as scikit-learn."""
    if positive.all() or not positive.any():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    hits = np.cumsum(positive[order])[ends]
    return float(np.sum(np.diff(hits, prepend=0) * hits / (ends + 1)) / hits[-1])


def bin_index(p: Floats) -> Integers:
    """(n,) bin of each unit: at most five bins of equal mass by mid-rank, so ties share a bin and row order is moot."""
    _, inverse, counts = np.unique(p, return_inverse=True, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2)[inverse] / len(p)
    return np.floor(middle * min(MOST_BINS, len(p))).astype(np.int64)


def ece(truth: Integers, p: Floats) -> float:
    """Expected calibration error over at most five equal-mass bins (Naeini et al. 2015), in [0, 1]."""
    gaps = np.bincount(bin_index(p), weights=truth - p)
    return float(np.abs(gaps).sum() / len(p))


def ece_if_calibrated(p: Floats) -> float:
    """Expected ``ece`` if each truth were an independent draw with probability p: its floor at this size.

    Exact: mean absolute deviation of a Poisson-binomial count in each bin, by convolution.
    """
    total = 0.0
    bins = bin_index(p)
    for b in np.unique(bins):
        members = p[bins == b]
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
