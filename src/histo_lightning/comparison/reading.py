"""Runs on disk, from any machine and in any state -> one tidy table: a row a run, a column a setting or a score.

Columns: ``FACTS``, every key of the config by its dotted name (NaN where it is unknown), ``COSTS``, and
``<part>_<level>_<score>`` with ``_low`` and ``_high`` from ``metrics.json`` (NaN where undefined). A run that cannot be used
is a row all the same, with its state and the reason.
"""

import fcntl
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from histo_lightning.comparison.folders import Folders
from histo_lightning.comparison.names import defaults
from histo_lightning.comparison.plans import first_start, plan_record
from histo_lightning.config import flatten
from histo_lightning.errors import UserError
from histo_lightning.evaluation.levels import LEVELS
from histo_lightning.evaluation.named_scores import NAMES
from histo_lightning.evaluation.table import Table
from histo_lightning.evaluation.table_csv import read_predictions
from histo_lightning.report.words import level_scores
from histo_lightning.runs import read_json

Json = dict[str, Any]

FINISHED, SHORTENED, MISSING, DAMAGED = "finished", "shortened", "missing", "damaged"
STATES = (FINISHED, "running", "interrupted", "failed", SHORTENED, MISSING, DAMAGED)
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
SHOWN_SCORES = (
    "auroc",
    "balanced_accuracy",
    "accuracy",
    "sensitivity",
    "specificity",
    "f1",
    "auprc",
    "brier",
    "log_loss",
)
SLIDE_SCORE = "patient_recognition_rate"
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there


def score_names() -> list[str]:
    """``case_auroc``, ..., ``slide_patient_recognition_rate``, ...: what tables show, in the order of their columns."""
    names = {level: [f"{level}_{name}" for name in SHOWN_SCORES] for level in reversed(LEVELS)}
    names["slide"].append(f"slide_{SLIDE_SCORE}")
    return [name for level in names.values() for name in level]


def read_runs(folders: Folders) -> tuple[pd.DataFrame, list[Json]]:
    """Every run and every planned job without a run, in order of folder; and the plans of their sweeps.

    A run inside a sweep folder belongs to it also where only the run's own folder was given; then the sweep's other
    jobs are not added.
    """
    rows, plans = [_read_run(folder) for folder in folders.runs], []
    for sweep in folders.sweeps:
        plan = read_json(sweep / "sweep.json")
        states = {path.stem: read_json(path) for path in sorted((sweep / "jobs").glob("*.json"))}
        inside = {
            row["run"]: row
            for row in rows
            if row["folder"] and row["folder"].resolve().parent == sweep.resolve()
        }
        for row in inside.values():
            row["sweep"] = sweep
            if row["state"] != FINISHED:
                row["error"] = row["error"] or str(states.get(row["run"], {}).get("error") or "")
        absent = []
        for job in plan.get("jobs") or []:
            state = states.get(str(job.get("run")), {})
            name = str(state.get("run") or job.get("run"))  # a numbered folder: <job>-2
            overrides = tuple(str(text) for text in job.get("overrides") or [])
            if name in inside:
                inside[name]["overrides"] = overrides
            else:
                absent.append(_unstarted(str(job.get("run")), sweep, overrides, state))
        siblings = [row for row in inside.values() if row["config"] and row["overrides"]]
        rows += [row | {"config": _implied_config(row["overrides"], siblings)} for row in absent]
        starts = [row["status"].get("started") for row in inside.values()]
        starts += [state.get("started") for state in states.values()]
        plans.append(plan_record(plan, sweep, first_start(starts)))
    return _tidy(rows), plans


def settings_of(runs: pd.DataFrame) -> pd.DataFrame:
    """The settings of the runs whose config is known, a column a key."""
    scores = tuple(f"{part}_{level}_" for part in PARTS for level in LEVELS)
    known = runs[runs["magnification"].notna()]
    return known[[key for key in runs if key not in (*FACTS, *COSTS) and not str(key).startswith(scores)]]


def _tidy(rows: Sequence[Json]) -> pd.DataFrame:
    facts = pd.DataFrame([{name: row[name] for name in FACTS} for row in rows], columns=FACTS, dtype=object)
    settings = pd.DataFrame([row["config"] for row in rows], columns=None, dtype=object)
    settings = settings.reindex(columns=list(dict.fromkeys([*defaults(), *settings.columns])))
    scores = pd.DataFrame([_costs(row["metrics"]) | _scores(row["metrics"]) for row in rows], dtype=float)
    return pd.concat([facts, settings, scores], axis=1)


def _costs(metrics: Json) -> dict[str, float | None]:
    """``COSTS`` from ``metrics.json``; runs of older versions only say their seconds of training."""
    cost = {"train_seconds": metrics.get("train_seconds")} | (metrics.get("cost") or {})
    return {name: cost[name] if isinstance(cost.get(name), int | float) else None for name in COSTS}


