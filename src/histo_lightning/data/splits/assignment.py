"""Balanced assignment of groups (cases or slides) to folds.

Every group is a vector of integers: its images at each magnification and its subtype. Within a class,
fold sizes differ by at most one group; pair swaps then minimise the squared relative deviations of the
folds' totals. All arithmetic is on integers and all ties break by group name, so the result is the same
on every machine.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.splits.grouping import keyed_order

STARTS = 64
SUBTYPE_WEIGHT = 0.25  # one misplaced case of a subtype weighs like half a fold's mean image count, squared
REPEAT_BOUNDS = (350 / 496, 680 / 496)  # benign images of a fold / their mean (2,480 / 5), as in the protocol
REPEAT_ATTEMPTS = 2000
_SCALE = 10**10


class _Groups:
    """The groups of one class as integer features, padded with empty groups so that every fold has equal size."""

    def __init__(self, members: dict[str, list[Record]], folds: int) -> None:
        self.names = sorted(members)
        self.folds = folds
        self.padding = -len(self.names) % folds
        magnifications = sorted({r.magnification for records in members.values() for r in records})
        subtypes = sorted({r.subtype for records in members.values() for r in records})
        rows = []
        for name in self.names:
            counts = Counter(r.magnification for r in members[name])
            majority = Counter(r.subtype for r in members[name]).most_common()
            subtype = min(majority, key=lambda item: (-item[1], item[0]))[0]
            rows.append([counts[m] for m in magnifications] + [int(subtype == s) for s in subtypes])
        rows += [[0] * len(rows[0])] * self.padding
        self.features: NDArray[np.int64] = np.array(rows, dtype=np.int64)
        totals = self.features.sum(axis=0)
        relative = [_SCALE // max(int(t), 1) ** 2 for t in totals[: len(magnifications)]]
        uneven = [int(_SCALE * SUBTYPE_WEIGHT) // len(self.names) ** 2 for _ in subtypes]
        self.weights: NDArray[np.int64] = np.array(relative + uneven, dtype=np.int64)
        self.images: NDArray[np.int64] = self.features[:, : len(magnifications)].sum(axis=1)

    def _content(self) -> tuple[object, ...]:
        return self.folds, tuple(self.names), self.features.tobytes(), self.weights.tobytes()

    def __hash__(self) -> int:
        return hash(self._content())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Groups) and self._content() == other._content()

    def start(self, order: Sequence[str]) -> NDArray[np.int64]:
        """Folds (int64, one a group and padding row) by dealing the names out in turn."""
        folds = np.zeros(len(self.features), dtype=np.int64)
        position = {name: i for i, name in enumerate(self.names)}
        for turn, name in enumerate(order):
            folds[position[name]] = turn % self.folds
        folds[len(self.names) :] = np.arange(self.folds - self.padding, self.folds)
        return folds

    def cost(self, folds: NDArray[np.int64]) -> int:
        sums = np.zeros((self.folds, self.features.shape[1]), dtype=np.int64)
        np.add.at(sums, folds, self.features)
        deviations = self.folds * sums - self.features.sum(axis=0)
        return int((deviations**2 * self.weights).sum())

    def improve(self, folds: NDArray[np.int64]) -> NDArray[np.int64]:
        """Steepest descent over swaps of two groups; a swap with an empty group moves a case."""
        folds = folds.copy()
        difference = self.features[None, :, :] - self.features[:, None, :]
        squared = (2 * difference**2 * self.weights).sum(axis=2)
        empty = np.arange(len(folds)) >= len(self.names)
        while True:
            sums = np.zeros((self.folds, self.features.shape[1]), dtype=np.int64)
            np.add.at(sums, folds, self.features)
            own = sums[folds]
            gain = (2 * difference * (own[:, None, :] - own[None, :, :]) * self.weights).sum(axis=2) + squared
            short = np.isin(folds, folds[empty])  # a fold holds at most one empty group
            gain[empty[:, None] & short[None, :]] = 0
            gain[short[:, None] & empty[None, :]] = 0
            gain[folds[:, None] == folds[None, :]] = 0
            i, j = np.unravel_index(int(gain.argmin()), gain.shape)
            if gain[i, j] >= 0:
                return folds
            folds[i], folds[j] = folds[j], folds[i]

    def parts(self, folds: NDArray[np.int64]) -> list[tuple[str, ...]]:
        names: list[list[str]] = [[] for _ in range(self.folds)]
        for name, fold in zip(self.names, folds, strict=False):
            names[int(fold)].append(name)
        return [tuple(sorted(part)) for part in names]


@lru_cache(maxsize=64)  # a sweep in one process asks for the same partition in every run
def _optimum(groups: _Groups) -> list[tuple[str, ...]]:
    orders = [groups.names, *(keyed_order(groups.names, "start", s) for s in range(1, STARTS))]
    candidates = [groups.improve(groups.start(order)) for order in orders]
    return min((groups.cost(f), sorted(groups.parts(f))) for f in candidates)[1]


def _sampled(groups: _Groups, seed: int, repeat: int) -> list[tuple[str, ...]]:
    """A random partition whose folds all hold an acceptable number of images (else the most even one drawn)."""
    mean = groups.images.sum() / groups.folds
    best: tuple[float, list[tuple[str, ...]]] | None = None
    for attempt in range(REPEAT_ATTEMPTS):
        folds = groups.start(keyed_order(groups.names, "repeat", seed, repeat, attempt))
        relative = np.bincount(folds, weights=groups.images, minlength=groups.folds) / mean
        outside = float(max(REPEAT_BOUNDS[0] - relative.min(), relative.max() - REPEAT_BOUNDS[1], 0.0))
        if best is None or outside < best[0]:
            best = (outside, groups.parts(folds))
        if outside == 0.0:
            break
    if best is None:
        raise ValueError("REPEAT_ATTEMPTS must be positive")
    return sorted(best[1])


def assign(
    members: dict[str, list[Record]], folds: int, *, seed: int = 0, repeat: int = 0
) -> list[tuple[str, ...]]:
    """Partition groups into balanced folds, class by class.

    Args:
        members: records by group name, over all magnifications.
        folds: number of folds, at most the number of groups of the rarest class present.
        seed, repeat: repeat 0 is the optimum and needs no seed; others draw a random benign partition.

    Returns:
        Group names of each fold, sorted. The fold with the most benign groups is paired with the fewest
        malignant ones, so that fold sizes stay close.
    """
    by_class: dict[str, dict[str, list[Record]]] = defaultdict(dict)
    for name, records in members.items():
        by_class[records[0].class_name][name] = records
    result: list[tuple[str, ...]] = [()] * folds
    for turn, class_name in enumerate(c for c in CLASSES if by_class[c]):
        groups = _Groups(by_class[class_name], folds)
        if repeat == 0:
            parts = _optimum(groups)
        elif turn == 0:
            parts = _sampled(groups, seed, repeat)
        else:
            start = groups.start(keyed_order(groups.names, "repeat", seed, repeat))
            parts = sorted(groups.parts(groups.improve(start)))
        largest_first = sorted(parts, key=lambda part: (-len(part), part))
        smallest_first = sorted(range(folds), key=lambda f: (len(result[f]), f))
        for fold, part in zip(smallest_first, largest_first, strict=True):
            result[fold] = tuple(sorted(result[fold] + part))
    return result
