"""Into a predictions table: every row checked, every refusal one line that says what, where and how to mend."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from histo_lightning.data.breakhis.names import CLASSES, SUBTYPE_CLASS, SUBTYPES
from histo_lightning.errors import UserError
from histo_lightning.evaluation.table import (
    TASK_CLASSES,
    TEXT_COLUMNS,
    Columns,
    Floats,
    Table,
    columns,
    malignant_share,
    softmax,
)


def _text(cell: Any) -> str:
    """A cell as text; what pandas makes of an empty cell (NaN, None) is empty again."""
    return "" if cell is None or (isinstance(cell, float) and np.isnan(cell)) else str(cell)


def _number(cell: Any) -> float:
    """A cell as a number, NaN where it is none."""
    try:
        return float(cell)
    except (TypeError, ValueError):
        return float("nan")


def _checks(c: Mapping[str, NDArray[Any]], task: str) -> Iterator[tuple[NDArray[np.bool_], str, str]]:
    """(N,) bad rows, what is wrong with them and how to mend it; each may rely on those before it."""
    names = TASK_CLASSES[task]
    repeated = np.ones(len(c["image"]), dtype=np.bool_)
    repeated[np.unique(c["image"], return_index=True)[1]] = False
    yield repeated, "the image appears twice", "keep one row an image (average repeats first)"
    yield c["image"] == "", "the image name is empty", "give every row its file name"
    yield ~np.isin(c["class"], CLASSES), "unknown class", f"classes are {' and '.join(CLASSES)}"
    allowed = ("", *SUBTYPES) if task == "binary" else SUBTYPES
    yield ~np.isin(c["subtype"], allowed), "unknown subtype", f"subtypes are {', '.join(SUBTYPES)}"
    expected = np.array([SUBTYPE_CLASS.get(s, k) for s, k in zip(c["subtype"], c["class"], strict=True)])
    yield expected != c["class"], "the subtype belongs to the other class", "correct class or subtype"
    for name in ("label", *(f"logit_{name}" for name in names), "p_malignant", "predicted"):
        mend = "predict again: a non-finite value means that training or reading went wrong"
        yield ~np.isfinite(c[name]), f"{name} is not a finite number", mend
    for name in ("label", "predicted"):
        wrong = (c[name] != np.round(c[name])) | (c[name] < 0) | (c[name] >= len(names))
        yield wrong, f"{name} is not a class index from 0 to {len(names) - 1}", "write class indices"
    truth = "class" if task == "binary" else "subtype"
    labels = ", ".join(f"{i} {name}" for i, name in enumerate(names))
    wrong = np.array(names)[c["label"].astype(np.int64)] != c[truth]
    yield wrong, f"label disagrees with {truth}", f"labels are {labels}"
    p, logits = c["p_malignant"], _logits(c, task)
    yield (p < 0) | (p > 1), "p_malignant is outside 0 to 1", "write a probability"
    chosen = np.take_along_axis(logits, c["predicted"].astype(np.int64)[:, None], axis=1)[:, 0]
    yield chosen < logits.max(axis=1), "predicted is not the class of the largest logit", "write argmax"
    m = c["magnification"]
    wrong = ~np.isfinite(m) | (m != np.floor(m)) | (m < 0)
    yield wrong, "magnification is not a whole number", "write 40, 100, 200, 400 or leave it empty"


def _logits(c: Mapping[str, NDArray[Any]], task: str) -> Floats:
    return np.stack([c[f"logit_{name}"] for name in TASK_CLASSES[task]], axis=1)


def as_table(source: Columns | Table, where: str = "predictions") -> Table:
    """Check a mapping of columns (or a DataFrame) and make a Table of it; eight-class where it has ``logit_A``.

    Raises:
        UserError: no row, a missing or short column, an unknown class or subtype, a non-finite logit or
            probability, a probability outside [0, 1], a duplicate image, a label that disagrees with the class,
            a ``predicted`` that is not the largest logit. One line: what, which row, how to mend.
    """
    if isinstance(source, Table):
        return source
    task = "subtype" if "logit_A" in source else "binary"
    c: dict[str, NDArray[Any]] = {}
    for name in columns(task):
        if name not in source:
            raise UserError(
                f"{where}: column {name} is missing; a predictions table needs {', '.join(columns('binary'))} "
                "(eight classes: one logit_<subtype> a subtype)"
            )
        if name in TEXT_COLUMNS:
            c[name] = np.array([_text(cell) for cell in source[name]], dtype=np.str_)
        elif name == "magnification":
            c[name] = np.array([_number(_text(cell) or 0) for cell in source[name]], dtype=np.float64)
        else:
            c[name] = np.array([_number(cell) for cell in source[name]], dtype=np.float64)
        if (count := len(c[name])) != len(c["image"]):
            raise UserError(
                f"{where}: column {name} has {count} cells for {len(c['image'])} images; give one an image"
            )
    if not len(c["image"]):
        raise UserError(f"{where}: the table has no row; predict at least one image")
    for bad, what, mend in _checks(c, task):
        if bad.any():
            row = int(bad.argmax())
            more = "" if bad.sum() == 1 else f" and {int(bad.sum()) - 1} more row(s)"
            raise UserError(f"{where}: row {row + 1} ({c['image'][row]}){more}: {what}; {mend}")
    fields: dict[str, Any] = {name: c[name] for name in (*TEXT_COLUMNS, "p_malignant")}
    fields |= {name: c[name].astype(np.int64) for name in ("magnification", "label", "predicted")}
    return Table(class_name=fields.pop("class"), logits=_logits(c, task), **fields)


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
    if values.shape != (len(image), len(names)):
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
    return as_table(source | {f"logit_{name}": values[:, i] for i, name in enumerate(names)})
