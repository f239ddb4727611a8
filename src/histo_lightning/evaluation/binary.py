"""The scores of benign against malignant; malignant, class 1, is the positive class."""

from typing import Any

import numpy as np

from histo_lightning.evaluation import scores
from histo_lightning.evaluation.calibration import coefficient_of
from histo_lightning.evaluation.levels import UNGROUPED, Units
from histo_lightning.evaluation.registry import MOVER, NEWCOMBE, WILSON, score
from histo_lightning.evaluation.scores import Statistic, auroc_of, average_precision_of, mean_of, ratio
from histo_lightning.evaluation.table import Floats

ANY = (-np.inf, np.inf)
_PAIRS = "P(p benign < p malignant), ties half, pairs of one fold (Hanley and McNeil 1982)"
_SLIDES: dict[str, Any] = {"levels": ("slide",), "decides": True}
_RATE = "patient recognition rate"


@score(formula="right / n", case_interval=WILSON)
def accuracy(confusion: Floats) -> Floats:
    """Share called right."""
    return ratio(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum(axis=(-2, -1)))


@score(formula="(sensitivity + specificity) / 2", case_interval=MOVER)
def balanced_accuracy(confusion: Floats) -> Floats:
    """Mean of the shares called right, over the classes."""
    benign, malignant = np.moveaxis(scores.recalls(confusion), -1, 0)
    return np.asarray((malignant + benign) / 2)


@score(formula="2 TP / (2 TP + FP + FN)", words="F1")
def f1(confusion: Floats) -> Floats:
    """Harmonic mean of precision and sensitivity; undefined without a malignant one."""
    return scores.class_f1(confusion)[..., 1]


@score(formula="correlation; 0 where calls are alike (Chicco and Jurman 2020)", words="MCC", bounds=(-1, 1))
def mcc(confusion: Floats) -> Floats:
    """Matthews correlation of calls and truth."""
    total = confusion.sum(axis=(-2, -1))
    truths, decisions = confusion.sum(axis=-1), confusion.sum(axis=-2)
    covariance = np.trace(confusion, axis1=-2, axis2=-1) * total - (truths * decisions).sum(axis=-1)
    truth_spread, decision_spread = (total**2 - (sums**2).sum(axis=-1) for sums in (truths, decisions))
    correlation = ratio(covariance, np.sqrt(truth_spread) * np.sqrt(decision_spread))
    return np.where((truth_spread > 0) & (decision_spread == 0), 0.0, correlation)


@score(formula="TP / (TP + FN)", classes=(1,), case_interval=WILSON)
def sensitivity(confusion: Floats) -> Floats:
    """Share of the malignant ones called malignant."""
    return scores.recalls(confusion)[..., 1]


@score(formula="TN / (TN + FP)", classes=(0,), case_interval=WILSON)
def specificity(confusion: Floats) -> Floats:
    """Share of the benign ones called benign."""
    return scores.recalls(confusion)[..., 0]


@score(formula="mean (p - y)^2 (Brier 1950)", words="Brier score", better="lower")
def brier(units: Units) -> Statistic:
    """Mean squared error of the probability."""
    return mean_of(units, (units.p - units.truth) ** 2)


@score(formula="mean -log P(truth), P at least 2e-16", better="lower", bounds=(0, np.inf))
def log_loss(units: Units) -> Statistic:
    """Mean negative log probability of the truth, in nats."""
    return mean_of(units, scores.log_error(units.truth, units.p))


@score(formula=_PAIRS, words="AUROC", pairs=True, case_interval=NEWCOMBE)
def auroc(units: Units) -> Statistic:
    """Probability that a malignant one is ranked above a benign one."""
    return auroc_of(units, units.truth == 1, units.p)


@score(formula="sum (R_i - R_(i-1)) P_i, malignant positive", words="AUPRC", per_fold=True)
def auprc(units: Units) -> Statistic:
    """Area under the precision-recall curve, the average precision for malignant."""
    return average_precision_of(units, units.truth == 1, units.p)


