"""What is known about a copy of the data set, for its report and tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from histo_lightning.data.breakhis.problems import BLOCKING, KINDS, Problem
from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.pixels.duplicates import Pair


@dataclass(frozen=True)
class DatasetFacts:
    """Facts of one copy. All sequences by image stand in the order of ``records``.

    Attributes:
        name: of the data set, e.g. ``breakhis``.
        root: where the images are, as people are told.
        census: one sentence that holds the copy against the census.
        records: every image, also those that cannot be read.
        sizes: native (width, height) in pixels; (0, 0) where unreadable.
        bytes: file sizes.
        digests: SHA-256 of native pixels; empty where unreadable.
        states: ``ok``, or why the image is unreadable.
        stains: float64, images x ``stains.COLUMNS``; NaN where unreadable.
        problems: of names, folders and decoding.
        identical: groups of images with the same pixels.
        pairs: near-duplicates across cases, best first.
        pixels: rows (int64) -> uint8 RGB, B x H x W x 3, as stored; not asked for unreadable images.
    """

    name: str
    root: str
    census: str
    records: Sequence[Record]
    sizes: Sequence[tuple[int, int]]
    bytes: Sequence[int]
    digests: Sequence[str]
    states: Sequence[str]
    stains: NDArray[np.float64]
    problems: Sequence[Problem]
    identical: Sequence[tuple[str, ...]]
    pairs: Sequence[Pair]
    pixels: Callable[[NDArray[np.int64]], NDArray[np.uint8]]

    @cached_property
    def row_of(self) -> dict[str, int]:
        """The first row of each image name."""
        rows: dict[str, int] = {}
        for row, record in enumerate(self.records):
            rows.setdefault(record.image, row)
        return rows

    def readable(self, row: int) -> bool:
        return self.states[row] == "ok"

    def of_kind(self, kind: str) -> list[Problem]:
        return [problem for problem in self.problems if problem.kind == kind]

    def verdict(self) -> tuple[str, bool]:
        """A few plain sentences on the copy, and whether training would refuse it."""
        counts = {kind: len(self.of_kind(kind)) for kind in KINDS}
        found = [f"{kind} ({count:,})" for kind, count in counts.items() if count]
        census = self.census.removeprefix("census: ")
        told = [f"{census[:1].upper()}{census[1:]}."]
        told.append(f"Found: {', '.join(found)}." if found else "No problem was found in it.")
        refused = any(counts[kind] for kind in BLOCKING)
        if refused:
            told.append(
                f"Training refuses this copy while it has files of these kinds: {', '.join(_blocking())}."
            )
        suspicious = sum(pair.suspicious for pair in self.pairs)
        if suspicious:
            told.append(f"Pairs of images of different cases that look like copies: {suspicious}.")
        return " ".join(told), refused


def _blocking() -> list[str]:
    return [kind for kind in KINDS if kind in BLOCKING]
