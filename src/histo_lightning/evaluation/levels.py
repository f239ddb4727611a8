"""From images to slides to cases: the units that a score counts, and the cases they belong to."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.errors import UserError
from histo_lightning.evaluation.table import Table, malignant_share, softmax

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LEVELS = ("image", "slide", "case")
AGGREGATES = ("mean_probability", "mean_logit", "majority_vote")


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """The n units of one level, their truths and decisions, and the C cases that hold them.

    Attributes:
        truth: (n,) int64 class indices of the task.
        probabilities: (n, K) float64, K classes; column 1 is P(malignant) where K is 2.
        decision: (n,) int64 class indices.
        correct_share: (n,) float64, share of the unit's images that are right.
        fold: (n,) int64, 0 everywhere within one run.
        case: (n,) int64 indices into ``cases``.
        cases: (C,) case names; one pseudo-case a class where the grouping is unknown.
        case_class: (C,) int64, 0 benign, 1 malignant.
        grouped: False where some image has no slide or case.
    """

    level: str
    truth: Integers
    probabilities: Floats
    decision: Integers
    correct_share: Floats
    fold: Integers
    case: Integers
    cases: NDArray[np.str_]
    case_class: Integers
    grouped: bool

    @property
    def p(self) -> Floats:
        """(n,) P(malignant)."""
        return malignant_share(self.probabilities)

    def __len__(self) -> int:
        return len(self.truth)

    def units_by_case(self) -> Integers:
        """(C,) number of units of each case."""
        return np.bincount(self.case, minlength=len(self.cases)).astype(np.int64)

    def chosen(self, keep: NDArray[np.bool_]) -> "Units":
        """The same level with only the kept units; all cases stay listed, so case weights still fit."""
        names = ("truth", "probabilities", "decision", "correct_share", "fold", "case")
        return replace(self, **{name: getattr(self, name)[keep] for name in names})


def is_grouped(table: Table) -> bool:
    """Whether every image has a slide and a case; otherwise GROUPING UNKNOWN."""
    return bool(((table.slide != "") & (table.case != "")).all())


def kish(sizes: NDArray[np.int64] | Floats) -> float:
    """Effective number of cases (sum n)^2 / sum n^2 (Kish 1965) of (C,) case sizes; 0 without a case."""
    squares = float((np.asarray(sizes, np.float64) ** 2).sum())
    return float(np.sum(sizes)) ** 2 / squares if squares else 0.0


def _group_keys(table: Table, level: str, binary: bool) -> NDArray[np.str_]:
    if level == "slide":
        return table.slide
    # Cases 21998 and 29960 hold two subtypes: with eight classes the unit is case x subtype.
    return table.case if binary else np.strings.add(np.strings.add(table.case, " "), table.subtype)


def _first_of(keys: NDArray[np.str_], values: Integers, what: str) -> tuple[Integers, Integers]:
    """Group index of each row and the one value of each group; UserError where a group has two."""
    names, first, index = np.unique(keys, return_index=True, return_inverse=True)
    mixed = values != values[first][index]
    if mixed.any():
        raise UserError(
            f"predictions: {what} {names[index[mixed.argmax()]]} stands with two classes or in two folds; "
            f"correct the {what} column (one {what}, one class, one fold)"
        )
    return index.astype(np.int64), values[first]


def _aggregated(table: Table, index: Integers, image: Floats, votes: Integers, aggregate: str) -> Floats:
    """(groups, K) probabilities of each group from the images' probabilities (N, K) and decisions (N,)."""

    def mean(values: Floats) -> Floats:
        sums = np.stack([np.bincount(index, weights=column) for column in values.T], axis=1)
        result: Floats = sums / np.bincount(index)[:, None]
        return result

    if aggregate == "mean_probability":
        return mean(image)
    if aggregate == "majority_vote":
        return mean(np.eye(image.shape[1])[votes])
    probabilities = softmax(mean(table.logits))
    return (
        probabilities
        if image.shape[1] == probabilities.shape[1]
        else _two_columns(malignant_share(probabilities))
    )


def _two_columns(p: Floats) -> Floats:
    return np.column_stack([1 - p, p])


def _decide(probabilities: Floats, threshold: float) -> Integers:
    """(n,) decisions: malignant at p >= threshold; with eight classes the most probable."""
    if probabilities.shape[1] == len(CLASSES):
        return (probabilities[:, 1] >= threshold).astype(np.int64)
    return np.asarray(probabilities.argmax(axis=1), np.int64)


def units(
    table: Table,
    level: str,
    *,
    binary: bool = True,
    aggregate: str = "mean_probability",
    threshold: float | None = None,
    fold: Integers | None = None,
) -> Units:
    """The units of a level, decided and aggregated.

    Args:
        table: checked predictions of N images.
        level: ``image``, ``slide`` or ``case``.
        binary: benign against malignant by ``p_malignant`` (any task); False: the eight classes of ``task=subtype``.
        aggregate: how images make a slide or case. ``mean_probability``; ``mean_logit``, then softmax;
            ``majority_vote``: p is the share of images called malignant, so a tie is malignant.
        threshold: malignant at p >= threshold, at every level (with ``majority_vote`` it decides each image's
            vote and the majority decides the group). None: 0.5, and at image level the table's ``predicted``.
        fold: (N,) fold of each image, for pooled predictions.

    Raises:
        UserError: unknown level or aggregate, a slide or case with two classes or in two folds, or a slide or
            case level asked for where some image has no group.
    """
    if aggregate not in AGGREGATES or level not in LEVELS:
        raise UserError(
            f"level={level}, aggregate={aggregate}: levels are {', '.join(LEVELS)}, aggregates {', '.join(AGGREGATES)}"
        )
    grouped = is_grouped(table)
    folds = np.zeros(len(table), np.int64) if fold is None else fold
    cut = 0.5 if threshold is None else threshold
    truth = table.malignant if binary else table.label
    image = _two_columns(table.p_malignant) if binary else softmax(table.logits)
    decision = _decide(image, cut)
    if threshold is None and (table.task == "binary" or not binary):
        decision = table.predicted
    right = (decision == truth).astype(np.float64)

    case_names = table.case if grouped else table.class_name
    case, case_class = _first_of(case_names, table.malignant, "case")
    if grouped:
        _first_of(case_names, folds, "case")
    cases = np.unique(case_names)
    if level == "image":
        return Units(level, truth, image, decision, right, folds, case, cases, case_class, grouped)
    if not grouped:
        raise UserError("predictions: some images have no slide or case; only the image level can be scored")

    index, group_truth = _first_of(_group_keys(table, level, binary), truth, level)
    probabilities = _aggregated(table, index, image, decision, aggregate)
    _, first = np.unique(index, return_index=True)
    voted = aggregate == "majority_vote"
    return Units(
        level=level,
        truth=group_truth,
        probabilities=probabilities,
        decision=_decide(probabilities, 0.5 if voted else cut),
        correct_share=np.bincount(index, weights=right) / np.bincount(index),
        fold=folds[first],
        case=case[first],
        cases=cases,
        case_class=case_class,
        grouped=True,
    )