def _scores(metrics: Json) -> dict[str, float | None]:
    scores = {}
    for part in PARTS:
        for level in LEVELS:
            entries = level_scores(metrics, part, level)
            for name in dict.fromkeys([*score_names(), *NAMES]):
                if name.startswith(f"{level}_"):
                    entry = entries.get(name.removeprefix(f"{level}_")) or {}
                    for key, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
                        scores[f"{part}_{name}{suffix}"] = entry.get(key)
    return scores


def _read_run(folder: Path) -> Json:
    """One run folder as a row; what is wrong inside it becomes its state and error."""
    problems: list[str] = []
    config, status, metrics, split = (
        _content(folder / name, problems)
        for name in ("config.yaml", "status.json", "metrics.json", "split.json")
    )
    row: Json = {
        "run": folder.resolve().name,
        "folder": folder,
        "sweep": None,
        "overrides": (),
        "state": str(status.get("state") or ""),
        "error": str(status.get("error") or ""),
        "label": str(split.get("label") or ""),
        "config": defaults() | dict(flatten(config)) if config else {},
        "status": status,
        "metrics": metrics,
        "split": split,
        "table": None,
    }
    if row["state"] not in (FINISHED, "running", "interrupted", "failed"):
        problem = next(
            (text for text in problems if "config" in text or "status" in text), "status.json names no state"
        )
        return row | {"state": DAMAGED, "error": problem}
    if row["state"] == "running" and not _is_alive(folder):
        killed = "killed: its status says running, but no process holds its lock"
        row |= {"state": "interrupted", "error": killed}
    if not config and row["state"] in (FINISHED, "running"):
        return row | {"state": DAMAGED, "error": problems[0]}
    if row["state"] != FINISHED:
        return row
    try:
        if problems:
            raise UserError(problems[0])
        return row | {"table": _test_table(folder, metrics, split), "error": ""} | _shortened(metrics)
    except UserError as error:
        return row | {"state": DAMAGED, "error": str(error)}


def _shortened(metrics: Json) -> Json:
    """A run cut short by ``debug`` or ``limit_*`` is no result: it is neither pooled nor compared."""
    reason = str(metrics.get("shortened") or "")
    return {"state": SHORTENED, "error": reason, "table": None} if reason else {}


def _content(path: Path, problems: list[str]) -> Json:
    """A YAML or JSON object; empty where it cannot be read, which is added to ``problems``."""
    try:
        text = path.read_bytes()
        content = yaml.load(text, _Loader) if path.suffix == ".yaml" else json.loads(text)
        if isinstance(content, dict) and content:
            return {str(key): value for key, value in content.items()}
        problems.append(f"{path.name} is damaged (it holds no settings); delete the folder and train again")
    except FileNotFoundError:
        problems.append(f"{path.name} is missing; train again")
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


def _is_alive(folder: Path) -> bool:
    """Whether a process works in a run folder: it then holds the folder's lock."""
    try:
        with (folder / ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock file: copied from elsewhere
        return False
    return False


def _unstarted(name: str, sweep: Path, overrides: Sequence[str], job: Mapping[str, Any]) -> Json:
    """A planned job without a run folder: it failed before it could make one, or it has not started."""
    row: Json = dict.fromkeys(FACTS) | {"run": name, "sweep": sweep, "overrides": overrides, "label": ""}
    row |= {"status": {}, "metrics": {}, "split": {}}
    if job.get("state") in ("failed", "interrupted"):
        return row | {"state": job["state"], "error": str(job.get("error") or "left no run folder")}
    known = f"its job file says {job['state']}" if job.get("state") else "it has no job file"
    return row | {"state": MISSING, "error": f"planned, but there is no run folder ({known})"}


def _implied_config(overrides: Sequence[str], siblings: Sequence[Json]) -> dict[str, Any]:
    """The settings that a job's overrides and the sweep's other runs imply.

    The run whose overrides differ least lends its config; a group such as ``model=resnet50`` comes whole from a run that
    had the same override.
    """
    wanted = set(overrides)
    nearest = min(siblings, key=lambda row: len(wanted ^ set(row["overrides"])), default=None)
    config = dict(nearest["config"] if nearest else defaults())
    for text in overrides:
        key, _, value = text.lstrip("+").partition("=")
        if any(name.startswith(f"{key}.") for name in defaults()):
            lender = next((row for row in siblings if text in row["overrides"]), None)
            source = lender["config"] if lender else config | {f"{key}.name": value}
            config |= {name: content for name, content in source.items() if name.startswith(f"{key}.")}
        elif key in config:  # experiment=... is no key of its own
            try:
                config[key] = yaml.safe_load(value)
            except yaml.YAMLError:
                config[key] = value
    return config
