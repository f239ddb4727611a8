"""What a sweep meant to do before its first job: ``sweep.json`` and ``jobs/*.json`` of a sweep folder."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from histo_lightning.cells import level_name
from histo_lightning.run_folders import Folders
from histo_lightning.run_reading import MISSING, Run, flat_config, read_run
from histo_lightning.runs import read_json

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A sweep's plan, and what can be said of its age.

    Attributes:
        folder: of the sweep; None for a plan given from Python.
        content: of ``sweep.json``.
        first_start: ISO time at which the first of its runs started, empty where none has.
    """

    folder: Path | None
    content: Json
    first_start: str = ""

    @property
    def comparison(self) -> Json:
        found = self.content.get("comparison")
        if not found or not isinstance(found, dict):
            return {}
        factor, reference, levels = (found.get(key) for key in ("factor", "reference", "levels"))
        if reference is not None:
            reference = level_name(str(factor), str(reference))
        levels = levels if isinstance(levels, list) else []  # a person may have changed the file
        named = [level_name(str(factor), str(one)) for one in levels]
        return found | {"reference": reference, "levels": named}

    @property
    def hash(self) -> str:
        return str(self.content.get("hash") or "")

    @property
    def untouched(self) -> bool:
        """Whether the content still has the hash that it was written with."""
        return bool(self.hash) and self.hash == plan_hash(self.content)

    @property
    def came_first(self) -> bool | None:
        """Whether it was written before its first run started; None where a time is unknown."""
        created, started = _moment(str(self.content.get("created") or "")), _moment(self.first_start)
        return None if created is None or started is None else created <= started


def plan_hash(content: Json) -> str:
    """SHA-256 of a plan without what a sweep's folder adds to it, as hexadecimal text."""
    rest = {key: value for key, value in content.items() if key not in ("hash", "created", "earlier")}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.astimezone() if found.tzinfo is None else found


def read_runs(folders: Folders) -> tuple[list[Run], list[Plan]]:
    """Every run and every planned job without a run, in order of folder; and the plans of their sweeps.

    A run inside a sweep folder belongs to it also where only the run's own folder was given; then the sweep's other
    jobs are not added.
    """
    runs = [read_run(folder) for folder in folders.runs]
    plans = []
    for sweep in folders.sweeps:
        content = read_json(sweep / "sweep.json")
        inside = {run.name for run in runs if _is_inside(run, sweep)}
        jobs = {str(job.get("run")): _overrides(job) for job in content.get("jobs") or []}
        names = {name: _run_of(sweep, name) for name in jobs}
        overrides = {names[name]: given for name, given in jobs.items()}
        runs = [_placed(run, sweep, overrides) if _is_inside(run, sweep) else run for run in runs]
        absent = [_unstarted(sweep, name, given) for name, given in jobs.items() if names[name] not in inside]
        runs += [_configured(run, runs) for run in absent]
        starts = sorted(run.started for run in runs if run.sweep == sweep and run.started)
        plans.append(Plan(sweep, content, _first_start(sweep, starts)))
    return runs, plans


def _is_inside(run: Run, sweep: Path) -> bool:
    return run.folder is not None and run.folder.resolve().parent == sweep.resolve()


def _run_of(sweep: Path, job: str) -> str:
    """The name of a job's run folder: the job's own, unless its file names another (``<job>-2``)."""
    return str(read_json(sweep / "jobs" / f"{job}.json").get("run") or job)


def _overrides(job: Json) -> list[str]:
    return [str(text) for text in job.get("overrides") or []]


def _placed(run: Run, sweep: Path, overrides: Mapping[str, list[str]]) -> Run:
    run = replace(run, sweep=sweep, overrides=tuple(overrides.get(run.name, ())))
    job = read_json(sweep / "jobs" / f"{run.name}.json")
    if not run.finished and not run.error and job.get("error"):
        run = replace(run, error=str(job["error"]))
    return run


def _unstarted(sweep: Path, name: str, overrides: list[str]) -> Run:
    """A planned job without a run folder: it failed before it could make one, or it has not started."""
    job = read_json(sweep / "jobs" / f"{name}.json")
    if job.get("state") in ("failed", "interrupted"):
        state, error = str(job["state"]), str(job.get("error") or "left no run folder")
    else:
        told = f"its job file says {job['state']}" if job.get("state") else "it has no job file"
        state, error = MISSING, f"planned, but there is no run folder ({told})"
    return Run(name=name, folder=None, state=state, error=error, sweep=sweep, overrides=tuple(overrides))


def _first_start(sweep: Path, starts: Sequence[str]) -> str:
    """The first start of a job: a run that was started again only keeps its last one, its job file too."""
    jobs = [str(read_json(path).get("started") or "") for path in sorted((sweep / "jobs").glob("*.json"))]
    moments = {text: moment for text in [*starts, *jobs] if (moment := _moment(text)) is not None}
    return min(moments, key=lambda text: moments[text]) if moments else ""


def _configured(run: Run, others: Sequence[Run]) -> Run:
    """A job without a folder, with the settings that its overrides and the sweep's other runs imply.

    The run whose overrides differ least lends its config; a group such as ``model=resnet50`` comes whole from a run
    that had the same override.
    """
    siblings = [other for other in others if other.sweep == run.sweep and other.config and other.overrides]
    own = set(run.overrides)
    if not siblings:
        plain = flat_config({})
        return replace(run, config=plain | _implied(run.overrides, plain, siblings))
    nearest = min(siblings, key=lambda other: len(own ^ set(other.overrides)))
    return replace(run, config=dict(nearest.config) | _implied(run.overrides, nearest.config, siblings))


def _implied(overrides: Sequence[str], config: Json, siblings: Sequence[Run]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in overrides:
        key, _, value = text.lstrip("+").partition("=")
        group = {name for name in flat_config({}) if name.startswith(f"{key}.")}
        if not group:
            found |= {key: _value(value)} if key in config else {}  # experiment=... is no key of its own
            continue
        lender = next((other for other in siblings if text in other.overrides), None)
        source = lender.config if lender else dict(config) | {f"{key}.name": value}
        found |= {name: content for name, content in source.items() if name.startswith(f"{key}.")}
    return found


def _value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
