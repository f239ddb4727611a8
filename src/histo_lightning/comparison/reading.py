"""Runs on disk, from any machine and in any state -> one tidy table: a row a run, a column a setting or a score.

Columns: ``FACTS``, config keys, ``COSTS``, and ``<part>_<level>_<score>`` with ``_low`` and ``_high``; NaN where unknown.
A run that cannot be used is a row all the same, with its state and the reason.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from histo_lightning.comparison.folders import find_folders
from histo_lightning.config.checks import flatten
from histo_lightning.config.schema import Config
from histo_lightning.errors import UserError
from histo_lightning.evaluation.levels import LEVELS
from histo_lightning.evaluation.registry import score_names
from histo_lightning.evaluation.table import Json, Table, read_predictions
from histo_lightning.report.figures.curves import read_history
from histo_lightning.report.words import level_scores
from histo_lightning.runs import RunFolder, read_json

FINISHED, SHORTENED, MISSING, DAMAGED = "finished", "shortened", "missing", "damaged"
STATES = (FINISHED, "running", "interrupted", "failed", SHORTENED, MISSING, DAMAGED)
LOSSES = ("train_loss", "val_loss")
FACTS = ["run", "folder", "planned", "state", "error", "label", "status", "metrics", "split", "table"]
FACTS += LOSSES
COSTS = ("parameters", "flops", "train_seconds", "peak_memory_bytes")
PARTS = ("test", "val", "train")
SHOWN = ["auroc", "balanced_accuracy", "accuracy", "sensitivity", "specificity"]
SHOWN += ["f1", "auprc", "brier", "log_loss"]
SHOWN_SCORES = [f"{level}_{score}" for level in ("case", "slide") for score in SHOWN]
SHOWN_SCORES += ["slide_patient_recognition_rate", *(f"image_{score}" for score in SHOWN)]
"""``case_auroc``, ...: the scores that tables show, in the order of their columns."""


@cache
def defaults() -> Json:
    """Every key of a training config with the schema's value: what a run of an older version used."""
    return dict(flatten(asdict(Config())))


def read_runs(roots: Sequence[Path]) -> tuple[pd.DataFrame, list[tuple[Json, Path, list[Any]]], list[Path]]:
    """A row a run and a planned job without one; the sweeps: plan, folder, starts; and the folders of studies.

    UserError for a damaged file.
    """
    runs, sweeps, studies = find_folders(roots)
    rows, plans = [_read_run(folder) for folder in runs], []
    for sweep in sweeps:
        plan = read_plan(sweep)
        own = [row for row in rows if row["folder"] and row["folder"].resolve().parent == sweep.resolve()]
        for name in (job["run"] for job in plan["jobs"]):
            numbered = re.compile(rf"{re.escape(name)}(-\d+)?")  # <job>-2: it was run again, resume=never
            jobs = [row for row in own if numbered.fullmatch(row["run"])]
            for row in jobs:
                row["planned"] = True
            if not jobs:  # the sweep keeps the settings of the jobs that it was about to start
                config = read_json(sweep / "jobs" / f"{name}.json").get("config") or {}
                why = {"planned": True, "state": MISSING, "error": "planned, but never started"}
                rows.append(_row(name, None, config) | why)
        plans.append((plan, sweep, [row["status"].get("started") for row in own]))
    for row in rows:
        path = row["folder"] and row["folder"] / "history.csv"
        if row["state"] == FINISHED and path.is_file():
            history = read_history(path)
            if missing := [name for name in LOSSES if name not in history]:
                damage = f"is damaged (no column {missing[0]})"
                raise UserError(f"{path}: {damage}; train again, or delete it to go without")
            row |= {name: history[name].tolist() for name in LOSSES}
    facts = pd.DataFrame([{name: row[name] for name in FACTS} for row in rows], columns=FACTS, dtype=object)
    keys = dict.fromkeys(key for config in [defaults(), *(row["config"] for row in rows)] for key in config)
    settings = pd.DataFrame([row["config"] for row in rows], columns=list(keys), dtype=object)
    scores = pd.DataFrame([_numbers(row["metrics"]) for row in rows], dtype=float)
    return pd.concat([facts, settings, scores], axis=1), plans, studies


