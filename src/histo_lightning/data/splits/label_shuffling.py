"""Shuffled labels: the control that shows what a network can learn by heart when there is nothing to learn."""

import math
from collections.abc import Sequence
from dataclasses import replace

from histo_lightning.config.schema import SplitConfig
from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.splits.grouping import keyed_order
from histo_lightning.errors import UserError


def labelled(records: Sequence[Record], config: SplitConfig) -> list[Record]:
    """The records as a split's runs see them: with their own classes or, with ``shuffle_labels``, with shuffled ones.

    Shuffling gives the cases each other's classes, so that a class says nothing about the tissue. All images of a case
    keep one class, and the number of cases of each class stays. The new benign cases are, as far as whole cases allow,
    the same share of the truly benign as of the truly malignant: a class drawn without this would by chance go along
    with the true one. Subtypes are emptied, since they would tell the true class; names, and so slides and cases, stay.

    Args:
        records: of the whole copy, all magnifications; the result depends on its cases and ``config.seed`` alone.

    Raises:
        UserError: labels are shuffled and a name does not say its case.
    """
    if not config.shuffle_labels:
        return list(records)
    true_class = {r.case: r.class_name for r in records}
    if "" in true_class:
        raise UserError("split.shuffle_labels=true: some names do not say their case; use BreakHis names")
    benign, malignant = (
        keyed_order((c for c in true_class if true_class[c] == name), "shuffled labels", config.seed)
        for name in CLASSES
    )
    still_benign = math.floor(len(benign) ** 2 / len(true_class) + 0.5)
    now_benign = {*benign[:still_benign], *malignant[: len(benign) - still_benign]}
    return [replace(r, class_name=CLASSES[r.case not in now_benign], subtype="") for r in records]
