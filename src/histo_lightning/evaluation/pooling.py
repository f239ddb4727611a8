"""Out-of-fold predictions of several runs scored together, and which case a score hangs on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from histo_lightning.errors import UserError
from histo_lightning.evaluation.levels import is_grouped, units
from histo_lightning.evaluation.registry import all_scores
from histo_lightning.evaluation.scores import auroc_of, value_of
from histo_lightning.evaluation.summary import score_table
from histo_lightning.evaluation.table import Columns, Integers, Table
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
    pooled = Table(*(np.concatenate([getattr(table, name) for table in tables]) for name in fields))
    fold = np.repeat(np.arange(len(tables), dtype=np.int64), [len(table) for table in tables])
    names, counts = np.unique(pooled.image, return_counts=True)
    if counts.max() > 1:
        mend = "pool disjoint test parts (average repeats and seeds first)"
        raise UserError(f"pooled predictions: image {names[counts.argmax()]} is in two folds; {mend}")
    return pooled, fold


def score_pooled(
    tables: Sequence[Columns | Table | str | Path],
    *,
    intervals: bool = True,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Score the test parts of several folds together; the shape of ``score_predictions``.

    AUROC counts only pairs of one fold, since models of different folds have different scales; beside it is
    the plain ``pooled`` one, with a ``warning`` (else null) where they differ by more than .01. AUPRC, ECE and
    calibration are means over the folds; the others are plain.

    Raises:
        UserError: as ``score_predictions`` and ``pool``; or a case in two folds.
    """
    table, fold = pool([read_predictions(each) for each in tables])
    result = score_table(table, draws=draws if intervals else 0, seed=seed, fold=fold)
    for level in result if is_grouped(table) else ("image",):
        for task in {"binary", table.task}:
            entries = result[level] if task == table.task else result[level]["binary"]
            one_fold = units(table, level, binary=task == "binary", fold=fold).as_one_fold()
            for score in all_scores(task, level):
                if score.pairs:
                    entries[score.name] |= all_pairs(entries[score.name]["value"], score.value(one_fold))
    return result


def all_pairs(within: float | None, plain: float) -> dict[str, Any]:
    """The value over all pairs, and a warning where it is far from the one within folds."""
    warning = None
    if within is not None and abs(within - plain) > LARGEST_DIFFERENCE:
        warning = (
            f"pairs within folds give {within:.3f}, all pairs {plain:.3f}: the folds' models differ in scale, "
            "trust the pairs within folds"
        )
    return {"pooled": plain if np.isfinite(plain) else None, "warning": warning}


def influence_table(table: Table) -> dict[str, Any]:
    """The AUROC by image without the two heaviest cases, and the largest change that leaving one case out makes.

    Returns:
        ``{"value", "without": {case: {"value", "change"} or null}, "largest": {"case", "value", "change"} or null}``;
        changes are signed, without minus with; null where the case is absent or the AUROC undefined.

    Raises:
        UserError: unknown grouping.
    """
    if not is_grouped(table):
        raise UserError("predictions: some images have no slide or case; influence is by case")
    here = units(table, "image")
    statistic = auroc_of(here, here.truth == 1, here.p)
    value, values = value_of(statistic, here), statistic(1 - np.eye(len(here.cases)))
    without = {
        case: {"value": float(left), "change": float(left - value)}
        for case, left in zip(here.cases.tolist(), values, strict=True)
        if np.isfinite(left - value)
    }
    largest = max(without, key=lambda case: abs(without[case]["change"]), default=None)
    return {
        "value": value if np.isfinite(value) else None,
        "without": {case: without.get(case) for case in HEAVY_CASES},
        "largest": None if largest is None else {"case": largest} | without[largest],
    }
