"""Formulas on plain arrays that scores and pictures share; binary truths have 1 for malignant, the positive class.

What the data leave undefined is NaN; ``why_undefined`` says why.
"""

from typing import Any

import numpy as np

from histo_lightning.evaluation.table import Floats, Integers

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
    gaps = np.bincount(bin_index(p), weights=truth - p)
    return float(np.abs(gaps).sum() / len(p))


def ece_if_calibrated(p: Floats) -> float:
    """Expected ``ece`` if each truth were an independent draw with probability p: its floor at this size.

    Exact: mean absolute deviation of a Poisson-binomial count in each bin, by convolution.
    """
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