def read_plan(sweep: Path) -> Json:
    """``sweep.json`` of a sweep folder; raise UserError where it cannot be read or is no plan."""
    plan = read_json(sweep / "sweep.json")
    if "jobs" not in plan or not all(job.get("run") for job in plan["jobs"]):
        raise UserError(f"{sweep / 'sweep.json'}: is damaged (it lists no jobs); restore or delete it")
    return plan


def _numbers(metrics: Json) -> dict[str, float | None]:
    """Costs and scores from ``metrics.json``; runs of older versions only say their seconds of training."""
    cost = {"train_seconds": metrics.get("train_seconds")} | (metrics.get("cost") or {})
    numbers = {name: cost[name] if isinstance(cost.get(name), int | float) else None for name in COSTS}
    names = dict.fromkeys(name.partition("_")[2] for name in (*SHOWN_SCORES, *score_names()))
    for part, level in product(PARTS, LEVELS):
        scores = level_scores(metrics, part, level)
        for name, (suffix, key) in product(names, (("", "value"), ("_low", "low"), ("_high", "high"))):
            numbers[f"{part}_{level}_{name}{suffix}"] = (scores.get(name) or {}).get(key)
    return numbers


def _read_run(folder: Path) -> Json:
    """One run folder as a row; what is wrong inside it becomes its state and error."""
    problems: list[str] = []
    names = ("config.yaml", "status.json", "metrics.json", "split.json")
    config, status, metrics, split = (_content(folder / name, problems) for name in names)
    row = _row(folder.resolve().name, folder, config) | {"status": status, "metrics": metrics, "split": split}
    texts = {"state": status.get("state"), "error": status.get("error"), "label": split.get("label")}
    row |= {key: str(text or "") for key, text in texts.items()}
    try:
        if row["state"] not in STATES[:4] or (not config and row["state"] in STATES[:2]):
            raise UserError(next(iter(problems), "status.json is damaged (it names no state); train again"))
        if row["state"] == "running" and not RunFolder(folder).alive:
            killed = "killed: its status says running, but no process holds its lock"
            return row | {"state": "interrupted", "error": killed}
        if row["state"] != FINISHED:
            return row
        if problems:
            raise UserError(problems[0])
        if metrics.get("shortened"):  # cut short by debug or limit_*: no result
            return row | {"state": SHORTENED, "error": str(metrics["shortened"])}
        return row | {"table": _test_table(folder, metrics, split), "error": ""}
    except UserError as error:
        return row | {"state": DAMAGED, "error": str(error)}


def _row(name: str, folder: Path | None, config: Json) -> Json:
    row: Json = dict.fromkeys(FACTS) | {"run": name, "folder": folder, "planned": False, "label": ""}
    row |= {"status": {}, "metrics": {}, "split": {}}
    return row | {"config": defaults() | dict(flatten(config)) if config else {}}


def _content(path: Path, problems: list[str]) -> Json:
    """A YAML or JSON object; empty where it cannot be read, which is added to ``problems``."""
    try:
        if content := read_json(path):
            return {str(key): value for key, value in content.items()}
        problems.append(f"{path.name} is missing or empty; train again")
    except UserError as error:
        problems.append(str(error).removeprefix(f"{path.parent}/"))
    return {}


def _test_table(folder: Path, metrics: Json, split: Json) -> Table | None:
    """The test predictions of a finished run, whose files have to agree; None where test was left unread."""
    parts = split.get("parts")
    if "best_epoch" not in metrics or not isinstance(parts, dict) or not split.get("partition_hash"):
        name = "split.json" if "best_epoch" in metrics else "metrics.json"
        raise UserError(f"{name} is damaged (keys are missing); delete the folder and train again")
    if metrics.get("test") is None:
        return None
    table = read_predictions(folder / "predictions" / "test.csv")
    if sorted(table.image.tolist()) != sorted(parts.get("test") or []):
        raise UserError("predictions/test.csv and the test part of split.json hold different images")
    return table
