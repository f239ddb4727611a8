"""Which interval each score of a level gets: closed forms for independent cases, expanded BCa for the rest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from histo_lightning.data.breakhis.names import CLASSES, SUBTYPES
from histo_lightning.evaluation import scores, subtypes
from histo_lightning.evaluation.intervals import (
    EXPANDED_BCA,
    FEWEST_CASES,
    MOVER,
    NEWCOMBE,
    SMALLEST_SPREAD,
    WILSON,
    Interval,
    Pair,
    acceleration,
    bca,
    case_weights,
    expanded_z,
    mover_mean,
    newcombe_auroc,
    wilson,
)
from histo_lightning.evaluation.levels import Units, kish
from histo_lightning.evaluation.resampling import Statistic, binary_statistics, subtype_statistics

Floats = NDArray[np.float64]

UNGROUPED = "GROUPING UNKNOWN: some images have no slide or case"
NO_ECE_INTERVAL = "ECE is biased upwards by chance alone, an interval around it would mislead"
_RESTS_ON = {
    "sensitivity": (1,),
    "specificity": (0,),
    "patient_recognition_rate_malignant": (1,),
    "patient_recognition_rate_benign": (0,),
}
"""Classes that a score counts, where it is not both."""
_USABLE = 0.99
"""Share of the draws in which a score must be defined."""


@dataclass(frozen=True, slots=True)
class Support:
    """The cases a score rests on, by group (class or subtype), and the units of each of these cases."""

    names: Sequence[str]
    sizes: Sequence[NDArray[np.int64]]

    @property
    def cases(self) -> int:
        return sum(len(sizes) for sizes in self.sizes)

    @property
    def smaller(self) -> int:
        return min(len(sizes) for sizes in self.sizes)

    @property
    def kish(self) -> float:
        return min(kish(sizes) for sizes in self.sizes)

    def too_few(self) -> str | None:
        """The reason against a bootstrap, if a group is too small for one."""
        few = [
            f"{len(s)} {name}"
            for name, s in zip(self.names, self.sizes, strict=True)
            if len(s) < FEWEST_CASES
        ]
        return f"fewer than {FEWEST_CASES} cases of a class here ({', '.join(few)})" if few else None


def class_support(units: Units, classes: Sequence[int] = (0, 1)) -> Support:
    """The cases of the given classes (0 benign, 1 malignant)."""
    sizes = units.units_by_case()
    return Support(
        [CLASSES[c] for c in classes], [sizes[(units.case_class == c) & (sizes > 0)] for c in classes]
    )


def subtype_support(units: Units, k: int) -> Support:
    """The cases with a unit of subtype k."""
    sizes = np.bincount(units.case[units.truth == k]).astype(np.int64)
    return Support([SUBTYPES[k]], [sizes[sizes > 0]])


def closed_form(pair: Pair, method: str, support: Support) -> Interval:
    return Interval(*pair, method, support.cases, support.smaller, support.kish)


def bootstrap(units: Units, statistic: Statistic, weights: Floats, support: Support) -> Interval:
    """The expanded BCa interval of a statistic, or the reason why there is none.

    kappa of the expansion is the smaller Kish number among the score's classes at image level (benign on
    BreakHis), and the smaller number of cases at slide and case level.
    """
    if reason := support.too_few():
        return Interval(reason=reason)
    draws = statistic(weights)
    usable = draws[np.isfinite(draws)]
    if len(usable) < _USABLE * len(draws):
        return Interval(reason=f"undefined in {len(draws) - len(usable)} of {len(draws)} draws")
    if np.ptp(usable) < SMALLEST_SPREAD:
        return Interval(reason="zero spread: every draw of cases gives the same value")
    kappa = support.kish if units.level == "image" else float(support.smaller)
    if kappa < 2:
        return Interval(reason=f"one case dominates its class (effectively {kappa:.1f} cases)")
    count = len(units.cases)
    left_out = statistic(np.ones((count, count)) - np.eye(count))
    by_class = [
        left_out[(units.case_class == c) & np.isfinite(left_out)] for c in np.unique(units.case_class)
    ]
    value = float(statistic(np.ones((1, count)))[0])
    pair = bca(value, usable, acceleration(by_class), expanded_z(kappa))
    return Interval(*pair, EXPANDED_BCA, support.cases, support.smaller, support.kish, len(draws))


def _case_closed_forms(units: Units, auroc: float) -> dict[str, Interval]:
    """Wilson, MOVER and Newcombe intervals of independent cases, where their classes are present."""
    counts = scores.count(units.truth, units.decision)
    tp, fp, fn, tn = (int(cell) for cell in counts)
    both, benign, malignant = class_support(units), class_support(units, (0,)), class_support(units, (1,))
    found = {"accuracy": closed_form(wilson(tp + tn, len(units)), WILSON, both)}
    if tp + fn:
        found["sensitivity"] = closed_form(wilson(tp, tp + fn), WILSON, malignant)
    if tn + fp:
        found["specificity"] = closed_form(wilson(tn, tn + fp), WILSON, benign)
    if tp + fn and tn + fp:
        pair = mover_mean(tp / (tp + fn), tn / (tn + fp), wilson(tp, tp + fn), wilson(tn, tn + fp))
        found["balanced_accuracy"] = closed_form(pair, MOVER, both)
    if np.isfinite(auroc):
        found["auroc"] = closed_form(newcombe_auroc(auroc, tn + fp, tp + fn), NEWCOMBE, both)
    return found


def binary_intervals(
    units: Units, auroc: float, draws: int, seed: int, skip: Sequence[str] = ()
) -> dict[str, Interval]:
    """An interval, or the reason against one, for each binary score of a level.

    Args:
        units: binary units of known cases; auroc: their AUROC (NaN where undefined).
        draws: of the bootstrap; seed: of the draws; skip: scores whose interval is known already.
    """
    statistics = {name: s for name, s in binary_statistics(units).items() if name not in skip}
    found = _case_closed_forms(units, auroc) if units.level == "case" else {}
    found["ece"] = Interval(reason=NO_ECE_INTERVAL)
    weights = case_weights(units.case_class, draws, seed)
    for name, statistic in statistics.items():
        if name not in found:
            support = class_support(units, _RESTS_ON.get(name, (0, 1)))
            found[name] = bootstrap(units, statistic, weights, support)
    return found


def subtype_intervals(units: Units, draws: int, seed: int) -> dict[str, Interval]:
    """An interval, or the reason against one, for each eight-class score of a level.

    An average over all classes has none where a class has fewer than five cases; the headline average has.
    """
    rare = [name for k, name in enumerate(SUBTYPES) if 0 < subtypes.cases_of_class(units, k) < FEWEST_CASES]
    weights = case_weights(units.case_class, draws, seed)
    found: dict[str, Interval] = {}
    for name, statistic in subtype_statistics(units).items():
        if name.startswith("recall_"):
            k = SUBTYPES.index(name.removeprefix("recall_"))
            support = subtype_support(units, k)
            here = units.truth == k
            if units.level == "case" and here.any():
                right = int((units.decision[here] == k).sum())
                found[name] = closed_form(wilson(right, int(here.sum())), WILSON, support)
                continue
        elif rare and name in ("balanced_accuracy", "auroc", "f1"):
            found[name] = Interval(reason=f"fewer than {FEWEST_CASES} cases of {', '.join(rare)}")
            continue
        else:
            support = class_support(units)
        found[name] = bootstrap(units, statistic, weights, support)
    return found