@score(formula="sum (R_i - R_(i-1)) P_i, benign positive", words="AUPRC, benign", per_fold=True)
def auprc_benign(units: Units) -> Statistic:
    """Area under the precision-recall curve for benign."""
    return average_precision_of(units, units.truth == 0, 1 - units.p)


@score(formula="a in logit P = a + logit p (Van Calster et al. 2019)", better="", bounds=ANY, per_fold=True)
def calibration_intercept(units: Units) -> Statistic:
    """0 where malignant is called as often as it is there."""
    return coefficient_of(units, slope=False)


@score(formula="b in logit P = a + b logit p (Cox 1958)", better="", bounds=ANY, per_fold=True)
def calibration_slope(units: Units) -> Statistic:
    """1 is calibrated; smaller is over-confident."""
    return coefficient_of(units, slope=True)


def _beside_ece(units: Units) -> dict[str, Any]:
    """The ECE expected under perfect calibration (mean over folds), or why it is undefined."""
    if units.level == "image":
        return {} if units.grouped else {"reason": UNGROUPED}
    floors = [scores.ece_if_calibrated(units.p[units.fold == fold]) for fold in np.unique(units.fold)]
    return {"if_calibrated": float(np.mean(floors))}


@score(
    formula="sum over at most 5 equal-mass bins of |mean y - mean p| n_bin / n (Naeini et al. 2015)",
    words="ECE",
    better="lower",
    per_fold=True,
    no_interval="ECE is biased upwards by chance alone, an interval around it would mislead",
    extras=_beside_ece,
)
def ece(units: Units) -> float:
    """Calibration error over at most 5 bins of equal mass.

    By image, where a case errs as a whole, it is less its bias by the jackknife over cases (Quenouille 1956), at least 0.
    """
    plain = scores.ece(units.truth, units.p)
    if units.level != "image":
        return plain
    cases = np.unique(units.case)
    if len(cases) < 2 or not units.grouped:
        return float("nan")
    others = [units.case != case for case in cases]
    without = [scores.ece(units.truth[own], units.p[own]) for own in others]
    return max(0.0, len(cases) * plain - (len(cases) - 1) * float(np.mean(without)))


@score(formula="mean over slides of right images / images (Spanhol et al. 2016)", **_SLIDES)
def patient_recognition_rate(units: Units) -> Statistic:
    """Mean over slides of the share of images called right."""
    return mean_of(units, units.correct_share)


@score(formula="the same over benign slides", words=f"{_RATE}, benign", classes=(0,), **_SLIDES)
def patient_recognition_rate_benign(units: Units) -> Statistic:
    """Mean over the benign slides of the share of images called right."""
    return mean_of(units, units.correct_share, units.truth == 0)


@score(formula="the same over malignant slides", words=f"{_RATE}, malignant", classes=(1,), **_SLIDES)
def patient_recognition_rate_malignant(units: Units) -> Statistic:
    """Mean over the malignant slides of the share of images called right."""
    return mean_of(units, units.correct_share, units.truth == 1)


@score(formula="TP / (TP + (FP + FN) / 2) of all calls", words="micro F1", case_interval=WILSON)
def micro_f1(confusion: Floats) -> Floats:
    """F1 of all calls together; equals accuracy, since one label a unit makes every error one FP and one FN."""
    return accuracy(confusion)


def always_malignant(units: Units) -> dict[str, float | None]:
    """The scores of answering "malignant" to everything, at one level; None where undefined."""
    called = scores.confusion(units.truth, np.ones_like(units.truth), 2).astype(np.float64)
    functions = (accuracy, balanced_accuracy, f1, mcc, sensitivity, specificity)
    values = {function.__name__: float(function(called)) for function in functions}
    if units.level == "slide":
        values[patient_recognition_rate.__name__] = float(accuracy(called))
    return {name: value if np.isfinite(value) else None for name, value in values.items()}
