"""A finished split: image names by part, what a reader must know about them, and their hash."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
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
    label: str
    seed: int
    fold: int
    folds: int
    repeat: int
    group: str
    shuffled_labels: bool
    injection: Mapping[str, float | int] | None
    partition_hash: str
    notes: tuple[str, ...]
    parts: Mapping[str, tuple[str, ...]]
    cases: Mapping[str, tuple[str, ...]]

    @property
    def hash(self) -> str:
        """SHA-256 of the parts, as hexadecimal text: the same images in the same parts give the same hash.

        Shuffled labels make it another one, so that nothing can pool or compare such runs with others.
        """
        shuffled = {"labels": [f"shuffled by case, seed {self.seed}"]} if self.shuffled_labels else {}
        return content_hash({**self.parts, **shuffled})

    def as_dict(self) -> dict[str, Any]:
        """The content of ``split.json``."""
        lists = {key: {p: list(n) for p, n in getattr(self, key).items()} for key in ("parts", "cases")}
        return {**asdict(self), "hash": self.hash, "notes": list(self.notes), **lists}
