"""Out-of-fold predictions of several runs scored together, and which case a score hangs on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from histo_lightning.data.breakhis.names import SUBTYPES
from histo_lightning.errors import UserError
from histo_lightning.evaluation import scores
from histo_lightning.evaluation.levels import LEVELS, Integers, is_grouped, units
from histo_lightning.evaluation.resampling import binary_statistics
from histo_lightning.evaluation.summary import score_table
from histo_lightning.evaluation.table import Columns, Table
from histo_lightning.evaluation.table_checks import as_table
from histo_lightning.evaluation.table_csv import read_predictions

HEAVY_CASES = ("14-21998", "14-22549")
"""A fifth of all benign images, and the next: each is left out once in an influence table."""
LARGEST_DIFFERENCE = 0.01


def pool(tables: Sequence[Table]) -> tuple[Table, Integers]:
    """One table from the test parts of several folds, and the (N,) fold of each row.

    Raises:
        UserError: no table, tables of different tasks, or an image in two of them.
    """
    if not tables or len({table.task for table in tables}) > 1:
        raise UserError("pooled predictions: give at least one table, all of one task")
    fields = Table.__slots__
    whole = Table(*(np.concatenate([getattr(table, name) for table in tables]) for name in fields))
    fold = np.repeat(np.arange(len(tables), dtype=np.int64), [len(table) for table in tables])
    names, counts = np.unique(whole.image, return_counts=True)
    if (counts > 1).any():
        raise UserError(
            f"pooled predictions: image {names[counts.argmax()]} is in two folds; "
            "pool disjoint test parts (average repeats and seeds first)"
        )
    return whole, fold


def score_pooled(
    tables: Sequence[Columns | Table | str | Path],
    *,
    aggregate: str = "mean_probability",
    intervals: bool = True,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Score the test parts of several folds together; the shape of ``score_predictions``.

    AUROC counts only pairs of one fold, since models of different folds have different scales; beside it stands
    the plain ``pooled`` one, with a ``warning`` (else null) where they differ by more than .01. AUPRC, ECE and
    calibration are means over the folds; the others are plain.

    Raises:
        UserError: as ``score_predictions`` and ``pool``; or a case in two folds.
    """
    checked = [read_predictions(t) if isinstance(t, str | Path) else as_table(t) for t in tables]
    table, fold = pool(checked)
    result = score_table(table, aggregate=aggregate, draws=draws if intervals else 0, seed=seed, fold=fold)
    for level in LEVELS if is_grouped(table) else LEVELS[:1]:
        found = result[level] if table.task == "binary" else result[level]["binary"]
        here = units(table, level, aggregate=aggregate, fold=fold)
        plain = scores.auroc(here.truth, here.p, np.zeros_like(here.fold))
        _stand_beside(found["auroc"], plain)
        if table.task == "subtype":
            eight = units(table, level, binary=False, aggregate=aggregate, fold=fold)
            each = [
                scores.auroc(
                    (eight.truth == k).astype(np.int64), eight.probabilities[:, k], np.zeros_like(eight.fold)
                )
                for k in range(len(SUBTYPES))
            ]
            defined = [value for value in each if np.isfinite(value)]
            _stand_beside(result[level]["auroc"], float(np.mean(defined)) if defined else float("nan"))
    return result


def _stand_beside(entry: dict[str, Any], plain: float) -> None:
    within = entry["value"]
    entry["pooled"] = plain if np.isfinite(plain) else None
    entry["warning"] = None
    if within is not None and abs(within - plain) > LARGEST_DIFFERENCE:
        entry["warning"] = (
            f"pairs within folds give {within:.3f}, all pairs {plain:.3f}: the folds' models differ in scale, "
            "trust the pairs within folds"
        )


def influence_table(
    table: Table,
    *,
    score: str = "auroc",
    level: str = "image",
    aggregate: str = "mean_probability",
    fold: Integers | None = None,
) -> dict[str, Any]:
    """A binary score without the two heaviest cases, and the largest change that leaving one case out makes.

    Returns:
        ``{"score", "level", "value", "without": {case: {"value", "change"} or null}, "largest": {"case",
        "value", "change"} or null}``; changes are signed, without minus with; null where the case is absent
        or the score undefined.

    Raises:
        UserError: a score or level of another name, or unknown grouping.
    """
    if not is_grouped(table):
        raise UserError("predictions: some images have no slide or case; influence is by case")
    here = units(table, level, aggregate=aggregate, fold=fold)
    statistics = binary_statistics(here)
    if score not in statistics:
        raise UserError(f"score={score}: influence is known for {', '.join(statistics)}")
    count = len(here.cases)
    value = float(statistics[score](np.ones((1, count)))[0])
    without = statistics[score](np.ones((count, count)) - np.eye(count))

    def entry(index: int) -> dict[str, float] | None:
        if not np.isfinite(without[index] - value):
            return None
        return {"value": float(without[index]), "change": float(without[index] - value)}

    known = {str(name): index for index, name in enumerate(here.cases)}
    changes = np.abs(without - value)
    largest = int(np.nanargmax(changes)) if np.isfinite(changes).any() else None
    return {
        "score": score,
        "level": level,
        "value": value if np.isfinite(value) else None,
        "without": {name: entry(known[name]) if name in known else None for name in HEAVY_CASES},
        "largest": None if largest is None else {"case": str(here.cases[largest])} | (entry(largest) or {}),
    }
