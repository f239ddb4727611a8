"""Every binary score of one level, as plain values."""

from collections.abc import Callable

import numpy as np

from histo_lightning.evaluation import scores
from histo_lightning.evaluation.calibration import recalibration
from histo_lightning.evaluation.levels import Units

SCORES = (
    "accuracy",
    "balanced_accuracy",
    "auroc",
    "auprc",
    "auprc_benign",
    "f1",
    "mcc",
    "sensitivity",
    "specificity",
    "brier",
    "ece",
    "log_loss",
    "calibration_intercept",
    "calibration_slope",
)
DECISION_FREE = (
    "auroc",
    "auprc",
    "auprc_benign",
    "brier",
    "ece",
    "log_loss",
    "calibration_intercept",
    "calibration_slope",
)
"""Scores of the probabilities, the same at every threshold."""
SLIDE_SCORES = (
    "patient_recognition_rate",
    "patient_recognition_rate_benign",
    "patient_recognition_rate_malignant",
)


def mean_over_folds(units: Units, score: Callable[[Units], float]) -> float:
    """The mean of a score over the folds where it is defined; within one run, the score itself."""
    values = [score(units.chosen(units.fold == fold)) for fold in np.unique(units.fold)]
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def debiased_ece(units: Units) -> float:
    """ECE less its bias by the jackknife over cases, C t - (C - 1) mean t_(-i) (Quenouille 1956), at least 0.

    The images of a case err together, so the plain value at image level is mostly noise.
    """
    cases = np.unique(units.case)
    if len(cases) < 2 or not units.grouped:
        return float("nan")
    without = [scores.ece(units.truth[keep], units.p[keep]) for keep in (units.case != c for c in cases)]
    plain = scores.ece(units.truth, units.p)
    return max(0.0, len(cases) * plain - (len(cases) - 1) * float(np.mean(without)))


def ece_if_calibrated(units: Units) -> float:
    """Expected ECE of perfectly calibrated, independent units with these probabilities; the mean over folds."""
    return mean_over_folds(units, lambda u: scores.ece_if_calibrated(u.p))


def binary_values(units: Units) -> dict[str, float]:
    """Score name to value, NaN where undefined; the slide level adds the patient recognition rates.

    Pooled over folds, AUROC counts pairs of one fold only, and AUPRC, ECE, calibration intercept and slope are
    means over the folds; all others are plain.
    """
    counts = scores.count(units.truth, units.decision)
    values = {name: float(score(counts)) for name, score in scores.COUNT_SCORES.items()}
    values["brier"] = float(scores.squared_error(units.truth, units.p).mean())
    values["log_loss"] = float(scores.log_error(units.truth, units.p).mean())
    values["auroc"] = scores.auroc(units.truth, units.p, units.fold)
    values["auprc"] = mean_over_folds(units, lambda u: scores.average_precision(u.truth == 1, u.p))
    values["auprc_benign"] = mean_over_folds(units, lambda u: scores.average_precision(u.truth == 0, 1 - u.p))
    values["calibration_intercept"] = mean_over_folds(units, lambda u: recalibration(u.truth, u.p)[0])
    values["calibration_slope"] = mean_over_folds(units, lambda u: recalibration(u.truth, u.p)[1])
    if units.level == "image":
        values["ece"] = mean_over_folds(units, debiased_ece)
    else:
        values["ece"] = mean_over_folds(units, lambda u: scores.ece(u.truth, u.p))
    if units.level == "slide":
        rate = scores.patient_recognition_rate
        values["patient_recognition_rate"] = rate(units.correct_share)
        values["patient_recognition_rate_benign"] = rate(units.correct_share[units.truth == 0])
        values["patient_recognition_rate_malignant"] = rate(units.correct_share[units.truth == 1])
    return values
