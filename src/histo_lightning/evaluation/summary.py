"""``score_predictions``: a predictions table in, every score of every level out, ready for JSON."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from histo_lightning.data.breakhis.names import CLASSES, SUBTYPES
from histo_lightning.errors import UserError
from histo_lightning.evaluation.binary import always_malignant
from histo_lightning.evaluation.intervals import case_weights, class_support, interval_of, no_interval
from histo_lightning.evaluation.levels import LEVELS, UNGROUPED, Units, is_grouped, kish, units
from histo_lightning.evaluation.registry import all_scores
from histo_lightning.evaluation.scores import confusion, value_of, why_undefined
from histo_lightning.evaluation.subtypes import RECALL, headline_classes
from histo_lightning.evaluation.table import Columns, Integers, Table
from histo_lightning.evaluation.table_csv import read_predictions

Json = dict[str, Any]


def score_predictions(
    table: Columns | Table | str | Path,
    *,
    threshold: float | None = None,
    intervals: bool = True,
    draws: int = 2000,
    seed: int = 0,
) -> Json:
    """Score predictions by image, slide and case, with 95 % intervals over cases.

    Args:
        table: a ``Table``, a mapping of columns (a DataFrame too), or the path of a predictions CSV.
        threshold: a stored operating point in [0, 1]; the same scores at it are under ``at_threshold``.
        intervals: False leaves them null (fast: for every epoch).
        draws: bootstrap draws over cases, at least 100; the protocol asks for 2,000; seed: of the draws.

    Returns:
        ``{"image": {...}, "slide": {...}, "case": {...}}`` of plain Python values without NaN. Each level has
        ``n``, ``cases`` and ``kish`` by class, ``always_malignant``, ``confusion`` (rows are the truth),
        ``at_threshold`` and each score as ``{"value", "low", "high", "method", "cases", "cases_smaller_class",
        "kish", "draws"}``; a null comes with a ``reason``. Eight-class tables have their binary scores under
        ``binary`` and recall by subtype under ``recall``.

    Raises:
        UserError: the table is refused (see ``as_table`` and ``units``), or an argument is out of range.
    """
    checked = read_predictions(table)
    if intervals and draws < 100:
        raise UserError(f"draws={draws}: an interval needs at least 100 draws; 2000 is the default")
    return score_table(checked, threshold=threshold, draws=draws if intervals else 0, seed=seed)


def score_table(
    table: Table,
    *,
    threshold: float | None = None,
    draws: int = 2000,
    seed: int = 0,
    fold: Integers | None = None,
) -> Json:
    """``score_predictions`` of a checked table; ``fold`` (N,) marks pooled folds, 0 draws means no interval."""
    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"threshold={threshold}: a threshold is a probability from 0 to 1")
    result: Json = {}
    for level in LEVELS:
        if level != "image" and not is_grouped(table):
            result[level] = _ungrouped_level(level, table.task)
            continue
        plain = units(table, level, fold=fold)
        scored = _about(plain) | _binary_scores(plain, draws, seed) | {"at_threshold": None}
        if threshold is not None:
            moved = units(table, level, threshold=threshold, fold=fold)
            known = {s.name: scored[s.name] for s in all_scores(level=level) if not s.decides}
            again = _binary_scores(moved, draws, seed, known)
            scored["at_threshold"] = {"threshold": float(threshold)} | again
        if table.task == "subtype":
            eight = units(table, level, binary=False, fold=fold)
            scored = _about(eight) | _subtype_scores(eight, draws, seed) | {"binary": scored}
        result[level] = scored
    return result


def score_units(
    units: Units,
    task: str = "binary",
    *,
    draws: int = 0,
    seed: int = 0,
    names: Collection[str] | None = None,
    known: Mapping[str, Json] | None = None,
) -> Json:
    """The scores of one level as ``metrics.json`` has them.

    Args:
        units: of the task; draws: of the bootstrap, 0 for no interval; seed: of the draws.
        names: of the scores wanted, None for all; known: entries that are taken over.
    """
    weights = case_weights(units.case_class, draws, seed) if draws and units.grouped else None
    undefined = why_undefined(units.truth) if task == "binary" else "too few classes or cases here"
    entries: Json = {}
    for score in all_scores(task, units.level):
        if known and score.name in known:
            entries[score.name] = known[score.name]
        elif names is None or score.name in names:
            statistic = None if score.no_interval else score.statistic(units)
            value = score.value(units) if statistic is None else value_of(statistic, units)
            if not np.isfinite(value):
                interval = no_interval(undefined)
            elif weights is None:
                interval = no_interval("intervals were not asked for" if units.grouped else UNGROUPED)
            elif statistic is None:
                interval = no_interval(score.no_interval)
            else:
                interval = interval_of(score, units, statistic, value, weights)
            number = value if np.isfinite(value) else None
            extras = score.extras(units) if score.extras else {}
            entries[score.name] = {"value": number} | interval | extras
    return entries


def _about(units: Units) -> Json:
    """What a level's scores rest on."""
    by_class = class_support(units)
    return {
        "n": len(units),
        "units": {name: int(sizes.sum()) for name, sizes in by_class.items()},
        "cases": {name: len(sizes) if units.grouped else None for name, sizes in by_class.items()},
        "kish": {name: kish(sizes) if units.grouped else None for name, sizes in by_class.items()},
    }


def _binary_scores(units: Units, draws: int, seed: int, known: Mapping[str, Json] | None = None) -> Json:
    return score_units(units, draws=draws, seed=seed, known=known) | {
        "always_malignant": always_malignant(units),
        "confusion": confusion(units.truth, units.decision, len(CLASSES)).tolist(),
    }


def _subtype_scores(units: Units, draws: int, seed: int) -> Json:
    entries = score_units(units, "subtype", draws=draws, seed=seed)
    recall = {
        name: entries.pop(RECALL + name) | {"cases": units.cases_with(k) if units.grouped else None}
        for k, name in enumerate(SUBTYPES)
    }
    return entries | {
        "recall": recall,
        "missing_classes": [name for k, name in enumerate(SUBTYPES) if not (units.truth == k).any()],
        "headline_classes": [SUBTYPES[k] for k in headline_classes(units)],
        "confusion": confusion(units.truth, units.decision, len(SUBTYPES)).tolist(),
        "at_threshold": None,
    }


def _ungrouped_level(level: str, task: str) -> Json:
    """A slide or case level that cannot be scored, in the shape of one that can."""
    result: Json = {"n": 0, "reason": UNGROUPED}
    result |= {score.name: {"value": None} | no_interval(UNGROUPED) for score in all_scores(task, level)}
    if task == "subtype":
        result["recall"] = {name: result.pop(RECALL + name) for name in SUBTYPES}
    result |= {"confusion": None, "at_threshold": None}
    return result | ({"binary": _ungrouped_level(level, "binary")} if task == "subtype" else {})
