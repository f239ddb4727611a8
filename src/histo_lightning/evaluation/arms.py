"""What is compared: arms, their replicates, and what all arms share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.evaluation.levels import Integers
from histo_lightning.evaluation.table import Table, Text


@dataclass(frozen=True, slots=True, eq=False)
class Replicate:
    """Pooled out-of-fold predictions of one configuration at one magnification with one seed (or split repeat).

    Attributes:
        table: the rows of all folds' test parts, an image once.
        fold: (N,) int64 fold of each row, numbered in the order of the split (validation is the next fold).
    """

    table: Table
    fold: Integers


Block = Sequence[Replicate]
"""The R replicates of one configuration at one magnification, in the same order in every arm."""
Arm = Mapping[str, Block]
"""A configuration's blocks by magnification (``40x``, ...)."""


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """What all arms share: A arms, M magnifications, R replicates, C cases, K folds.

    Attributes:
        reference: the arm that the others are compared against.
        others: the other arms, sorted, so that nothing depends on the order in which they were given.
        magnifications: sorted by size.
        replicates: R.
        cases: (C,) names, sorted; case_class: (C,) int64, 0 benign, 1 malignant.
        fold: (R, C) int64 fold of each case in each replicate, from 0 to K - 1.
        partition: (R,) int64: replicates with one number have the same folds (other seeds of one split).
    """

    reference: str
    others: tuple[str, ...]
    magnifications: tuple[str, ...]
    replicates: int
    cases: Text
    case_class: Integers
    fold: Integers
    partition: Integers

    @property
    def arms(self) -> tuple[str, ...]:
        """All arms, the reference first."""
        return (self.reference, *self.others)

    @property
    def folds(self) -> int:
        """K."""
        return int(self.fold.max()) + 1

    @property
    def split_repeats(self) -> bool:
        """Whether the replicates are repeats of the split; else they are seeds on one split."""
        return bool(self.partition.max() > 0)

    @property
    def cases_by_class(self) -> Integers:
        """(2,) benign and malignant cases."""
        return np.bincount(self.case_class, minlength=len(CLASSES)).astype(np.int64)
