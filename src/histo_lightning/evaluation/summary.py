"""``score_predictions`` and ``score_pooled``: predictions tables in, every score of every level out, ready for JSON."""

from collections.abc import Collection, Mapping, Sequence
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
from histo_lightning.evaluation.table import Columns, Integers, Json, Table, read_predictions

LARGEST_DIFFERENCE = 0.01
"""Of a pooled score within folds and over all pairs: beyond it a warning is due."""


def score_predictions(
    table: Columns | Table | str | Path, *, threshold: float | None = None, intervals: bool = True,
    draws: int = 2000, seed: int = 0, fold: Integers | None = None,
) -> Json:  # fmt: skip
    """Score predictions by image, slide and case, with 95 % intervals over cases.

    Args:
        table: a ``Table``, a mapping of columns (a DataFrame too), or the path of a predictions CSV.
        threshold: a stored operating point in [0, 1]; the same scores at it are under ``at_threshold``.
        intervals: False leaves them null (fast: for every epoch); draws: over cases, at least 100; seed: of the draws.
        fold: (N,) fold of each row, where several were pooled; see ``score_pooled``.

    Returns:
        ``{"image": {...}, "slide": {...}, "case": {...}}``, ready for JSON. Each level has ``n``, ``cases`` and ``kish`` by
        class, ``always_malignant``, ``confusion`` (rows are the truth), ``at_threshold`` and each score as ``{"value",
        "low", "high", "method", "cases", "cases_smaller_class", "kish", "draws"}``; a null comes with a ``reason``.
        Eight-class tables have their binary scores under ``binary`` and recall by subtype under ``recall``.
        UserError for a table that is refused (see ``as_table`` and ``units``) or an argument out of range.
    """
    table = read_predictions(table)
    if intervals and draws < 100:
        raise UserError(f"draws={draws}: an interval needs at least 100 draws; 2000 is the default")
    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"threshold={threshold}: a threshold is a probability from 0 to 1")
    result: Json = {}
    options: Json = {"draws": draws if intervals else 0, "seed": seed, "pooled": fold is not None}
    for level in LEVELS:
        if level != "image" and not is_grouped(table):
            result[level] = _ungrouped_level(level, table.task)
            continue
        plain = units(table, level, fold=fold)
        scored = _about(plain) | _binary_scores(plain, **options) | {"at_threshold": None}
        if threshold is not None:
            moved = units(table, level, threshold=threshold, fold=fold)
            known = {s.name: scored[s.name] for s in all_scores(level=level) if not s.decides}
            again = _binary_scores(moved, known=known, **options)
            scored["at_threshold"] = {"threshold": float(threshold)} | again
        if table.task == "subtype":
            eight = units(table, level, binary=False, fold=fold)
            entries = score_units(eight, "subtype", **options)
            recall = {name: entries.pop(RECALL + name) for name in SUBTYPES}
            counts = {name: len(sizes) for name, sizes in class_support(eight, SUBTYPES).items()}
            cases = counts if eight.grouped else dict.fromkeys(SUBTYPES)
            entries["recall"] = {name: entry | {"cases": cases[name]} for name, entry in recall.items()}
            entries["missing_classes"] = [name for name, count in counts.items() if not count]
            entries["headline_classes"] = [SUBTYPES[k] for k in headline_classes(eight)]
            entries["confusion"] = confusion(eight.truth, eight.decision, len(SUBTYPES)).tolist()
            scored = {**_about(eight), **entries, "at_threshold": None, "binary": scored}
        result[level] = scored
    return result


def pool(tables: Sequence[Table]) -> tuple[Table, Integers]:
    """One table from the test parts of several folds, and the (N,) fold of each row.

    UserError for no table, tables of different tasks, or an image in two of them.
    """
    if not tables or len({table.task for table in tables}) > 1:
        raise UserError("pooled predictions: give at least one table, all of one task")
    pooled = Table(*(np.concatenate([getattr(each, name) for each in tables]) for name in Table.__slots__))
    fold = np.repeat(np.arange(len(tables), dtype=np.int64), [len(table) for table in tables])
    names, counts = np.unique(pooled.image, return_counts=True)
    if counts.max() > 1:
        mend = "pool disjoint test parts (average repeats and seeds first)"
        raise UserError(f"pooled predictions: image {names[counts.argmax()]} is in two folds; {mend}")
    return pooled, fold


def score_pooled(tables: Sequence[Columns | Table | str | Path], **options: Any) -> Json:
    """Score the test parts of several folds together; ``options`` and shape as of ``score_predictions``.

    AUROC counts only pairs of one fold, since their models differ in scale; beside it is that of all pairs, ``pooled``, with a
    ``warning`` where they differ by more than .01. AUPRC, ECE and calibration are means over the folds. UserError as ``pool``.
    """
    table, fold = pool([read_predictions(each) for each in tables])
    return score_predictions(table, fold=fold, **options)


def score_units(
    units: Units, task: str = "binary", *, draws: int = 0, seed: int = 0, names: Collection[str] | None = None,
    known: Mapping[str, Json] | None = None, pooled: bool = False,
) -> Json:  # fmt: skip
    """The scores of one level as ``metrics.json`` has them; of some ``names`` only, ``known`` entries taken over.

    Of ``pooled`` folds, scores over pairs also have the value over all pairs, and a warning where the two are far apart.
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
            entries[score.name] = {"value": value if np.isfinite(value) else None} | interval
            entries[score.name] |= score.extras(units) if score.extras else {}
            if pooled and score.pairs:
                plain, warning = score.value(units.as_one_fold()), None
                if abs(value - plain) > LARGEST_DIFFERENCE:
                    values = f"pairs within folds give {value:.3f}, all pairs {plain:.3f}"
                    warning = f"{values}: the folds' models differ in scale, trust the pairs within folds"
                all_pairs = {"pooled": plain if np.isfinite(plain) else None, "warning": warning}
                entries[score.name] |= all_pairs
    return entries


def _about(units: Units) -> Json:
    by_class = class_support(units)
    return {
        "n": len(units),
        "units": {name: int(sizes.sum()) for name, sizes in by_class.items()},
        "cases": {name: len(sizes) if units.grouped else None for name, sizes in by_class.items()},
        "kish": {name: kish(sizes) if units.grouped else None for name, sizes in by_class.items()},
    }


def _binary_scores(units: Units, **options: Any) -> Json:
    return score_units(units, **options) | {
        "always_malignant": always_malignant(units),
        "confusion": confusion(units.truth, units.decision, len(CLASSES)).tolist(),
    }


def _ungrouped_level(level: str, task: str) -> Json:
    """A slide or case level that cannot be scored, in the shape of one that can."""
    result: Json = {"n": 0, "reason": UNGROUPED}
    result |= {score.name: {"value": None} | no_interval(UNGROUPED) for score in all_scores(task, level)}
    if task == "subtype":
        result["recall"] = {name: result.pop(RECALL + name) for name in SUBTYPES}
    result |= {"confusion": None, "at_threshold": None}
    return result | ({"binary": _ungrouped_level(level, "binary")} if task == "subtype" else {})
