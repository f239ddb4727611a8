"""Scores of ``metrics.json`` as tables: value and interval where there are any, else the reason why not."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from histo_lightning.data.breakhis.names import SUBTYPE_NAMES, SUBTYPES
from histo_lightning.evaluation import Table as Predictions
from histo_lightning.evaluation import all_scores, score_predictions
from histo_lightning.evaluation.intervals import wilson
from histo_lightning.evaluation.levels import LEVELS, units
from histo_lightning.report.tables import Table, mark, table_with_notes
from histo_lightning.report.words import Json, fixed, interval_text, level_scores, levels_of

MAIN = ("auroc", "balanced_accuracy", "balanced_accuracy_headline", "sensitivity", "specificity", "accuracy")
BASELINES = ("accuracy", "f1")  # the scores that the class mix flatters


def titles() -> dict[str, tuple[str, str]]:
    """Title and meaning of every score, in the order of ``metrics.json``; those of a user's module too."""
    tasks = ("binary", "subtype", "binary")  # of equal names, what it means for two classes
    return {score.name: (score.title, score.meaning) for task in tasks for score in all_scores(task)}


def score_cell(score: Json | None, notes: list[str]) -> str:
    """A score with its interval, and the mark of why one of them is missing."""
    if score is None:
        return "\N{MIDDLE DOT}"
    known = score.get("value") is not None
    bounded = known and score.get("low") is not None and score.get("high") is not None
    reason = f"{'no interval: ' * known}{score.get('reason') or 'not computed'}"
    return interval_text(score) + ("" if bounded else mark(notes, reason))


def score_tables(levels: Mapping[str, Json | None]) -> tuple[Table, Table]:
    """The main scores of a part of ``metrics.json`` by image, slide and case, and all others."""
    by_level = {level: levels.get(level) or {} for level in LEVELS}
    entries = [entry for scores in by_level.values() for entry in scores.items()]
    present = {name for name, value in entries if isinstance(value, Mapping) and "value" in value}
    ordered = [*(name for name in titles() if name in present), *sorted(present - set(titles()))]
    main = [name for name in MAIN if name in present]
    return _table(main, by_level), _table([name for name in ordered if name not in main], by_level)


def _table(names: Sequence[str], by_level: Mapping[str, Json]) -> Table:
    notes, rows = list[str](), []
    levels = list(by_level.values())
    missing = [{"reason": scores["reason"]} if scores.get("reason") else None for scores in levels]
    for name in names:
        entries = [scores.get(name) or reason for scores, reason in zip(levels, missing, strict=True)]
        rows.append([titles().get(name, (name,))[0], *(score_cell(entry, notes) for entry in entries)])
        baseline = [(scores.get("always_malignant") or {}).get(name) for scores in levels]
        if name in BASELINES and any(value is not None for value in baseline):
            rows.append(['\N{EM DASH} always "malignant"', *map(fixed, baseline)])
    sizes = [f"{s['n']} {level}s" if s.get("n") else f"{level}s unknown" for level, s in by_level.items()]
    return table_with_notes(["", *sizes], rows, notes)


def recall_table(levels: Mapping[str, Json | None]) -> Table | None:
    """Recall of each subtype with the number of its cases; None for the binary task."""
    recalls = [(levels.get(level) or {}).get("recall") or {} for level in LEVELS]
    notes, rows = list[str](), []
    for subtype, score in recalls[0].items():
        count = "cases unknown" if score.get("cases") is None else f"cases: {score['cases']}"
        cells = []
        for entry in (recall.get(subtype) or {} for recall in recalls):
            why = str(entry.get("reason") or "").partition(" (")[0]  # the row says how many cases there are
            cells.append(score_cell({**entry, "reason": why} if "value" in entry else None, notes))
        rows.append([f"{SUBTYPE_NAMES.get(subtype, subtype).replace('_', ' ')}, {subtype}; {count}", *cells])
    head = ["recall of", *(f"by {level}" for level in LEVELS)]
    return table_with_notes(head, rows, notes) if rows else None


def group_tables(table: Predictions) -> dict[str, Table]:
    """The share called right of each subtype (binary task), and the scores at each of several magnifications.

    A case that holds two subtypes counts once for each; its interval by case is Wilson's.
    """
    tables, rows, levels = {}, [], levels_of(table)
    for subtype in [name for name in SUBTYPES if table.task == "binary" and (table.subtype == name).any()]:
        row = [subtype]
        for level in levels:
            own = units(table.rows(table.subtype == subtype), level)
            right = own.decision == own.truth
            low, high = wilson(int(right.sum()), len(right)) if level == "case" else (None, None)
            row += [str(len(right)), interval_text({"value": float(right.mean()), "low": low, "high": high})]
        rows.append(row)
    if rows:
        heads = [head for level in levels for head in (f"{level}s", f"called right by {level}")]
        tables["Recall by subtype"] = Table(["subtype", *heads], rows)
    magnifications = np.unique(table.magnification).tolist()
    if len(magnifications) > 1:
        names = [(level, name) for level in levels[::-1] for name in ("auroc", "balanced_accuracy")]
        notes, rows = list[str](), []
        for magnification in magnifications:
            part = {"part": score_predictions(table.rows(table.magnification == magnification))}
            cells = [score_cell(level_scores(part, "part", level).get(name), notes) for level, name in names]
            rows.append([f"{magnification}X" if magnification else "unknown", *cells])
        heads = [f"{titles()[name][0]} by {level}" for level, name in names]
        tables["Scores by magnification"] = table_with_notes(["magnification", *heads], rows, notes)
    return tables


def part_context(levels: Json) -> dict[str, Any]:
    """What a page shows of a scored part: tables, recall by subtype, the stored threshold, the mix of classes."""
    part = {"part": levels}
    binary = {level: (levels.get(level) or {}).get("binary") for level in levels}
    moved = {level: level_scores(part, "part", level).get("at_threshold") for level in levels}
    classes = level_scores(part, "part", "image").get("units") or {}
    stored: Json = next((scores for scores in moved.values() if scores), {})
    return {
        "tables": score_tables(levels),
        "recall": recall_table(levels),
        "binary": score_tables(binary) if any(binary.values()) else None,
        "moved": score_tables(moved) if stored else None,
        "stored": stored,
        "malignant_share": 100 * classes.get("malignant", 0) / max(sum(classes.values()), 1),
    }
