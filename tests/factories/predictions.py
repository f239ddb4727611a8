"""Predictions tables for tests, and what every score in a result looks like."""

from typing import Any

import numpy as np

from histo_lightning.data.breakhis.names import SUBTYPE_CLASS, SUBTYPES
from histo_lightning.data.breakhis.records import Record
from histo_lightning.evaluation import Table, make_table
from histo_lightning.evaluation.levels import Units
from histo_lightning.evaluation.table import TASK_CLASSES, columns

ENTRY = {"value", "low", "high", "method", "cases", "cases_smaller_class", "kish", "draws"}


def table_of(
    task: str, subtype: list[str], slide: list[str], case: list[str], logits: np.ndarray, **other: Any
) -> Table:
    """A table whose images are 0.png, 1.png, ...; ``other`` replaces columns."""
    names = [f"{i}.png" for i in range(len(subtype))]
    class_name = [SUBTYPE_CLASS[s] for s in subtype]
    given = {
        "image": names,
        "path": names,
        "class_name": class_name,
        "part": "test",
        "magnification": [40] * len(names),
    }
    return make_table(task, subtype=subtype, slide=slide, case=case, logits=logits, **(given | other))


def random_table(
    benign: int, malignant: int, seed: int = 0, task: str = "binary", most: int = 8, signal: float = 1.0
) -> Table:
    """Cases of 1 to ``most`` images on one or two slides, with a shared shift and many ties."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(benign + malignant):
        side = SUBTYPES[4:] if number >= benign else SUBTYPES[:4]
        subtype = str(random.choice(side))
        shift = random.normal()
        for _ in range(random.integers(1, most + 1)):
            rows.append((subtype, f"{subtype}-14-{number}{random.choice(['A', 'B'])}", f"14-{number}", shift))
    subtypes, slides, cases, shifts = (list(column) for column in zip(*rows, strict=True))
    sign = np.array([1.0 if SUBTYPE_CLASS[s] == "malignant" else -1.0 for s in subtypes])
    logits = np.zeros((len(rows), 2 if task == "binary" else 8))
    if task == "binary":
        logits[:, 1] = np.round(sign * signal + shifts + random.normal(size=len(rows)), 1)
    else:
        logits = np.round(random.normal(size=logits.shape), 1)
        logits[np.arange(len(rows)), [SUBTYPES.index(s) for s in subtypes]] += signal
    return table_of(task, subtypes, slides, cases, logits)


def whole_set(records: list[Record], task: str = "binary", seed: int = 0) -> Table:
    """Predictions of the protocol's model at d = 2 for every record."""
    random = np.random.default_rng(seed)
    names = sorted({record.case for record in records})
    shift = dict(zip(names, random.normal(0, 1.4, len(names)), strict=True))
    margin = np.array([2 + shift[r.case] for r in records]) + random.normal(0, 1.4, len(records))
    if task == "binary":
        logits = np.zeros((len(records), 2))
        logits[:, 1] = np.where([r.class_name == "malignant" for r in records], margin, -margin)
    else:
        logits = random.normal(size=(len(records), 8))
        logits[np.arange(len(records)), [SUBTYPES.index(r.subtype) for r in records]] += margin
    return table_of(
        task,
        [r.subtype for r in records],
        [r.slide for r in records],
        [r.case for r in records],
        logits,
        image=[r.image for r in records],
        path=[r.path for r in records],
        magnification=[r.magnification for r in records],
    )


def as_columns(table: Table) -> dict[str, list[Any]]:
    """The columns of the file of predictions, in their order."""
    cells = {name: getattr(table, name).tolist() for name in Table.__slots__} | {
        "class": table.class_name.tolist()
    }
    cells |= {
        f"logit_{name}": logits.tolist()
        for name, logits in zip(TASK_CLASSES[table.task], table.logits.T, strict=True)
    }
    return {name: cells[name] for name in columns(table.task)}


def check_plain_json(value: Any, at: str = "") -> None:
    """Only plain JSON values, finite, and every null score with its reason."""
    assert type(value) in (dict, list, str, int, float, bool, type(None)), (at, type(value))
    if isinstance(value, dict):
        if "value" in value and "method" in value:
            assert value.keys() >= ENTRY, at
            assert (value["low"] is None) == (value["high"] is None) == ("reason" in value), at
            assert value["value"] is not None or value["reason"], at
        for key, inner in value.items():
            assert type(key) is str
            check_plain_json(inner, f"{at}/{key}")
    if isinstance(value, list):
        for inner in value:
            check_plain_json(inner, at)


def units_of(truth: np.ndarray, p: np.ndarray, fold: np.ndarray | None = None, level: str = "image") -> Units:
    """Units that are each a case of its own; ``p`` is (n,) of malignant or (n, 8)."""
    probabilities = np.column_stack([1 - p, p]) if p.ndim == 1 else p
    decision = (p >= 0.5).astype(np.int64) if p.ndim == 1 else p.argmax(axis=1)
    own = np.arange(len(truth))
    malignant = (truth >= probabilities.shape[1] // 2).astype(np.int64)
    folds = np.zeros(len(truth), np.int64) if fold is None else fold
    right = (decision == truth).astype(np.float64)
    return Units(
        level, truth, probabilities, decision, right, folds, own, own.astype(np.str_), malignant, True
    )
