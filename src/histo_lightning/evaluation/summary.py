"""``score_predictions``: a predictions table in, every score of every level out, ready for JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from histo_lightning.data.breakhis.names import CLASSES, SUBTYPES
from histo_lightning.errors import UserError
from histo_lightning.evaluation import binary, scores, subtypes
from histo_lightning.evaluation.baselines import always_malignant
from histo_lightning.evaluation.intervals import Interval
from histo_lightning.evaluation.level_intervals import (
    UNGROUPED,
    binary_intervals,
    class_support,
    subtype_intervals,
)
from histo_lightning.evaluation.levels import LEVELS, Integers, Units, is_grouped, kish, units
from histo_lightning.evaluation.table import Columns, Table
from histo_lightning.evaluation.table_checks import as_table
from histo_lightning.evaluation.table_csv import read_predictions

Json = dict[str, Any]

NOT_ASKED = "intervals were not asked for"


def score_predictions(
    table: Columns | Table | str | Path,
    *,
    threshold: float | None = None,
    aggregate: str = "mean_probability",
    intervals: bool = True,
    draws: int = 2000,
    seed: int = 0,
) -> Json:
    """Score predictions by image, slide and case, with 95 % intervals over cases.

    Args:
        table: a ``Table``, a mapping of columns (a DataFrame too), or the path of a predictions CSV.
        threshold: a stored operating point in [0, 1]; the same scores at it stand under ``at_threshold``.
        aggregate: ``mean_probability``, ``mean_logit`` or ``majority_vote``.
        intervals: False leaves them null (fast: for every epoch).
        draws: bootstrap draws over cases, at least 100; the protocol asks for 2,000.
        seed: of the draws.

    Returns:
        ``{"image": {...}, "slide": {...}, "case": {...}}`` of plain Python values without NaN. Each level has
        ``n``, ``cases`` and ``kish`` by class, ``always_malignant``, ``confusion`` (rows are the truth),
        ``at_threshold`` and each score as ``{"value", "low", "high", "method", "cases", "cases_smaller_class",
        "kish", "draws"}``; a null comes with a ``reason``. Eight-class tables have their binary scores under
        ``binary`` and recall by subtype under ``recall``.

    Raises:
        UserError: the table is refused (see ``as_table`` and ``units``), or an argument is out of range.
    """
    checked = read_predictions(table) if isinstance(table, str | Path) else as_table(table)
    if intervals and draws < 100:
        raise UserError(f"draws={draws}: an interval needs at least 100 draws; 2000 is the default")
    count = draws if intervals else 0
    return score_table(checked, threshold=threshold, aggregate=aggregate, draws=count, seed=seed)


def score_table(
    table: Table,
    *,
    threshold: float | None = None,
    aggregate: str = "mean_probability",
    draws: int = 2000,
    seed: int = 0,
    fold: Integers | None = None,
) -> Json:
    """``score_predictions`` of a checked table; ``fold`` (N,) marks pooled folds, 0 draws means no interval."""
    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"threshold={threshold}: a threshold is a probability from 0 to 1")

    def at(level: str, cut: float | None, is_binary: bool) -> Units:
        return units(table, level, binary=is_binary, aggregate=aggregate, threshold=cut, fold=fold)

    result: Json = {}
    for level in LEVELS:
        if level != "image" and not is_grouped(table):
            result[level] = _ungrouped_level(level, table.task)
            continue
        decided = at(level, None, True)
        scored = _about(decided) | _binary_scores(decided, draws, seed) | {"at_threshold": None}
        if threshold is not None:
            moved = at(level, threshold, True)
            # Only a majority vote makes other probabilities of another threshold.
            known = binary.DECISION_FREE if np.array_equal(moved.p, decided.p) else ()
            again = _binary_scores(moved, draws, seed, skip=known) | {name: scored[name] for name in known}
            scored["at_threshold"] = {"threshold": float(threshold)} | again
        if table.task == "subtype":
            eight = at(level, None, False)
            scored = _about(eight) | _subtype_scores(eight, draws, seed) | {"binary": scored}
        result[level] = scored
    return result


def _about(units: Units) -> Json:
    """What a level's scores rest on."""
    by_class = class_support(units)
    kish_numbers = [kish(sizes) if units.grouped else None for sizes in by_class.sizes]
    cases = [len(sizes) if units.grouped else None for sizes in by_class.sizes]
    malignant = units.case_class[units.case]
    return {
        "n": len(units),
        "units": {name: int((malignant == c).sum()) for c, name in enumerate(CLASSES)},
        "cases": dict(zip(CLASSES, cases, strict=True)),
        "kish": dict(zip(CLASSES, kish_numbers, strict=True)),
    }


