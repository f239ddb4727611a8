"""The predictions table and its CSV file: one checked row an image, all that any score, interval or picture needs.

Columns, in the order of the file (``predictions/*.csv``): ``image, path, class, subtype, slide, case,
magnification, part, label``, one ``logit_<class>`` a class, ``p_malignant, predicted``.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from histo_lightning.data.breakhis.names import CLASSES, SUBTYPE_CLASS, SUBTYPES
from histo_lightning.errors import UserError
from histo_lightning.runs import read_bytes, unquote_cell, write_csv

Text = NDArray[np.str_]
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Json = dict[str, Any]

TASK_CLASSES = {"binary": CLASSES, "subtype": SUBTYPES}
TEXT_COLUMNS = ("image", "path", "class", "subtype", "slide", "case", "part")


class Columns(Protocol):
    """Anything that hands out columns by name: a mapping of sequences, a pandas DataFrame."""

    def __contains__(self, key: object, /) -> bool: ...

    def __getitem__(self, key: Any, /) -> Any: ...


def columns(task: str) -> tuple[str, ...]:
    """The table's columns in order for a task (``binary`` or ``subtype``)."""
    before = ("image", "path", "class", "subtype", "slide", "case", "magnification", "part", "label")
    return (*before, *_logit_columns(task), "p_malignant", "predicted")


def _logit_columns(task: str) -> list[str]:
    return [f"logit_{name}" for name in TASK_CLASSES[task]]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Checked predictions of N images over K classes (2 for ``binary``, 8 for ``subtype``).

    ``subtype, slide, case`` are empty for a name outside the grammar.
    """

    image: Text  # (N,), as all others but ``logits``
    path: Text
    class_name: Text
    subtype: Text
    slide: Text
    case: Text
    magnification: Integers  # 40, 100, 200 or 400, 0 for unknown
    part: Text
    label: Integers  # (N,) class indices in [0, K): 1 is malignant (binary), else an index into ``SUBTYPES``
    logits: Floats  # (N, K), finite, untempered
    p_malignant: Floats  # (N,) in [0, 1]
    predicted: Integers  # (N,) class indices, as ``label``

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

    def rows(self, chosen: NDArray[Any]) -> "Table":
        """The chosen rows (boolean mask or indices), in their order."""
        return Table(*(getattr(self, name)[chosen] for name in self.__slots__))


def softmax(logits: Floats) -> Floats:
    """Softmax over the last axis; (..., K) float64 to the same shape, rows sum to 1."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def malignant_share(probabilities: Floats) -> Floats:
    """P(malignant) from class probabilities: (..., 2) or (..., 8), four malignant subtypes last, to (...)."""
    half = probabilities.shape[-1] // 2
    return np.asarray(np.minimum(probabilities[..., half:].sum(axis=-1), 1.0))


def _text(cell: Any) -> str:
    """A cell as text; what pandas makes of an empty cell (NaN, None) is empty again."""
    return "" if cell is None or (isinstance(cell, float) and np.isnan(cell)) else str(cell)


def _number(cell: Any) -> float:
    """A cell as a number, NaN where it is none."""
    try:
        return float(cell)
    except (TypeError, ValueError):
        return float("nan")


def _checks(cells: Mapping[str, NDArray[Any]], task: str) -> Iterator[tuple[NDArray[np.bool_], str, str]]:
    """(N,) bad rows, what is wrong with them and how to mend it; each may rely on those before it."""
    names, logit_columns = TASK_CLASSES[task], _logit_columns(task)
    image, class_name, subtype = cells["image"], cells["class"], cells["subtype"]
    repeated = np.ones(len(image), dtype=np.bool_)
    repeated[np.unique(image, return_index=True)[1]] = False
    yield repeated, "the image appears twice", "keep one row an image (average repeats first)"
    yield image == "", "the image name is empty", "give every row its file name"
    yield ~np.isin(class_name, CLASSES), "unknown class", f"classes are {' and '.join(CLASSES)}"
    allowed = ("", *SUBTYPES) if task == "binary" else SUBTYPES
    yield ~np.isin(subtype, allowed), "unknown subtype", f"subtypes are {', '.join(SUBTYPES)}"
    expected = np.array([SUBTYPE_CLASS.get(s, c) for s, c in zip(subtype, class_name, strict=True)])
    yield expected != class_name, "the subtype belongs to the other class", "correct class or subtype"
    for name in ("label", *logit_columns, "p_malignant", "predicted"):
        mend = "predict again: a non-finite value means that training or reading went wrong"
        yield ~np.isfinite(cells[name]), f"{name} is not a finite number", mend
    for name in ("label", "predicted"):
        wrong = (cells[name] != np.round(cells[name])) | (cells[name] < 0) | (cells[name] >= len(names))
        yield wrong, f"{name} is not a class index from 0 to {len(names) - 1}", "write class indices"
    truth = "class" if task == "binary" else "subtype"
    labels = ", ".join(f"{i} {name}" for i, name in enumerate(names))
    wrong = np.array(names)[cells["label"].astype(np.int64)] != cells[truth]
    yield wrong, f"label disagrees with {truth}", f"labels are {labels}"
    p = cells["p_malignant"]
    yield (p < 0) | (p > 1), "p_malignant is outside 0 to 1", "write a probability"
    logits = np.stack([cells[name] for name in logit_columns], axis=1)
    chosen = logits[np.arange(len(logits)), cells["predicted"].astype(np.int64)]
    yield chosen < logits.max(axis=1), "predicted is not the class of the largest logit", "write argmax"
    m = cells["magnification"]
    wrong = ~np.isfinite(m) | (m != np.floor(m)) | (m < 0)
    yield wrong, "magnification is not a whole number", "write 40, 100, 200, 400 or leave it empty"


