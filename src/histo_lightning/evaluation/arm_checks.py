"""The proof that arms may be compared: the same cases, images and folds in every one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.errors import UserError
from histo_lightning.evaluation.arms import Arm, Design, Replicate
from histo_lightning.evaluation.levels import Integers, is_grouped
from histo_lightning.evaluation.table import Text

FEWEST_CASES = 2
"""Of a class: a variance over cases needs two."""


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """One replicate's images in the order of their names."""

    image: Text
    case: Text
    malignant: Integers
    fold: Integers


def _same_groups(first: Integers, second: Integers) -> bool:
    """Whether two (N,) labellings cut the same groups, whatever the groups' numbers."""
    pairs = len(np.unique(np.stack([first, second]), axis=1).T)
    return pairs == len(np.unique(first)) == len(np.unique(second))


def _layout(replicate: Replicate, where: str) -> _Layout:
    table = replicate.table
    if not is_grouped(table):
        raise UserError(
            f"{where}: GROUPING UNKNOWN, some images have no slide or case; models are compared over cases, "
            "so give BreakHis file names"
        )
    if len(replicate.fold) != len(table):
        raise UserError(f"{where}: {len(replicate.fold)} folds for {len(table)} images; give one an image")
    order = np.argsort(table.image)
    image = table.image[order]
    if (image[1:] == image[:-1]).any():
        twice = image[1:][image[1:] == image[:-1]][0]
        raise UserError(f"{where}: image {twice} stands twice; pool disjoint test parts of one seed")
    return _Layout(image, table.case[order], table.malignant[order], np.asarray(replicate.fold)[order])


def _refuse_difference(here: _Layout, there: _Layout, where: str, other: str, *, folds: bool) -> None:
    """UserError where two replicates do not hold the same cases and images (and folds)."""
    for what, mine, theirs in (("case", here.case, there.case), ("image", here.image, there.image)):
        alone = np.setxor1d(mine, theirs)
        if len(alone):
            raise UserError(
                f"{where} and {other} hold different {what}s: {what} {alone[0]} is in one of them only "
                f"({len(alone)} such); finish the missing folds or compare what was tested on the same {what}s"
            )
    if (here.case != there.case).any() or (here.malignant != there.malignant).any():
        raise UserError(
            f"{where} and {other} give an image two cases or classes; use one copy of the data set"
        )
    if folds and not _same_groups(here.fold, there.fold):
        raise UserError(
            f"{where} and {other} have different folds; compare runs with the same split, split.seed and split.repeat"
        )


def _refuse_names(arms: Mapping[str, Arm], reference: str) -> None:
    if reference not in arms:
        raise UserError(f"reference={reference}: no such arm; the arms are {', '.join(arms)}")
    if len(arms) < 2:
        raise UserError(f"only one arm ({reference}); a comparison needs at least two")


def _by_size(magnification: str) -> tuple[int, str]:
    return len(magnification), magnification


def _magnifications(arms: Mapping[str, Arm], reference: str) -> tuple[str, ...]:
    expected = sorted(arms[reference], key=_by_size)
    for name, arm in arms.items():
        if set(arm) != set(expected):
            raise UserError(
                f"{name} has magnifications {', '.join(sorted(arm, key=_by_size))}, {reference} has "
                f"{', '.join(expected)}; compare the same magnifications (finish the missing runs)"
            )
    if not expected:
        raise UserError(f"{reference} has no predictions; give at least one magnification")
    return tuple(expected)


def _replicates(arms: Mapping[str, Arm], reference: str) -> int:
    expected = len(next(iter(arms[reference].values())))
    for name, arm in arms.items():
        for magnification, block in arm.items():
            if len(block) != expected or not len(block):
                raise UserError(
                    f"{name} at {magnification} has {len(block)} replicates (seeds), {reference} has {expected}; "
                    "compare the same seeds in every arm (finish or leave out the others)"
                )
    return expected


def _case_folds(layouts: Sequence[_Layout], cases: Text, where: str) -> Integers:
    """(C,) fold of each case in one replicate of the reference, over all its magnifications."""
    fold = np.full(len(cases), -1, np.int64)
    for layout in layouts:
        index = np.searchsorted(cases, layout.case)
        known = fold[index] >= 0
        mixed = known & (fold[index] != layout.fold)
        fold[index] = np.where(known, fold[index], layout.fold)
        mixed |= fold[index] != layout.fold
        if mixed.any():
            raise UserError(
                f"{where}: case {layout.case[mixed.argmax()]} stands in two folds; "
                "use a split by case, the same at every magnification"
            )
    return np.unique(fold, return_inverse=True)[1].astype(np.int64)


def _case_classes(layouts: Sequence[_Layout]) -> tuple[Text, Integers]:
    """Sorted case names and their classes."""
    case = np.concatenate([layout.case for layout in layouts])
    malignant = np.concatenate([layout.malignant for layout in layouts])
    cases, first, index = np.unique(case, return_index=True, return_inverse=True)
    mixed = malignant != malignant[first][index]
    if mixed.any():
        raise UserError(f"case {case[mixed.argmax()]} stands with two classes; correct the class column")
    counts = np.bincount(malignant[first], minlength=len(CLASSES))
    if counts.min() < FEWEST_CASES:
        raise UserError(
            f"only {counts.min()} {CLASSES[counts.argmin()]} case(s); a comparison over cases needs at least "
            f"{FEWEST_CASES} of each class"
        )
    return cases, malignant[first]


def _partitions(fold: Integers) -> Integers:
    """(R,) number of the partition that each replicate's (C,) folds make."""
    kinds: list[Integers] = []
    numbers = []
    for row in fold:
        found = next((i for i, kind in enumerate(kinds) if _same_groups(kind, row)), len(kinds))
        if found == len(kinds):
            kinds.append(row)
        numbers.append(found)
    return np.array(numbers, np.int64)


def design(arms: Mapping[str, Arm], reference: str) -> Design:
    """Check that the arms may be compared, and say what they share.

    Raises:
        UserError: one arm only, an unknown reference, arms with different magnifications, numbers of replicates,
            cases, images or folds, unknown grouping, a case in two folds or classes, or fewer than two cases of a
            class.
    """
    _refuse_names(arms, reference)
    magnifications = _magnifications(arms, reference)
    replicates = _replicates(arms, reference)
    first: list[_Layout] = []
    fold_layouts: list[list[_Layout]] = [[] for _ in range(replicates)]
    others = tuple(sorted(name for name in arms if name != reference))
    for magnification in magnifications:
        for r in range(replicates):
            where = f"{reference} at {magnification}, replicate {r + 1}"
            expected = _layout(arms[reference][magnification][r], where)
            if r:
                start = f"{reference} at {magnification}, replicate 1"
                _refuse_difference(expected, first[-1], where, start, folds=False)
            else:
                first.append(expected)
            fold_layouts[r].append(expected)
            for name in others:
                other = f"{name} at {magnification}, replicate {r + 1}"
                layout = _layout(arms[name][magnification][r], other)
                _refuse_difference(layout, expected, other, where, folds=True)
    cases, case_class = _case_classes(first)
    fold = np.stack(
        [
            _case_folds(layouts, cases, f"{reference}, replicate {r + 1}")
            for r, layouts in enumerate(fold_layouts)
        ]
    )
    counts: NDArray[np.int64] = fold.max(axis=1) + 1
    if counts.min() != counts.max():
        raise UserError(
            f"{reference}: replicates with {counts.min()} and with {counts.max()} folds; compare one number of folds"
        )
    return Design(reference, others, magnifications, replicates, cases, case_class, fold, _partitions(fold))