def _entries(values: dict[str, float], intervals: dict[str, Interval], default: str, undefined: str) -> Json:
    """Scores as the JSON has them."""
    entries = {}
    for name, value in values.items():
        known = bool(np.isfinite(value))
        interval = intervals.get(name, Interval(reason=default)) if known else Interval(reason=undefined)
        entries[name] = {"value": float(value) if known else None} | interval.as_dict()
    return entries


def _binary_scores(units: Units, draws: int, seed: int, skip: Sequence[str] = ()) -> Json:
    values = binary.binary_values(units)
    intervals = binary_intervals(units, values["auroc"], draws, seed, skip) if draws and units.grouped else {}
    default = NOT_ASKED if units.grouped else UNGROUPED
    entries = _entries(values, intervals, default, scores.why_undefined(units.truth))
    if units.level != "image":
        entries["ece"]["if_calibrated"] = binary.ece_if_calibrated(units)
    elif not units.grouped:
        entries["ece"]["reason"] = UNGROUPED
    entries["micro_f1"] = dict(
        entries["accuracy"]
    )  # one label a unit: every error is one FP and one FN, so they are equal
    entries["always_malignant"] = always_malignant(units)
    entries["confusion"] = scores.confusion(units.truth, units.decision, len(CLASSES)).tolist()
    return entries


def _subtype_scores(units: Units, draws: int, seed: int) -> Json:
    values = subtypes.subtype_values(units)
    intervals = subtype_intervals(units, draws, seed) if draws and units.grouped else {}
    default = NOT_ASKED if units.grouped else UNGROUPED
    entries = _entries(values, intervals, default, "too few classes or cases here")
    recall = {name: entries.pop(f"recall_{name}") for name in SUBTYPES}
    for k, name in enumerate(SUBTYPES):
        recall[name]["cases"] = subtypes.cases_of_class(units, k) if units.grouped else None
    return entries | {
        "micro_f1": dict(entries["accuracy"]),
        "recall": recall,
        "missing_classes": [name for k, name in enumerate(SUBTYPES) if not (units.truth == k).any()],
        "headline_classes": [SUBTYPES[k] for k in subtypes.headline_classes(units)],
        "confusion": scores.confusion(units.truth, units.decision, len(SUBTYPES)).tolist(),
        "at_threshold": None,
    }


def _ungrouped_level(level: str, task: str) -> Json:
    """A slide or case level that cannot be scored, in the shape of one that can."""
    names = binary.SCORES + (binary.SLIDE_SCORES if level == "slide" else ())
    nulls = _entries(dict.fromkeys(names, float("nan")), {}, UNGROUPED, UNGROUPED)
    about = {"n": 0, "reason": UNGROUPED}
    found = about | nulls | {"confusion": None, "at_threshold": None}
    if task == "subtype":
        eight = _entries(dict.fromkeys(subtypes.SCORES, float("nan")), {}, UNGROUPED, UNGROUPED)
        recall = _entries(dict.fromkeys(SUBTYPES, float("nan")), {}, UNGROUPED, UNGROUPED)
        found = about | eight | {"recall": recall, "confusion": None, "at_threshold": None, "binary": found}
    return found