def as_table(source: Columns | Table, where: str = "predictions") -> Table:
    """Check a mapping of columns (or a DataFrame) and make a Table of it; eight-class where it has ``logit_A``.

    UserError: no row, a missing or short column, or what ``_checks`` finds: what, in which row, how to mend it.
    """
    if isinstance(source, Table):
        return source
    task = "subtype" if "logit_A" in source else "binary"
    cells: dict[str, NDArray[Any]] = {}
    for name in columns(task):
        if name not in source:
            needs = f"{', '.join(columns('binary'))} (eight classes: one logit_<subtype> a subtype)"
            raise UserError(f"{where}: column {name} is missing; a predictions table needs {needs}")
        if name in TEXT_COLUMNS:
            cells[name] = np.array([_text(cell) for cell in source[name]], dtype=np.str_)
        else:
            given = [_text(cell) or 0 for cell in source[name]] if name == "magnification" else source[name]
            cells[name] = np.array([_number(cell) for cell in given], dtype=np.float64)
        if (count := len(cells[name])) != (images := len(cells["image"])):
            raise UserError(
                f"{where}: column {name} has {count} cells for {images} images; give one an image"
            )
    if not len(cells["image"]):
        raise UserError(f"{where}: the table has no row; predict at least one image")
    for bad, what, mend in _checks(cells, task):
        if bad.any():
            row = int(bad.argmax())
            more = "" if bad.sum() == 1 else f" and {int(bad.sum()) - 1} more row(s)"
            raise UserError(f"{where}: row {row + 1} ({cells['image'][row]}){more}: {what}; {mend}")
    whole_numbers = {name: cells[name].astype(np.int64) for name in ("magnification", "label", "predicted")}
    logits = np.stack([cells.pop(name) for name in _logit_columns(task)], axis=1)
    return Table(class_name=cells.pop("class"), logits=logits, **(cells | whole_numbers))


def table_of(task: str, records: Sequence[Any], part: str, logits: ArrayLike) -> Table:
    """:func:`make_table` of records and their logits, both in the same order."""
    names = ("image", "path", "class_name", "subtype", "slide", "case", "magnification")
    columns: Any = {name: [getattr(record, name) for record in records] for name in names}
    return make_table(task, **columns, part=part, logits=logits)


def make_table(
    task: str, *, logits: ArrayLike, part: str | Sequence[str], class_name: Sequence[str], **others: Sequence[Any],
) -> Table:  # fmt: skip
    """Build a table from records and logits; label, p_malignant and predicted follow from them (in float64).

    Args:
        task: ``binary`` or ``subtype``; logits: (N, 2) or (N, 8), finite; part: one part for all rows, or N.
        class_name, others: N values of each of ``image, path, subtype, slide, case`` (texts, as in a ``Record``) and
            ``magnification`` (integers, 0 for unknown). UserError as ``as_table``.
    """
    values, names = np.asarray(logits, dtype=np.float64), TASK_CLASSES[task]
    if values.shape != (len(class_name), len(names)):
        sizes = f"{len(class_name)} images and {len(names)} classes"
        raise UserError(
            f"predictions: logits of shape {values.shape} for {sizes}; give one logit a class and image"
        )
    truth = class_name if task == "binary" else others.get("subtype", ())
    derived: dict[str, Any] = {
        "class": class_name,
        "part": [part] * len(values) if isinstance(part, str) else part,
        "label": [names.index(name) if name in names else -1 for name in truth],
        "p_malignant": malignant_share(softmax(values)),
        "predicted": values.argmax(axis=1) if len(values) else [],
    }
    return as_table({**others, **derived, **dict(zip(_logit_columns(task), values.T, strict=True))})


def write_predictions(path: str | Path, table: Table) -> None:
    """Write a table as CSV, all of it or nothing; floats come back bit-identical. UserError where it cannot be written."""
    cells: dict[str, list[Any]] = {name: getattr(table, name).tolist() for name in table.__slots__}
    cells |= dict(zip(_logit_columns(table.task), table.logits.T.tolist(), strict=True))
    cells |= {
        "class": cells["class_name"],
        "magnification": [size or None for size in cells["magnification"]],
    }
    names = columns(table.task)
    write_csv(Path(path), [names, *zip(*(cells[name] for name in names), strict=True)])


def read_predictions(source: Columns | Table | str | Path) -> Table:
    """Read a table that ``write_predictions`` (or another program, same columns) wrote; what is no path is only checked.

    UserError: no such file, not a CSV text, a row of the wrong length, or anything ``as_table`` refuses.
    """
    if not isinstance(source, str | Path):
        return as_table(source)
    try:
        text = read_bytes(Path(source)).decode("utf-8-sig", "surrogateescape")
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror}); give a predictions CSV") from error
    except csv.Error as error:
        raise UserError(f"{source}: not a CSV file ({error}); give a predictions CSV") from error
    if not rows:
        raise UserError(f"{source}: the file is empty; give a predictions CSV")
    header, *body = rows
    if len(set(header)) != len(header):
        raise UserError(f"{source}: a column appears twice in the first line; keep one of them")
    for number, row in enumerate(body, start=1):
        if len(row) != len(header):
            cells = f"row {number} has {len(row)} cells, the first line has {len(header)}"
            raise UserError(f"{source}: {cells}; the file is damaged, predict again")
    by_name = {name: [row[i] for row in body] for i, name in enumerate(header)}
    texts = {name: [unquote_cell(cell) for cell in by_name[name]] for name in set(TEXT_COLUMNS) & set(header)}
    return as_table(by_name | texts, where=str(source))
