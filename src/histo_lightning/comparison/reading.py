"""Runs on disk, from any machine and in any state -> one tidy table: a row a run, a column a setting or a score.

Columns: ``FACTS``, every key of the config by its dotted name (NaN where it is unknown), ``COSTS``, and
``<part>_<level>_<score>`` with ``_low`` and ``_high`` from ``metrics.json`` (NaN where undefined). A run that cannot be used
is a row all the same, with its state and the reason.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from histo_lightning.comparison.folders import Folders
from histo_lightning.comparison.names import defaults
from histo_lightning.comparison.plans import plan_record
from histo_lightning.config.checks import flatten
from histo_lightning.errors import UserError
from histo_lightning.evaluation.levels import LEVELS
from histo_lightning.evaluation.registry import score_names
from histo_lightning.evaluation.table import Table
from histo_lightning.evaluation.table_csv import read_predictions
from histo_lightning.report.words import level_scores
from histo_lightning.runs import RunFolder, read_json

Json = dict[str, Any]

FINISHED, SHORTENED, MISSING, DAMAGED = "finished", "shortened", "missing", "damaged"
STATES = (FINISHED, "running", "interrupted", "failed", SHORTENED, MISSING, DAMAGED)
FILES = ("config.yaml", "status.json", "metrics.json", "split.json")
FACTS = (
    "run",
    "folder",
    "sweep",
    "overrides",
    "state",
    "error",
    "label",
    "status",
    "metrics",
    "split",
    "table",
)
COSTS = ("parameters", "flops", "train_seconds", "peak_memory_bytes")
PARTS = ("test", "val", "train")
SHOWN_SCORES = [
    f"{level}_{score}"
    for level in reversed(LEVELS)
    for score in ("auroc", "balanced_accuracy", "accuracy", "sensitivity", "specificity", "f1", "auprc", "brier",
                  "log_loss", *(["patient_recognition_rate"] if level == "slide" else []))
]  # fmt: skip
"""``case_auroc``, ...: the scores that tables show, in the order of their columns."""
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there


def read_runs(folders: Folders) -> tuple[pd.DataFrame, list[Json]]:
    """Every run and every planned job without a run, in order of folder; and the plans of their sweeps.

    A run inside a sweep folder belongs to it also where only the run's own folder was given; then the sweep's other
    jobs are not added.
    """
    rows, plans = [_read_run(folder) for folder in folders.runs], []
    for sweep in folders.sweeps:
        plan = read_json(sweep / "sweep.json")
        own = [row for row in rows if row["folder"] and row["folder"].resolve().parent == sweep.resolve()]
        inside = {row["run"]: row for row in own}
        for row in own:
            row["sweep"] = sweep
        absent = []
        for planned in plan.get("jobs") or []:
            job = str(planned.get("run"))
            numbered = re.compile(rf"{re.escape(job)}(-\d+)?")  # <job>-2: it was run again, resume=never
            runs = [row for name, row in inside.items() if numbered.fullmatch(name)]
            overrides = tuple(str(text) for text in planned.get("overrides") or [])
            for row in runs:
                row["overrides"] = overrides
            if not runs:
                absent.append(_unstarted(job, sweep, overrides))
        siblings = [row for row in own if row["config"] and row["overrides"]]
        rows += [row | {"config": _implied_config(row["overrides"], siblings)} for row in absent]
        plans.append(plan_record(plan, sweep, [row["status"].get("started") for row in own]))
    facts = pd.DataFrame([{name: row[name] for name in FACTS} for row in rows], columns=FACTS, dtype=object)
    keys = dict.fromkeys(key for config in [defaults(), *(row["config"] for row in rows)] for key in config)
    settings = pd.DataFrame([row["config"] for row in rows], columns=list(keys), dtype=object)
    scores = pd.DataFrame([_numbers(row["metrics"]) for row in rows], dtype=float)
    return pd.concat([facts, settings, scores], axis=1), plans


def _numbers(metrics: Json) -> dict[str, float | None]:
    """Costs and scores from ``metrics.json``; runs of older versions only say their seconds of training."""
    cost = {"train_seconds": metrics.get("train_seconds")} | (metrics.get("cost") or {})
    numbers = {name: cost[name] if isinstance(cost.get(name), int | float) else None for name in COSTS}
    entries = {f"{part}_{level}": level_scores(metrics, part, level) for part in PARTS for level in LEVELS}
    for name in dict.fromkeys([*SHOWN_SCORES, *score_names()]):
        level, _, score = name.partition("_")
        for part in PARTS:
            entry = entries[f"{part}_{level}"].get(score) or {}
            values = {"": entry.get("value"), "_low": entry.get("low"), "_high": entry.get("high")}
            numbers |= {f"{part}_{name}{suffix}": value for suffix, value in values.items()}
    return numbers


def _read_run(folder: Path) -> Json:
    """One run folder as a row; what is wrong inside it becomes its state and error."""
    problems: list[str] = []
    config, status, metrics, split = (_content(folder / name, problems) for name in FILES)
    row = _row(folder.resolve().name, folder) | {"status": status, "metrics": metrics, "split": split}
    row |= {"state": str(status.get("state") or ""), "error": str(status.get("error") or "")}
    row |= {"label": str(split.get("label") or "")}
    row["config"] = defaults() | dict(flatten(config)) if config else {}
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


def _row(name: str, folder: Path | None) -> Json:
    nothing: Json = {"overrides": (), "label": "", "status": {}, "metrics": {}, "split": {}, "config": {}}
    return dict.fromkeys(FACTS) | nothing | {"run": name, "folder": folder}


def _content(path: Path, problems: list[str]) -> Json:
    """A YAML or JSON object; empty where it cannot be read, which is added to ``problems``."""
    try:
        content = (
            yaml.load(path.read_bytes(), _Loader) if path.suffix == ".yaml" else json.loads(path.read_bytes())
        )
        if isinstance(content, dict) and content:
            return {str(key): value for key, value in content.items()}
        reason = "it is empty"
    except FileNotFoundError:
        problems.append(f"{path.name} is missing; train again")
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(getattr(error, "strerror", None) or error).splitlines()[0]
    problems.append(f"{path.name} is damaged ({reason}); delete the folder and train again")
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


def _unstarted(name: str, sweep: Path, overrides: Sequence[str]) -> Json:
    """A planned job without a run folder: it has not started."""
    row = _row(name, None) | {"sweep": sweep, "overrides": overrides}
    return row | {"state": MISSING, "error": "planned, but never started"}


def _implied_config(overrides: Sequence[str], siblings: Sequence[Json]) -> dict[str, Any]:
    """The settings that a job's overrides and the sweep's other runs imply.

    The run whose overrides differ least lends its config; a group such as ``model=resnet50`` comes whole from a run that
    had the same override.
    """
    own = set(overrides)
    nearest = min(siblings, key=lambda row: len(own ^ set(row["overrides"])), default={"config": defaults()})
    config = dict(nearest["config"])
    for text in overrides:
        key, _, value = text.lstrip("+").partition("=")
        lenders = [row["config"] for row in siblings if text in row["overrides"]]
        source = lenders[0] if lenders else config | {f"{key}.name": value}
        group = {name: source[name] for name in source if name.startswith(f"{key}.")}
        if any(name in defaults() for name in group):
            config |= group
        elif key in config:  # experiment=... is no key of its own
            try:
                config[key] = yaml.safe_load(value)
            except yaml.YAMLError:
                config[key] = value
    return config
