"""Every eight-class score of one level, as plain values."""

import numpy as np
from numpy.typing import NDArray

from histo_lightning.data.breakhis.names import SUBTYPES
from histo_lightning.evaluation import scores
from histo_lightning.evaluation.intervals import FEWEST_CASES
from histo_lightning.evaluation.levels import Units

Floats = NDArray[np.float64]

CLASSES_COUNT = len(SUBTYPES)

SCORES = (
    "accuracy",
    "balanced_accuracy",
    "balanced_accuracy_headline",
    "auroc",
    "f1",
    "mcc",
    "log_loss",
)


def mean_where_defined(values: Floats) -> Floats:
    """Mean over the last axis without its NaNs; NaN where nothing is left. (..., K) to (...)."""
    known = np.isfinite(values)
    return scores.ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))


def recalls(confusion: Floats) -> Floats:
    """(..., K) recall of each class from (..., K, K) counts, NaN for a class without a unit."""
    return scores.ratio(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1))


def macro_f1(confusion: Floats) -> Floats:
    """Mean F1 over the classes that have a unit; (..., K, K) to (...), in [0, 1]."""
    truths = confusion.sum(axis=-1)
    each = scores.ratio(2 * np.diagonal(confusion, axis1=-2, axis2=-1), truths + confusion.sum(axis=-2))
    return mean_where_defined(np.where(truths > 0, each, np.nan))


def accuracy(confusion: Floats) -> Floats:
    """Share of right decisions; (..., K, K) to (...), in [0, 1]."""
    return scores.ratio(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum(axis=(-2, -1)))


def mcc(confusion: Floats) -> Floats:
    """Matthews correlation for K classes (Gorodkin 2004); (..., K, K) to (...), in [-1, 1].

    0 where all decisions are alike, NaN where all truths are.
    """
    truths, decisions = confusion.sum(axis=-1), confusion.sum(axis=-2)
    total = confusion.sum(axis=(-2, -1))
    covariance = np.trace(confusion, axis1=-2, axis2=-1) * total - (truths * decisions).sum(axis=-1)
    truth_spread = total**2 - (truths**2).sum(axis=-1)
    decision_spread = total**2 - (decisions**2).sum(axis=-1)
    correlation = scores.ratio(covariance, np.sqrt(truth_spread) * np.sqrt(decision_spread))
    return np.where((truth_spread > 0) & (decision_spread == 0), 0.0, correlation)


def cases_of_class(units: Units, k: int) -> int:
    """Number of cases with a unit of class k."""
    return len(np.unique(units.case[units.truth == k]))


def headline_classes(units: Units) -> list[int]:
    """Indices of the classes with at least five cases; the whole data set has F, TA, DC, MC, PC."""
    return [k for k in range(CLASSES_COUNT) if units.grouped and cases_of_class(units, k) >= FEWEST_CASES]


def subtype_log_error(units: Units) -> Floats:
    """(n,) negative log likelihoods of the true class, in nats."""
    chosen = np.take_along_axis(units.probabilities, units.truth[:, None], axis=1)[:, 0]
    return -np.log(np.maximum(chosen, scores.SMALLEST_P))


def subtype_values(units: Units) -> dict[str, float]:
    """Score name to value (``SCORES`` and ``recall_<subtype>``), NaN where undefined.

    ``balanced_accuracy`` is the mean recall over the classes here, ``..._headline`` over those with at least
    five cases; ``auroc`` is the mean of one-against-rest AUROCs over the classes here.
    """
    counts = scores.confusion(units.truth, units.decision, CLASSES_COUNT).astype(np.float64)
    recall = recalls(counts)
    one_against_rest = [
        scores.auroc((units.truth == k).astype(np.int64), units.probabilities[:, k], units.fold)
        for k in range(CLASSES_COUNT)
    ]
    values = {
        "accuracy": float(accuracy(counts)),
        "balanced_accuracy": float(mean_where_defined(recall)),
        "balanced_accuracy_headline": float(mean_where_defined(recall[headline_classes(units)])),
        "auroc": float(mean_where_defined(np.array(one_against_rest))),
        "f1": float(macro_f1(counts)),
        "mcc": float(mcc(counts)),
        "log_loss": float(subtype_log_error(units).mean()),
    }
    return values | {f"recall_{name}": float(recall[k]) for k, name in enumerate(SUBTYPES)}
