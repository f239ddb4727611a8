"""From images to slides to cases: the units that a score counts, and the cases they belong to."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.errors import UserError
from histo_lightning.evaluation.table import Floats, Integers, Table, Text, malignant_share, softmax

LEVELS = ("image", "slide", "case")
UNGROUPED = "GROUPING UNKNOWN: some images have no slide or case"


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """The n units of one level, their truths and decisions, and the C cases that hold them."""

    level: str
    truth: Integers  # (n,) class indices of the task, as ``decision``
    probabilities: Floats  # (n, K) of K classes; column 1 is P(malignant) where K is 2
    decision: Integers
    correct_share: Floats  # (n,) share of the unit's images that are right
    fold: Integers  # (n,), 0 everywhere within one run
    case: Integers  # (n,) indices into ``cases``
    cases: Text  # (C,) names; one pseudo-case a class and fold where the grouping is unknown
    case_class: Integers  # (C,), 0 benign, 1 malignant
    grouped: bool  # False where some image has no slide or case

    @property
    def p(self) -> Floats:
        """(n,) P(malignant)."""
        return malignant_share(self.probabilities)

    def __len__(self) -> int:
        return len(self.truth)

    def chosen(self, rows: NDArray[Any]) -> "Units":
        """Only some units (mask or indices); all cases stay listed, so case weights still fit."""
        names = ("truth", "probabilities", "decision", "correct_share", "fold", "case")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def as_one_fold(self) -> "Units":
        """The same units as if all were of one fold."""
        return replace(self, fold=np.zeros_like(self.fold))


def is_grouped(table: Table) -> bool:
    """Whether every image has a slide and a case; otherwise GROUPING UNKNOWN."""
    return bool(((table.slide != "") & (table.case != "")).all())


def kish(sizes: Integers | Floats) -> float:
    """Effective number of cases (sum n)^2 / sum n^2 (Kish 1965) of (C,) case sizes; 0 without a case."""
    squares = float((np.asarray(sizes, np.float64) ** 2).sum())
    return float(np.sum(sizes)) ** 2 / squares if squares else 0.0


def _groups(keys: Text, values: Integers, what: str) -> tuple[Integers, Integers]:
    """Group index (n,) of each row and first row (G,) of each group; UserError where a group has two values."""
    names, first, index = np.unique(keys, return_index=True, return_inverse=True)
    mixed = values != values[first][index]
    if mixed.any():
        problem = f"{what} {names[index[mixed.argmax()]]} has two classes or is in two folds"
        mend = f"correct the {what} column (one {what}, one class, one fold)"
        raise UserError(f"predictions: {problem}; {mend}")
    return index.astype(np.int64), first


def _decide(probabilities: Floats, threshold: float | None) -> Integers:
    """(n,) decisions: malignant at p >= threshold, else 0.5; with eight classes the most probable."""
    if probabilities.shape[1] == len(CLASSES):
        return (probabilities[:, 1] >= (0.5 if threshold is None else threshold)).astype(np.int64)
    return np.asarray(probabilities.argmax(axis=1), np.int64)


def units(
    table: Table, level: str, *, binary: bool = True, threshold: float | None = None, fold: Integers | None = None,
) -> Units:  # fmt: skip
    """The units of a level and what is decided on them; a slide or case has the mean probabilities of its images.

    Args:
        binary: benign against malignant by ``p_malignant`` (any task); False: the eight classes of ``task=subtype``.
        threshold: malignant at p >= threshold. None: 0.5, and at image level the table's ``predicted``.
        fold: (N,) fold of each image, for pooled predictions.

    UserError: unknown level, a slide or case with two classes or in two folds, or a level without a known grouping.
    """
    if level not in LEVELS:
        raise UserError(f"level={level}: levels are {', '.join(LEVELS)}")
    grouped = is_grouped(table)
    if level != "image" and not grouped:
        raise UserError("predictions: some images have no slide or case; only the image level can be scored")
    folds = np.zeros(len(table), np.int64) if fold is None else fold
    truth = table.malignant if binary else table.label
    p = table.p_malignant
    image = np.column_stack([1 - p, p]) if binary else softmax(table.logits)
    decision = _decide(image, threshold)
    if threshold is None and (table.task == "binary" or not binary):
        decision = table.predicted
    right = (decision == truth).astype(np.float64)
    case_names = table.case if grouped else np.strings.add(table.class_name, folds.astype(np.str_))
    case, first = _groups(case_names, table.malignant, "case")
    _groups(case_names, folds, "case")
    cases, case_class = case_names[first], table.malignant[first]
    if level == "image":
        return Units(level, truth, image, decision, right, folds, case, cases, case_class, grouped)

    keys = table.slide if level == "slide" else table.case
    if level == "case" and not binary:
        # Cases 21998 and 29960 hold two subtypes: with eight classes the unit is case x subtype.
        keys = np.strings.add(np.strings.add(table.case, " "), table.subtype)
    index, first = _groups(keys, truth, level)
    sizes = np.bincount(index)
    means: Floats = np.stack([np.bincount(index, weights=column) / sizes for column in image.T], axis=1)
    right = np.bincount(index, weights=right) / sizes
    one_each = (truth[first], means, _decide(means, threshold), right, folds[first], case[first])
    return Units(level, *one_each, cases, case_class, grouped=True)
