"""A finished split: image names by part, what a reader must know about them, and their hash."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from histo_lightning.data.splits.grouping import content_hash


@dataclass(frozen=True)
class Split:
    """Image names by part (each sorted), with what a reader must know about them.

    ``label`` is empty for a split by case, else LEAKY, CASE-LEAKY (n images) or GROUPING UNKNOWN, and SHUFFLED LABELS
    after it where classes were shuffled. ``injection`` says what was put into train. ``partition_hash`` identifies
    the assignment of groups to folds over all magnifications.
    """

    kind: str
    seed: int
    fold: int
    folds: int
    repeat: int
    group: str
    label: str
    parts: Mapping[str, tuple[str, ...]]
    cases: Mapping[str, tuple[str, ...]]
    partition_hash: str
    notes: tuple[str, ...] = ()
    shuffled_labels: bool = False
    injection: Mapping[str, float | int] | None = None

    @property
    def hash(self) -> str:
        """SHA-256 of the parts, as hexadecimal text: the same images in the same parts give the same hash.

        Shuffled labels make it another one, so that nothing can pool or compare such runs with others.
        """
        shuffled = {"labels": [f"shuffled by case, seed {self.seed}"]} if self.shuffled_labels else {}
        return content_hash({**self.parts, **shuffled})

    def as_dict(self) -> dict[str, Any]:
        """The content of ``split.json``."""
        return {
            "kind": self.kind,
            "label": self.label,
            "seed": self.seed,
            "fold": self.fold,
            "folds": self.folds,
            "repeat": self.repeat,
            "group": self.group,
            "shuffled_labels": self.shuffled_labels,
            "injection": None if self.injection is None else dict(self.injection),
            "hash": self.hash,
            "partition_hash": self.partition_hash,
            "notes": list(self.notes),
            "parts": {part: list(names) for part, names in self.parts.items()},
            "cases": {part: list(cases) for part, cases in self.cases.items()},
        }
