"""A sweep's folder: the plan written before the first job, each job's config, and its run's state, shown while the sweep runs."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from histo_lightning.comparison.families import plan_hash
from histo_lightning.config.checks import to_config
from histo_lightning.config.compose import Job
from histo_lightning.config.schema import Config
from histo_lightning.report.console import LINE_EVERY_SECONDS, console
from histo_lightning.report.words import duration
from histo_lightning.runs import RunFolder, read_json, write_atomic
from histo_lightning.runs.manifest import write_sealed

SECONDS_BETWEEN_LOOKS = 1.0
STATES = ("finished", "running", "pending", "failed", "interrupted")
ENDED = ("finished", "failed")
Jobs = dict[str, Job]  # by the name of their run


@dataclass(frozen=True)
class SweepFolder:
    """The folder of a sweep, ``<output_dir>/sweeps/<sweep_name>``. A job is known by its run's name."""

    path: Path

    def write_plan(self, overrides: Sequence[str], jobs: Jobs, comparison: Mapping[str, Any]) -> None:
        """Write ``sweep.json``: what is to run and to compare, with its hash; a plan that it replaces is under ``earlier``."""
        runs = [{"run": name, "overrides": list(job.overrides)} for name, job in jobs.items()]
        plan = {"schema": 1, "overrides": list(overrides), "jobs": runs, "comparison": comparison}
        digest = plan_hash(plan)
        file = self.path / "sweep.json"
        before = read_json(file)
        if before.get("hash") == digest:
            return
        earlier = [*before.get("earlier", []), {k: before[k] for k in ("hash", "created")}] if before else []
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_sealed(file, {"created": now, "hash": digest, **plan, "earlier": earlier})

    def write_job(self, name: str, config: Config, hydra: Mapping[str, str]) -> None:
        """Write a job's checked config for the process that the launcher starts."""
        write_sealed(self.path / "jobs" / f"{name}.json", {"config": asdict(config), "hydra": dict(hydra)})

    def read_job(self, name: str) -> tuple[Config, dict[str, str]]:
        """A job's checked config, and the texts for its run folder's ``.hydra/``."""
        content = read_json(self.path / "jobs" / f"{name}.json")
        config = to_config(OmegaConf.create(content["config"]))
        assert isinstance(config, Config)
        return config, content["hydra"]

    def run_of(self, name: str) -> RunFolder:
        """The run folder of a job: the newest, where it was run again in a new one."""
        path, number = self.path / name, 2
        while (newer := self.path / f"{name}-{number}").is_dir():
            path, number = newer, number + 1
        return RunFolder(path)

    def fail(self, name: str, config: Config, error: str) -> None:
        """Record a job that could not even start."""
        run = self.run_of(name)
        write_atomic(run.path / "config.yaml", yaml.safe_dump(asdict(config), sort_keys=False))
        run.fail(error)


@contextmanager
def watched(folder: SweepFolder, names: Sequence[str], waiting: Sequence[str]) -> Iterator[None]:
    """Print the jobs' states while the body runs them: a line when one has ended, else now and then."""
    finished = [folder.run_of(name).state for name in names].count("finished")
    already = f", {finished} of them finished before" if finished else ""
    print(f"{len(names)} jobs{already}: {folder.path}", flush=True)
    ended = threading.Event()

    def watch() -> None:
        start, printed, done, last = time.monotonic(), 0.0, -1, False
        with console().status("") as status:  # at the foot of a terminal; nothing elsewhere
            while not last:
                last = ended.wait(SECONDS_BETWEEN_LOOKS)
                now, before = time.monotonic(), done
                states = {name: folder.run_of(name).state for name in names}
                done = sum(state in ENDED for state in states.values())
                status.update(line := states_line(states, waiting, now - start))
                if done != before or (not last and now - printed > LINE_EVERY_SECONDS):
                    printed = now
                    print(line, flush=True)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def states_line(states: Mapping[str, str], waiting: Sequence[str], seconds: float) -> str:
    """``jobs: 3 finished, 1 running, 8 pending; about 4 min left``, from the pace of the waiting ones in ``seconds``."""
    values = list(states.values())
    counts = [f"{values.count(state)} {state}" for state in STATES if state in values]
    done = sum(states[name] in ENDED for name in waiting)
    left = seconds / done * (len(waiting) - done) if done else 0
    return f"jobs: {', '.join(counts)}" + (f"; about {duration(left)} left" if left else "")
