"""What all compared levels share, and the proof that they may be compared: the same cases, images and folds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from histo_lightning.data.names import CLASSES
from histo_lightning.errors import UserError
from histo_lightning.evaluation.levels import Integers, is_grouped
from histo_lightning.evaluation.table import Table, Text

FEWEST_CASES = 2
"""Of a class: a variance over cases needs two."""


@dataclass(frozen=True, slots=True, eq=False)
class Replicate:
    """Pooled out-of-fold predictions of one level at one magnification with one seed (or split repeat).

    Attributes:
        table: the rows of all folds' test parts, an image once.
        fold: (N,) int64 fold of each row, numbered in the order of the split (validation is the next fold).
    """

    table: Table
    fold: Integers


Predictions = Mapping[str, Mapping[str, Sequence[Replicate]]]
"""Level -> magnification (``40x``, ...) -> its R replicates, in the same order everywhere."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What A levels, M magnifications and R replicates share: C cases in K folds.

    Attributes:
        levels: the reference first, then the others, sorted, so that nothing depends on their order.
        magnifications: sorted by size.
        cases: (C,) names, sorted; case_class: (C,) int64, 0 benign, 1 malignant.
        fold: (R, C) int64 fold of each case in each replicate, from 0 to K - 1.
        partition: (R,) int64: replicates with one number have the same folds (other seeds of one split); repeats of
            the split have 0, 1, ...
    """

    levels: tuple[str, ...]
    magnifications: tuple[str, ...]
    cases: Text
    case_class: Integers
    fold: Integers
    partition: Integers

    @property
    def replicates(self) -> int:
        """R."""
        return len(self.fold)

    @property
    def folds(self) -> int:
        """K."""
        return int(self.fold.max()) + 1


def layout_of(predictions: Predictions, reference: str) -> Layout:
    """Check that the levels may be compared, and say what they share.

    Raises:
        UserError: one level only, an unknown reference, levels with different magnifications, numbers of replicates,
            cases, images or folds, unknown grouping, a case in two folds or classes, or fewer than two cases of a
            class.
    """
    magnifications, replicates = _shape(predictions, reference)
    others = sorted(name for name in predictions if name != reference)
    own: list[pd.DataFrame] = []  # the reference's images, by replicate
    for r in range(replicates):
        images = {}
        for magnification in magnifications:
            where = f"{reference} at {magnification}, replicate {r + 1}"
            images[magnification] = _images(predictions[reference][magnification][r], where)
            if r:
                start = f"{reference} at {magnification}, replicate 1"
                _refuse_difference(
                    images[magnification], own[0].loc[[magnification]].droplevel(0), where, start, folds=False
                )
            for name in others:
                other = f"{name} at {magnification}, replicate {r + 1}"
                theirs = _images(predictions[name][magnification][r], other)
                _refuse_difference(theirs, images[magnification], other, where, folds=True)
        own.append(pd.concat(images))
    case_class = _by_case(own[0], "malignant", "case {} has two classes; correct the class column")
    counts = np.bincount(case_class, minlength=len(CLASSES))
    if counts.min() < FEWEST_CASES:
        raise UserError(
            f"only {counts.min()} {CLASSES[counts.argmin()]} case(s); a comparison over cases needs at least "
            f"{FEWEST_CASES} of each class"
        )
    fold = np.stack([
        np.unique(
            _by_case(
                images, "fold",
                f"{reference}, replicate {r + 1}: case {{}} appears in two folds; "
                "use a split by case, the same at every magnification",
            ),
            return_inverse=True,
        )[1]
        for r, images in enumerate(own)
    ])  # fmt: skip
    counts = fold.max(axis=1) + 1
    if counts.min() != counts.max():
        raise UserError(
            f"{reference}: replicates with {counts.min()} and with {counts.max()} folds; compare one number of folds"
        )
    cases = case_class.index.to_numpy(np.str_)
    partition = [next(i for i, other in enumerate(fold) if _same_groups(other, row)) for row in fold]
    return Layout(
        (reference, *others),
        magnifications,
        cases,
        case_class.to_numpy(),
        fold,
        pd.factorize(np.array(partition))[0],
    )


def _shape(predictions: Predictions, reference: str) -> tuple[tuple[str, ...], int]:
    """The magnifications, sorted by size, and the number of replicates that every level has."""
    if reference not in predictions:
        raise UserError(f"reference={reference}: no such level; the levels are {', '.join(predictions)}")
    if len(predictions) < 2:
        raise UserError(f"only one level ({reference}); a comparison needs at least two")
    counts = {
        name: {m: len(level[m]) for m in sorted(level, key=lambda m: (len(m), m))}
        for name, level in predictions.items()
    }
    expected = counts[reference]
    sizes = set(expected.values())
    for name, own in counts.items():
        if own != expected or len(sizes) != 1 or not min(sizes):
            ours, theirs = (", ".join(f"{n} at {m}" for m, n in x.items()) or "none" for x in (own, expected))
            raise UserError(
                f"{name} has replicates (seeds): {ours}; {reference} has {theirs}; compare the same magnifications "
                "and seeds at every level (finish the missing runs)"
            )
    return tuple(expected), sizes.pop()


def _images(replicate: Replicate, where: str) -> pd.DataFrame:
    """Case, class and fold of a replicate's images, in the order of their names."""
    table = replicate.table
    if not is_grouped(table):
        raise UserError(
            f"{where}: GROUPING UNKNOWN, some images have no slide or case; models are compared over cases, "
            "so give BreakHis file names"
        )
    if len(replicate.fold) != len(table):
        raise UserError(f"{where}: {len(replicate.fold)} folds for {len(table)} images; give one an image")
    columns = {"case": table.case, "malignant": table.malignant, "fold": replicate.fold}
    images = pd.DataFrame(columns, index=table.image).sort_index()
    if not images.index.is_unique:
        twice = images.index[images.index.duplicated()][0]
        raise UserError(f"{where}: image {twice} appears twice; pool disjoint test parts of one seed")
    return images


def _refuse_difference(
    here: pd.DataFrame, there: pd.DataFrame, where: str, other: str, *, folds: bool
) -> None:
    """UserError where two replicates do not hold the same cases and images (and folds)."""
    for what, mine, theirs in (("case", here.case, there.case), ("image", here.index, there.index)):
        alone = np.setxor1d(mine, theirs)
        if len(alone):
            raise UserError(
                f"{where} and {other} hold different {what}s: {what} {alone[0]} is in one of them only "
                f"({len(alone)} such); finish the missing folds or compare what was tested on the same {what}s"
            )
    if not here[["case", "malignant"]].equals(there[["case", "malignant"]]):
        raise UserError(
            f"{where} and {other} give an image two cases or classes; use one copy of the data set"
        )
    if folds and not _same_groups(here.fold, there.fold):
        raise UserError(
            f"{where} and {other} have different folds; compare runs with the same split, split.seed and split.repeat"
        )


def _same_groups(first: ArrayLike, second: ArrayLike) -> bool:
    """Whether two (N,) labellings cut the same groups, whatever the groups' numbers."""
    pairs = len(np.unique(np.stack([first, second]), axis=1).T)
    return pairs == len(np.unique(first)) == len(np.unique(second))


def _by_case(images: pd.DataFrame, column: str, problem: str) -> pd.Series:
    """The one value that each case has in a column, by its name, sorted; else UserError with the case's name."""
    groups = images.groupby("case")[column]
    mixed = groups.nunique() > 1
    if mixed.any():
        raise UserError(problem.format(mixed.idxmax()))
    return groups.first()
