"""Run folders as they lie on disk, below any folders, from any machine: read whatever their state.

A run that cannot be used is a :class:`Run` all the same, with its state and the reason: it is never passed over.
"""

import fcntl
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from histo_lightning.config.checks import flatten
from histo_lightning.config.schema import Config
from histo_lightning.errors import UserError
from histo_lightning.evaluation.table import Table
from histo_lightning.evaluation.table_csv import read_predictions
from histo_lightning.runs import read_json

Json = Mapping[str, Any]

FINISHED, DAMAGED, MISSING = "finished", "damaged", "missing"
STATES = (FINISHED, "running", "interrupted", "failed", MISSING, DAMAGED)
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One run, or a planned job that left no folder.

    Attributes:
        name: of the run folder.
        folder: None for a planned job without one.
        state: ``finished, running, interrupted, failed, missing`` (planned, not there) or ``damaged``.
        error: why it is not finished; empty for a finished run.
        config: dotted key to value, every key of the schema; empty where it is unknown.
        metrics, split, status: the files of these names; empty where they are missing.
        table: predictions on the test part; None where it was left unread.
        sweep: the sweep folder that holds it, or None.
        overrides: what the sweep set for this job.
    """

    name: str
    folder: Path | None
    state: str
    error: str = ""
    config: Json = field(default_factory=dict)
    metrics: Json = field(default_factory=dict)
    split: Json = field(default_factory=dict)
    status: Json = field(default_factory=dict)
    table: Table | None = None
    sweep: Path | None = None
    overrides: Sequence[str] = ()

    @property
    def label(self) -> str:
        """``LEAKY``, ``CASE-LEAKY (n images)``, ``GROUPING UNKNOWN``, or nothing for a split by case."""
        return str(self.split.get("label") or "")

    @property
    def finished(self) -> bool:
        return self.state == FINISHED

    @property
    def started(self) -> str:
        """ISO time of its last start, empty where it is unknown."""
        return str(self.status.get("started") or "")


@cache
def defaults() -> dict[str, Any]:
    """Every key of a training config with the schema's value: what a run of an older version used."""
    return dict(flatten(asdict(Config())))


def flat_config(content: Json) -> dict[str, Any]:
    """A nested config with dotted keys; keys that it does not hold have the schema's value."""
    return defaults() | dict(flatten(content))


def is_alive(folder: Path) -> bool:
    """Whether a process works in a run folder: it then holds the folder's lock."""
    try:
        with (folder / ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock file: copied from elsewhere
        return False
    return False


def read_run(folder: Path) -> Run:
    """Read one run folder; never raises for what is wrong inside it."""
    status = read_json(folder / "status.json")
    run = Run(
        name=folder.resolve().name,
        folder=folder,
        state=str(status.get("state") or ""),
        error=str(status.get("error") or ""),
        metrics=read_json(folder / "metrics.json"),
        split=read_json(folder / "split.json"),
        status=status,
    )
    try:
        run = replace(run, config=_read_config(folder / "config.yaml"))
    except UserError as error:
        return _damaged(run, str(error)) if run.state not in ("failed", "interrupted") else _settled(run)
    run = _settled(run)
    if not run.finished:
        return run
    try:
        return replace(run, table=_checked(run, folder), error="")
    except UserError as error:
        return _damaged(run, str(error))


def _damaged(run: Run, why: str) -> Run:
    return replace(run, state=DAMAGED, error=why)


def _settled(run: Run) -> Run:
    """The state that a run is in, whatever its text says."""
    if run.state not in (FINISHED, "running", "interrupted", "failed"):
        return _damaged(run, "status.json is missing or damaged")
    if run.state == "running" and run.folder is not None and not is_alive(run.folder):
        return replace(
            run, state="interrupted", error="killed: its status says running, but no process holds its lock"
        )
    return run


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_bytes(), _Loader)
    except (OSError, yaml.YAMLError) as error:
        first = str(getattr(error, "strerror", None) or error).splitlines()[0]
        raise UserError(f"config.yaml cannot be read ({first})") from error
    if not isinstance(content, dict) or not content:
        raise UserError("config.yaml holds no settings")
    return flat_config({str(key): value for key, value in content.items()})


def _checked(run: Run, folder: Path) -> Table | None:
    """The test predictions of a finished run, whose files all have to be there and to agree."""
    if "best_epoch" not in run.metrics:
        raise UserError("metrics.json is missing or damaged")
    parts = run.split.get("parts")
    if not isinstance(parts, dict) or not run.split.get("partition_hash"):
        raise UserError("split.json is missing or damaged")
    if run.metrics.get("test") is None:
        return None
    table = read_predictions(folder / "predictions" / "test.csv")
    if sorted(table.image.tolist()) != sorted(parts.get("test") or []):
        raise UserError("predictions/test.csv and the test part of split.json hold different images")
    return table
