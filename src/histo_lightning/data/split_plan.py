"""What to split by: the plan of a split, before it meets records."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from histo_lightning.data.records import Record

KINDS = ("case_kfold", "slide_kfold", "official", "folders", "file", "image_random", "injection")
GROUPS = ("case", "slide", "image")
# The kinds whose labels may be shuffled: the arms that the control of a leakage study repeats.
SHUFFLED_KINDS = ("case_kfold", "slide_kfold", "image_random", "injection")
LEAST_SHARE = 0.25  # of a sibling pool, the least that ``injection`` puts into train
Parts = dict[str, list[Record]]


@dataclass(frozen=True)
class SplitPlan:
    """How to split. ``fold`` is 0-based, for ``official`` 1 to 5. ``group`` is what must not stand on both sides.

    Attributes:
        clean: ``official`` only; drop the cases that train shares with test.
        matched: ``official`` only; drop as many images and cases that it does not share (see ``controls``).
        injected: ``injection`` only; share of the sibling pool that goes into train (see ``injection``), None is 0.
        shuffle_labels: give the cases each other's classes, by ``seed``: a control, never a result.
    """

    kind: str = "case_kfold"
    fold: int = 0
    folds: int = 5
    seed: int = 0
    repeat: int = 0
    group: str = "case"
    clean: bool = False
    matched: bool = False
    injected: float | None = None
    shuffle_labels: bool = False
    path: str = ""


def group_of(record: Record, group: str) -> str:
    """The name of a record's ``case``, ``slide`` or ``image``."""
    return {"case": record.case, "slide": record.slide, "image": record.image}[group]


def by_group(records: Iterable[Record], group: str) -> dict[str, list[Record]]:
    """Records by the name of their case, slide or image, in the order in which they come."""
    members: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        members[group_of(record, group)].append(record)
    return members
