"""Into a predictions table: every row checked, every refusal one line that says what, where and how to mend."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from histo_lightning.data.breakhis.names import CLASSES, SUBTYPE_CLASS, SUBTYPES
from histo_lightning.errors import UserError
from histo_lightning.evaluation.table import (
    TASK_CLASSES,
    Columns,
    Floats,
    Integers,
    Table,
    Text,
    columns,
    malignant_share,
    softmax,
)


def _text(value: Any) -> str:
    """A cell as text; what pandas makes of an empty cell (NaN, None) is empty again."""
    return "" if value is None or (isinstance(value, float) and np.isnan(value)) else str(value)


class _Reader:
    """Reads columns out of a source and refuses, in one line, what is not a predictions table."""

    def __init__(self, source: Columns, where: str) -> None:
        self.source = source
        self.where = where
        self.images: Text | None = None

    def refuse(self, bad: NDArray[np.bool_], what: str, mend: str) -> None:
        """Raise for the first bad row, if there is one."""
        if bad.any():
            row = int(bad.argmax())
            image = "" if self.images is None else f" ({self.images[row]})"
            more = "" if bad.sum() == 1 else f" and {int(bad.sum()) - 1} more row(s)"
            raise UserError(f"{self.where}: row {row + 1}{image}{more}: {what.format(row=row)}; {mend}")

    def cells(self, column: str) -> list[Any]:
        if column not in self.source:
            raise UserError(
                f"{self.where}: column {column} is missing; a predictions table needs {', '.join(columns('binary'))} "
                "(eight classes: one logit_<subtype> a subtype)"
            )
        cells = list(self.source[column])
        if self.images is not None and len(cells) != len(self.images):
            raise UserError(
                f"{self.where}: column {column} has {len(cells)} cells for {len(self.images)} images; give one an image"
            )
        return cells

    def text(self, column: str) -> Text:
        return np.array([_text(cell) for cell in self.cells(column)], dtype=np.str_)

    def number(self, column: str) -> Floats:
        cells = self.cells(column)
        values = np.full(len(cells), np.nan)
        for row, cell in enumerate(cells):
            try:
                values[row] = float(cell)
            except (TypeError, ValueError):
                continue
        self.refuse(
            ~np.isfinite(values),
            f"{column} is not a finite number",
            "predict again: a non-finite value means that training or reading went wrong",
        )
        return values

    def integer(self, column: str, top: int) -> Integers:
        values = self.number(column)
        self.refuse(
            (values != np.round(values)) | (values < 0) | (values >= top),
            f"{column} is not a class index from 0 to {top - 1}",
            "write class indices",
        )
        return values.astype(np.int64)

    def magnification(self) -> Integers:
        values = np.array([_text(cell) or "0" for cell in self.cells("magnification")])
        known = np.full(len(values), -1, dtype=np.int64)
        for row, text in enumerate(values):
            try:
                known[row] = int(float(text)) if float(text) == int(float(text)) else -1
            except (ValueError, OverflowError):
                continue
        self.refuse(
            known < 0, "magnification is not a whole number", "write 40, 100, 200, 400 or leave it empty"
        )
        return known


def as_table(source: Columns | Table, where: str = "predictions") -> Table:
    """Check a mapping of columns (or a DataFrame) and make a Table of it; eight-class where it has ``logit_A``.

    Raises:
        UserError: no row, a missing or short column, an unknown class or subtype, a non-finite logit or
            probability, a probability outside [0, 1], a duplicate image, a label that disagrees with the class,
            a ``predicted`` that is not the largest logit. One line: what, which row, how to mend.
    """
    if isinstance(source, Table):
        return source
    read = _Reader(source, where)
    images = read.text("image")
    if not len(images):
        raise UserError(f"{where}: the table has no row; predict at least one image")
    read.images = images
    first = np.zeros(len(images), dtype=np.bool_)
    first[np.unique(images, return_index=True)[1]] = True
    read.refuse(~first, "the image stands twice", "keep one row an image (average repeats first)")
    read.refuse(images == "", "the image name is empty", "give every row its file name")

    task = "subtype" if "logit_A" in source else "binary"
    names = TASK_CLASSES[task]
    class_name, subtype = read.text("class"), read.text("subtype")
    read.refuse(~np.isin(class_name, CLASSES), "unknown class", f"classes are {' and '.join(CLASSES)}")
    read.refuse(
        ~np.isin(subtype, ("", *SUBTYPES) if task == "binary" else SUBTYPES),
        "unknown subtype",
        f"subtypes are {', '.join(SUBTYPES)}",
    )
    expected = np.array([SUBTYPE_CLASS.get(s, c) for s, c in zip(subtype, class_name, strict=True)])
    read.refuse(expected != class_name, "the subtype belongs to the other class", "correct class or subtype")

    label = read.integer("label", len(names))
    truth = class_name if task == "binary" else subtype
    read.refuse(
        np.array(names)[label] != truth,
        "label disagrees with " + ("class" if task == "binary" else "subtype"),
        "labels are " + ", ".join(f"{i} {name}" for i, name in enumerate(names)),
    )
    logits = np.stack([read.number(f"logit_{name}") for name in names], axis=1)
    p_malignant = read.number("p_malignant")
    read.refuse((p_malignant < 0) | (p_malignant > 1), "p_malignant is outside 0 to 1", "write a probability")
    predicted = read.integer("predicted", len(names))
    chosen = np.take_along_axis(logits, predicted[:, None], axis=1)[:, 0]
    read.refuse(
        chosen < logits.max(axis=1), "predicted is not the class of the largest logit", "write argmax"
    )
    return Table(
        image=images,
        path=read.text("path"),
        class_name=class_name,
        subtype=subtype,
        slide=read.text("slide"),
        case=read.text("case"),
        magnification=read.magnification(),
        part=read.text("part"),
        label=label,
        logits=logits,
        p_malignant=p_malignant,
        predicted=predicted,
    )


def make_table(
    task: str,
    *,
    image: Sequence[str],
    path: Sequence[str],
    class_name: Sequence[str],
    subtype: Sequence[str],
    slide: Sequence[str],
    case: Sequence[str],
    magnification: Sequence[int],
    part: str | Sequence[str],
    logits: ArrayLike,
) -> Table:
    """Build a table from records and logits; label, p_malignant and predicted follow from them (in float64).

    Args:
        task: ``binary`` or ``subtype``.
        image, path, class_name, subtype, slide, case: N texts each, as in a ``Record``.
        magnification: N integers, 0 for unknown.
        part: one part for all rows, or N.
        logits: (N, 2) or (N, 8), finite.

    Raises:
        UserError: anything ``as_table`` refuses.
    """
    values = np.asarray(logits, dtype=np.float64)
    names = TASK_CLASSES[task]
    if values.ndim != 2 or values.shape != (len(image), len(names)):
        raise UserError(
            f"predictions: logits of shape {values.shape} for {len(image)} images and {len(names)} classes; "
            f"give one logit a class and image"
        )
    truth = class_name if task == "binary" else subtype
    source: dict[str, Any] = {
        "image": image,
        "path": path,
        "class": class_name,
        "subtype": subtype,
        "slide": slide,
        "case": case,
        "magnification": magnification,
        "part": [part] * len(image) if isinstance(part, str) else part,
        "label": [names.index(name) if name in names else -1 for name in truth],
        "p_malignant": malignant_share(softmax(values)),
        "predicted": values.argmax(axis=1) if len(values) else [],
    }
    source |= {f"logit_{name}": values[:, i] for i, name in enumerate(names)}
    return as_table(source)
