"""The scores of the eight subtypes; averages are over the subtypes that have a unit."""

from functools import partial

import numpy as np

from histo_lightning.data.breakhis.names import SUBTYPES
from histo_lightning.evaluation import binary, registry, scores
from histo_lightning.evaluation.intervals import FEWEST_CASES, class_support
from histo_lightning.evaluation.levels import Units
from histo_lightning.evaluation.scores import Statistic, mean_where_defined, recalls
from histo_lightning.evaluation.table import Floats

RECALL = "recall_"

score = partial(registry.score, task="subtype")


def headline_classes(units: Units) -> list[int]:
    """Indices of the classes with at least five cases; the whole data set has F, TA, DC, MC, PC."""
    by_subtype = class_support(units, SUBTYPES).values()
    return [k for k, sizes in enumerate(by_subtype) if units.grouped and len(sizes) >= FEWEST_CASES]


def subtype_log_error(units: Units) -> Floats:
    """(n,) negative log likelihoods of the true class, in nats."""
    chosen = np.take_along_axis(units.probabilities, units.truth[:, None], axis=1)[:, 0]
    return -np.log(np.maximum(chosen, scores.SMALLEST_P))


score(formula="right / n")(binary.accuracy)


@score(formula="mean recall", averages_classes=True)
def balanced_accuracy(confusion: Floats) -> Floats:
    """Mean of the shares called right, over the classes."""
    return mean_where_defined(recalls(confusion))


@score(formula="mean recall of classes with 5 cases", words="balanced accuracy, headline", decides=True)
def balanced_accuracy_headline(units: Units) -> Statistic:
    """Mean of the shares called right, over the subtypes with at least 5 cases."""
    headline = headline_classes(units)
    return scores.of_confusion(lambda counts: mean_where_defined(recalls(counts)[:, headline]), units)


@score(formula="mean of one-against-rest AUROCs", words="AUROC", pairs=True, averages_classes=True)
def auroc(units: Units) -> Statistic:
    """Probability that one of a subtype is ranked above one of another, mean over the subtypes."""
    one_against_rest = [
        scores.auroc_of(units, units.truth == k, p) for k, p in enumerate(units.probabilities.T)
    ]
    return lambda weights: mean_where_defined(np.stack([s(weights) for s in one_against_rest], axis=1))


@score(formula="mean over classes of 2 TP / (2 TP + FP + FN)", words="F1", averages_classes=True)
def f1(confusion: Floats) -> Floats:
    """Harmonic mean of precision and recall, mean over the subtypes."""
    return mean_where_defined(scores.class_f1(confusion))


score(formula="for K classes; 0 where calls are alike (Gorodkin 2004)", words="MCC", bounds=(-1, 1))(
    binary.mcc
)


@score(formula="mean -log P(truth), P at least 2e-16", better="lower", bounds=(0, np.inf))
def log_loss(units: Units) -> Statistic:
    """Mean negative log probability of the true subtype, in nats."""
    return scores.mean_of(units, subtype_log_error(units))


score(formula="TP / (TP + (FP + FN) / 2) of all calls", words="micro F1")(binary.micro_f1)


def _register_recall(k: int, subtype: str) -> None:
    words = f"recall of {subtype}"

    @score(
        name=RECALL + subtype, words=words, formula="right / n", classes=(k,), case_interval=registry.WILSON
    )
    def recall(confusion: Floats) -> Floats:
        """Share of a subtype called right."""
        return recalls(confusion)[:, k]


for _k, _subtype in enumerate(SUBTYPES):
    _register_recall(_k, _subtype)
