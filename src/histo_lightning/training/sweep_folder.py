"""A sweep's folder: the plan written before the first job, each job's config, and the run folders with the jobs' states."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from histo_lightning.config.checks import to_config
from histo_lightning.config.compose import Job
from histo_lightning.config.identity import readable_name
from histo_lightning.config.schema import Config
from histo_lightning.runs import RunFolder, read_json, write_atomic, write_json

STATES = ("finished", "running", "pending", "failed", "interrupted")


def plan_of(overrides: Sequence[str], jobs: Mapping[str, Job], comparison: dict[str, Any]) -> dict[str, Any]:
    """What a sweep is to run and to compare, with a hash of it; it is fixed before the first job."""
    plan = {
        "schema": 1,
        "overrides": list(overrides),
        "jobs": [{"run": name, "overrides": list(job.overrides)} for name, job in jobs.items()],
        "comparison": comparison,
    }
    text = json.dumps(plan, sort_keys=True)
    return {"hash": hashlib.sha256(text.encode()).hexdigest()} | plan


class SweepFolder:
    """The folder of a sweep, ``<output_dir>/sweeps/<sweep_name>``. A job is known by its run's name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_plan(self, plan: Mapping[str, Any]) -> None:
        """Write ``sweep.json``; an unchanged plan is not written again, a replaced one is named under ``earlier``."""
        file = self.path / "sweep.json"
        before = read_json(file)
        if before.get("hash") == plan["hash"]:
            return
        earlier = [*before.get("earlier", []), {k: before[k] for k in ("hash", "created")}] if before else []
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(file, {"created": now, **plan, "earlier": earlier})

    def write_job(self, name: str, config: Config, hydra: Mapping[str, str]) -> None:
        """Write a job's checked config for the process that the launcher starts."""
        write_json(self.path / "jobs" / f"{name}.json", {"config": asdict(config), "hydra": dict(hydra)})

    def read_job(self, name: str) -> tuple[Config, dict[str, str]]:
        """A job's checked config, and the texts for its run folder's ``.hydra/``."""
        content = read_json(self.path / "jobs" / f"{name}.json")
        config = to_config(OmegaConf.create(content["config"]))
        assert isinstance(config, Config)
        assert readable_name(config) == name
        return config, content["hydra"]

    def run_of(self, name: str) -> RunFolder:
        """The run folder of a job: the newest, where it was run again in a new one."""
        number = 1
        while (self.path / f"{name}-{number + 1}").is_dir():
            number += 1
        return RunFolder(self.path / (name if number == 1 else f"{name}-{number}"))

    def fail(self, name: str, config: Config, error: str) -> None:
        """Record a job that could not even start."""
        run = self.run_of(name)
        write_atomic(run.path / "config.yaml", yaml.safe_dump(asdict(config), sort_keys=False))
        run.fail(error)

    def state(self, name: str) -> str:
        """The state of a job, one of :data:`STATES`."""
        return self.run_of(name).state
