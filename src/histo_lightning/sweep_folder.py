"""A sweep's folder: the plan written before the first job, and what became of each job.

``sweep.json`` is the plan; ``jobs/<job>.json`` tells a job's state and ``jobs/<job>.lock`` is held while it works, so that
two sweeps into one folder do each job once. A job that fails before it has a run folder leaves its reason here.
"""

import fcntl
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from histo_lightning.errors import UserError
from histo_lightning.runs import read_json, write_json
from histo_lightning.schema import Config

STATES = ("finished", "running", "pending", "failed", "interrupted")


@dataclass(frozen=True)
class Job:
    """One run of a sweep: its overrides as Hydra takes them, its checked config, and its name (``readable_name``)."""

    name: str
    overrides: tuple[str, ...]
    config: Config


def plan_of(overrides: Sequence[str], jobs: Sequence[Job], comparison: Mapping[str, Any]) -> dict[str, Any]:
    """What a sweep is to run and to compare, with a hash of it; it is fixed before the first job."""
    plan = {
        "schema": 1,
        "overrides": list(overrides),
        "jobs": [{"run": job.name, "overrides": list(job.overrides)} for job in jobs],
        "comparison": dict(comparison),
    }
    text = json.dumps(plan, sort_keys=True)
    return {"hash": hashlib.sha256(text.encode()).hexdigest()} | plan


class SweepFolder:
    """The folder of a sweep, ``<output_dir>/sweeps/<sweep_name>``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_plan(self, plan: Mapping[str, Any]) -> None:
        """Write ``sweep.json``; a plan that stands already is kept, another one is kept under ``earlier``.

        Raises:
            UserError: the folder cannot be written.
        """
        file = self.path / "sweep.json"
        before = read_json(file)
        if before.get("hash") == plan["hash"]:
            return
        earlier = [*before.get("earlier", []), {k: before[k] for k in ("hash", "created")}] if before else []
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(file, {"created": now, **plan, "earlier": earlier})

    def _file(self, name: str) -> Path:
        return self.path / "jobs" / f"{name}.json"

    @contextmanager
    def job(self, name: str, wait: bool = True) -> Iterator[bool]:
        """Hold a job's lock; True inside when it is held, False where another process has it and ``wait`` is False."""
        lock = self.path / "jobs" / f"{name}.lock"
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = lock.open("w")
        except OSError as error:
            raise UserError(
                f"{lock}: cannot be made ({error.strerror}); choose another output_dir"
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    @contextmanager
    def recorded(self, name: str) -> Iterator[dict[str, Any]]:
        """Run the body with the job's state on disk; put ``run`` (its folder's name) into the dict that is yielded."""
        started = datetime.now(UTC).isoformat(timespec="milliseconds")
        start = time.monotonic()
        entry: dict[str, Any] = {"state": "running", "error": None, "started": started, "seconds": 0.0}
        write_json(self._file(name), entry)
        try:
            yield entry
        except KeyboardInterrupt:
            entry |= {"state": "interrupted", "error": "interrupted"}
            raise
        except UserError as error:
            entry |= {"state": "failed", "error": str(error)}
            raise
        except BaseException as error:
            if type(error).__module__.startswith("submitit"):  # raised by its signal handler
                entry |= {"state": "interrupted", "error": f"its time was up ({error})"}
            else:
                entry |= {"state": "failed", "error": f"defect: {type(error).__name__}: {error}"}
            raise
        else:
            entry["state"] = "finished"
        finally:
            write_json(self._file(name), entry | {"seconds": round(time.monotonic() - start, 3)})

    def put_back(self, name: str) -> None:
        """Make a job that failed or was interrupted wait for its turn again."""
        if self.state(name)["state"] in ("failed", "interrupted"):
            write_json(self._file(name), {"state": "pending", "error": None})

    def fail(self, name: str, error: str) -> None:
        """Record a job that cannot even start."""
        started = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(self._file(name), {"state": "failed", "error": error, "started": started, "seconds": 0.0})

    def settle(self, name: str, run: str, status: Mapping[str, Any]) -> None:
        """Record a job that was finished before: ``run`` is its folder's name, ``status`` its ``status.json``."""
        entry = {"state": "finished", "error": None, "started": status.get("started"), "run": run}
        if read_json(self._file(name)).get("state") != "finished":
            write_json(self._file(name), entry | {"seconds": status.get("seconds")})

    def state(self, name: str) -> dict[str, Any]:
        """A job's entry; ``interrupted`` where it says running and no process works on it."""
        entry = read_json(self._file(name)) or {"state": "pending", "error": None}
        if entry["state"] == "running":
            with self.job(name, wait=False) as idle:
                again = read_json(self._file(name)) or entry
            if idle and again["state"] == "running":
                return again | {"state": "interrupted", "error": "its process was killed"}
            return again
        return entry
