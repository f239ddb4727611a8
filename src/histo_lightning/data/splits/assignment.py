"""Balanced assignment of groups (cases or slides) to folds, the same on every machine.

Within a class, fold sizes differ by at most one group; pair swaps then minimise the squared relative deviations of the
folds' totals: images at each magnification, and groups of each subtype, in integers.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.splits.groups import keyed_order, main_subtype

STARTS = 64
SUBTYPE_WEIGHT = 0.25  # one misplaced case of a subtype weighs like half a fold's mean image count, squared
REPEAT_BOUNDS = (350 / 496, 680 / 496)  # benign images of a fold / their mean (2,480 / 5), as in the protocol
REPEAT_ATTEMPTS = 2000
_SCALE = 10**10
Integers = NDArray[np.int64]
Folds = list[tuple[str, ...]]  # the names of the groups of each fold, sorted


@dataclass(frozen=True)
class _Groups:
    """The groups of one class. A row a group: images by magnification, then the subtype as zeros and a one."""

    names: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]
    magnifications: int
    folds: int

    @cached_property
    def features(self) -> Integers:
        """The rows, and empty groups at the end that make every fold equally large."""
        return np.pad(np.array(self.rows, dtype=np.int64), ((0, -len(self.rows) % self.folds), (0, 0)))

    @cached_property
    def weights(self) -> Integers:
        """Of a squared deviation in each column."""
        totals = self.features[:, : self.magnifications].sum(axis=0)
        relative = [_SCALE // max(int(total), 1) ** 2 for total in totals]
        subtypes = len(self.rows[0]) - self.magnifications
        uneven = [int(_SCALE * SUBTYPE_WEIGHT) // len(self.names) ** 2] * subtypes
        return np.array(relative + uneven, dtype=np.int64)

    def start(self, *key: object) -> Integers:
        """A fold for each row by dealing the names out in an order by ``key``; the last folds get the empty groups."""
        turn = {name: i for i, name in enumerate(keyed_order(self.names, *key) if key else self.names)}
        dealt = [turn[name] % self.folds for name in self.names]
        padding = len(self.features) - len(dealt)
        return np.array([*dealt, *range(self.folds - padding, self.folds)], dtype=np.int64)

    def sums(self, folds: Integers) -> Integers:
        return np.eye(self.folds, dtype=np.int64)[folds].T @ self.features

    def improve(self, folds: Integers) -> Integers:
        """Steepest descent over swaps of two groups; a swap with an empty group moves a case."""
        folds = folds.copy()
        difference = self.features[None, :, :] - self.features[:, None, :]
        squared = (2 * difference**2 * self.weights).sum(axis=2)
        empty = np.arange(len(folds)) >= len(self.names)
        while True:
            own = self.sums(folds)[folds]
            gain = (2 * difference * (own[:, None, :] - own[None, :, :]) * self.weights).sum(axis=2) + squared
            short = np.isin(folds, folds[empty])  # a fold holds at most one empty group
            second_empty = empty[:, None] & short[None, :]
            gain[second_empty | second_empty.T | (folds[:, None] == folds[None, :])] = 0
            i, j = np.unravel_index(int(gain.argmin()), gain.shape)
            if gain[i, j] >= 0:
                return folds
            folds[i], folds[j] = folds[j], folds[i]

    def parts(self, folds: Integers) -> Folds:
        dealt = list(zip(self.names, folds.tolist(), strict=False))
        return sorted(tuple(name for name, own in dealt if own == fold) for fold in range(self.folds))


@lru_cache(maxsize=64)  # a sweep in one process asks for the same partition in every run
def _optimum(groups: _Groups) -> Folds:
    candidates = []
    for start in (groups.start(), *(groups.start("start", s) for s in range(1, STARTS))):
        folds = groups.improve(start)
        deviations = groups.folds * groups.sums(folds) - groups.features.sum(axis=0)
        candidates.append((int((deviations**2 * groups.weights).sum()), groups.parts(folds)))
    return min(candidates)[1]


def _sampled(groups: _Groups, seed: int, repeat: int) -> Folds:
    """A random partition whose folds all hold an acceptable number of images (else the most even one drawn)."""
    images = groups.features[:, : groups.magnifications].sum(axis=1)
    best: tuple[float, Folds] = (np.inf, [])
    for attempt in range(REPEAT_ATTEMPTS):
        folds = groups.start("repeat", seed, repeat, attempt)
        counts = np.bincount(folds, weights=images, minlength=groups.folds)
        relative = counts / (images.sum() / groups.folds)
        outside = float(max(REPEAT_BOUNDS[0] - relative.min(), relative.max() - REPEAT_BOUNDS[1], 0.0))
        if outside < best[0]:
            best = (outside, groups.parts(folds))
        if outside == 0.0:
            break
    return best[1]


def assign(members: dict[str, list[Record]], folds: int, *, seed: int = 0, repeat: int = 0) -> Folds:
    """Partition groups (records by name, over all magnifications) into balanced folds, class by class.

    No class may have fewer groups than ``folds``. Repeat 0 is the optimum and needs no seed; others are drawn.
    """
    by_class = [{n: m for n, m in members.items() if m[0].class_name == class_name} for class_name in CLASSES]
    result: Folds = [()] * folds
    for turn, own in enumerate(filter(None, by_class)):
        magnifications = sorted({r.magnification for records in own.values() for r in records})
        subtypes = sorted({r.subtype for records in own.values() for r in records})
        rows = []
        for _, records in sorted(own.items()):
            images, subtype = Counter(r.magnification for r in records), main_subtype(records)
            rows.append((*(images[m] for m in magnifications), *(int(s == subtype) for s in subtypes)))
        groups = _Groups(tuple(sorted(own)), tuple(rows), len(magnifications), folds)
        if repeat == 0:
            parts = _optimum(groups)
        elif turn == 0:
            parts = _sampled(groups, seed, repeat)
        else:
            parts = groups.parts(groups.improve(groups.start("repeat", seed, repeat)))
        largest_first = sorted(parts, key=lambda part: (-len(part), part))
        smallest_first = sorted(range(folds), key=lambda f: (len(result[f]), f))
        # Fold sizes stay close: the most benign groups are paired with the fewest malignant ones.
        for fold, part in zip(smallest_first, largest_first, strict=True):
            result[fold] = tuple(sorted(result[fold] + part))
    return result
