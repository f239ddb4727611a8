"""Shuffled labels: the control that shows what a network can learn by heart when there is nothing to learn."""

import math
from collections.abc import Sequence
from dataclasses import replace

from histo_lightning.config.schema import SplitConfig
from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.splits.grouping import keyed_order
from histo_lightning.errors import UserError


def shuffle_labels(records: Sequence[Record], seed: int) -> list[Record]:
    """Give the cases each other's classes, so that a class says nothing about the tissue.

    All images of a case keep one class, and the number of cases of each class stays. The new benign cases are, as far as
    whole cases allow, the same share of the truly benign as of the truly malignant: a class drawn without this would by
    chance go along with the true one. Subtypes are emptied, since they would tell the true class; names, and so slides
    and cases, stay.

    Args:
        records: of the whole copy, all magnifications; the result depends on its cases and ``seed`` alone.

    Raises:
        UserError: a name does not say its case.
    """
    true_class = {r.case: r.class_name for r in records}
    if "" in true_class:
        raise UserError("split.shuffle_labels=true: some names do not say their case; use BreakHis names")
    benign, malignant = (
        keyed_order(sorted(c for c, name in true_class.items() if name == wanted), "shuffled labels", seed)
        for wanted in CLASSES
    )
    kept = math.floor(len(benign) ** 2 / len(true_class) + 0.5)
    now_benign = {*benign[:kept], *malignant[: len(benign) - kept]}
    return [replace(r, class_name=CLASSES[r.case not in now_benign], subtype="") for r in records]


def labelled(records: Sequence[Record], config: SplitConfig) -> list[Record]:
    """The records as a split's runs see them: with their own labels, or with shuffled ones."""
    return shuffle_labels(records, config.seed) if config.shuffle_labels else list(records)
