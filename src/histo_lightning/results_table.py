"""``results.csv``: a row a run, also for runs that failed or never started."""

from collections.abc import Sequence
from typing import Any

from histo_lightning.cell_summaries import COSTS, cost_of
from histo_lightning.cells import PLACE_KEYS, value_text, varying
from histo_lightning.evaluation.levels import LEVELS
from histo_lightning.evaluation.table_csv import csv_text, quote_cell
from histo_lightning.pooled_cells import SCORES, SLIDE_SCORE
from histo_lightning.report.words import level_scores
from histo_lightning.run_reading import Run

FIRST = {
    "model": "model.name",
    "optimizer": "optimizer.name",
    "magnification": "magnification",
    "split": "split.name",
    "fold": "split.fold",
    "seed": "seed",
}
PARTS = ("test", "val")


def score_names() -> list[str]:
    """``test_case_auroc``, ..., in the order of the columns; each has ``_low`` and ``_high`` behind it."""
    found = []
    for part in PARTS:
        for level in reversed(LEVELS):
            names = (*SCORES, SLIDE_SCORE) if level == "slide" else SCORES
            found += [f"{part}_{level}_{name}" for name in names]
    return found


def override_keys(runs: Sequence[Run]) -> list[str]:
    """Keys in which the runs differ and that have no column of their own."""
    configs = [run.config for run in runs if run.config]
    shown = set(FIRST.values())
    places = [
        key
        for key in PLACE_KEYS
        if key not in shown and len({value_text(config.get(key)) for config in configs}) > 1
    ]
    return [*places, *(key for key in varying(configs) if key not in shown)]


def result_rows(runs: Sequence[Run]) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns of ``results.csv``, and a row a run: None is an empty cell."""
    keys = override_keys(runs)
    scores = [f"{name}{end}" for name in score_names() for end in ("", "_low", "_high")]
    last = ["label", "test_read", "folder", "error"]
    columns = ["run", "state", *FIRST, *keys, *COSTS, *scores, *last]
    rows = []
    for run in runs:
        row: dict[str, Any] = {"run": run.name, "state": run.state}
        row |= {name: run.config.get(key) for name, key in FIRST.items()}
        row |= {key: run.config.get(key) for key in keys}
        row |= {name: cost_of(run, name) for name in COSTS}
        row |= _scores(run)
        row |= {
            "label": run.label,
            "test_read": run.status.get("test_read"),
            "folder": None if run.folder is None else str(run.folder),
            "error": run.error,
        }
        rows.append(row)
    return columns, rows


def _scores(run: Run) -> dict[str, float | None]:
    found = {}
    for part in PARTS:
        for level in LEVELS:
            entries = level_scores(run.metrics, part, level)
            for name in (*SCORES, SLIDE_SCORE):
                entry = entries.get(name) or {}
                for key, end in (("value", ""), ("low", "_low"), ("high", "_high")):
                    found[f"{part}_{level}_{name}{end}"] = entry.get(key)
    return found


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) >= 1e3:
        return str(int(value))  # counts of parameters, FLOPs and bytes
    if isinstance(value, bool | int | float):
        return value_text(value)
    return csv_text(quote_cell(value_text(value)))


def results_csv(runs: Sequence[Run]) -> str:
    """The table as CSV text; texts that a spreadsheet would run are quoted as in ``predictions/*.csv``."""
    columns, rows = result_rows(runs)
    lines = [",".join(csv_text(quote_cell(name)) for name in columns)]
    lines += [",".join(_cell(row.get(name)) for name in columns) for row in rows]
    return "\n".join(lines) + "\n"
