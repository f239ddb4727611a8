"""The predictions table: one row an image, everything that any score, interval or picture needs.

Columns, in the order of the file (``predictions/*.csv``): ``image, path, class, subtype, slide, case,
magnification, part, label``, one ``logit_<class>`` a class, ``p_malignant, predicted``.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from histo_lightning.data.breakhis.names import CLASSES, SUBTYPES

Text = NDArray[np.str_]
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

TASK_CLASSES = {"binary": CLASSES, "subtype": SUBTYPES}
TEXT_COLUMNS = ("image", "path", "class", "subtype", "slide", "case", "part")


class Columns(Protocol):
    """Anything that hands out columns by name: a mapping of sequences, a pandas DataFrame."""

    def __contains__(self, key: object, /) -> bool: ...

    def __getitem__(self, key: Any, /) -> Any: ...


def columns(task: str) -> tuple[str, ...]:
    """The table's columns in order for a task (``binary`` or ``subtype``)."""
    logits = tuple(f"logit_{name}" for name in TASK_CLASSES[task])
    before = ("image", "path", "class", "subtype", "slide", "case", "magnification", "part", "label")
    return (*before, *logits, "p_malignant", "predicted")


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Checked predictions of N images over K classes (2 for ``binary``, 8 for ``subtype``).

    Attributes:
        image, path, class_name, subtype, slide, case, part: (N,) text; ``subtype, slide, case`` are empty
            for a name outside the grammar.
        magnification: (N,) int64, 40, 100, 200 or 400, 0 for unknown.
        label, predicted: (N,) int64 in [0, K): class indices, 1 is malignant (binary) or an index into ``SUBTYPES``.
        logits: (N, K) float64, finite, untempered.
        p_malignant: (N,) float64 in [0, 1].
    """

    image: Text
    path: Text
    class_name: Text
    subtype: Text
    slide: Text
    case: Text
    magnification: Integers
    part: Text
    label: Integers
    logits: Floats
    p_malignant: Floats
    predicted: Integers

    @property
    def task(self) -> str:
        """``binary`` or ``subtype``."""
        return "binary" if self.logits.shape[1] == len(CLASSES) else "subtype"

    @property
    def malignant(self) -> Integers:
        """(N,) int64: 1 where the truth is malignant, whatever the task."""
        return np.asarray(self.class_name == "malignant", np.int64)

    def __len__(self) -> int:
        return len(self.image)

    def __contains__(self, column: object) -> bool:
        return column in columns(self.task)

    def __getitem__(self, column: str) -> NDArray[Any]:
        """A column by its name in the file, e.g. ``table["class"]`` or ``table["logit_malignant"]``."""
        if column not in self:
            raise KeyError(column)
        if column.startswith("logit_"):
            return self.logits[:, TASK_CLASSES[self.task].index(column.removeprefix("logit_"))]
        values: NDArray[Any] = getattr(self, "class_name" if column == "class" else column)
        return values

    def rows(self, chosen: NDArray[Any]) -> "Table":
        """The chosen rows (boolean mask or indices), in their order."""
        return Table(*(getattr(self, name)[chosen] for name in self.__slots__))


def softmax(logits: Floats) -> Floats:
    """Softmax over the last axis; (..., K) float64 to the same shape, rows sum to 1."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Floats = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


def malignant_share(probabilities: Floats) -> Floats:
    """P(malignant) from class probabilities: (..., 2) or (..., 8), four malignant subtypes last, to (...)."""
    half = probabilities.shape[-1] // 2
    total: Floats = probabilities[..., half:].sum(axis=-1)
    return np.minimum(total, 1.0)
