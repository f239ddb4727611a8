"""A run folder: its status, its lock, and which folder a run goes into."""

import fcntl
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from histo_lightning.errors import UserError, error_line
from histo_lightning.runs.manifest import read_json, reopen, write_sealed
from histo_lightning.runs.version import __version__

LIBRARIES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "numpy", "scipy")


def git_commit() -> str | None:
    """The commit of this package's own checkout, with ``+`` where files differ from it; None outside a checkout."""
    root = Path(__file__).resolve().parents[3]
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    options: Any = {"cwd": root, "stderr": subprocess.DEVNULL, "text": True, "timeout": 10}
    with suppress(OSError, subprocess.SubprocessError):
        if (root / ".git").exists():
            return str(subprocess.check_output(command, **options)).strip()
    return None


def versions() -> dict[str, str]:
    """Versions of this package, Python and the libraries that numbers depend on."""
    libraries = {name: version(name) for name in LIBRARIES}
    return {"histo_lightning": __version__, "python": platform.python_version()} | libraries


class RunFolder:
    """One run's folder. ``status.json`` holds its state; the run is alive while ``.lock`` is held, whatever the file says."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def status(self) -> dict[str, Any]:
        return read_json(self.path / "status.json")

    def update(self, **changes: Any) -> None:
        """Change entries of ``status.json``."""
        reopen(self.path)
        write_sealed(self.path / "status.json", self.status | changes)

    @contextmanager
    def locked(self, wait: bool = False) -> Iterator[None]:
        """Hold the folder's lock; with ``wait`` after whoever holds it, else UserError where another process does."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", timeout=-1 if wait else 0).acquire()
        except OSError as error:
            problem = f"cannot be made ({error.strerror}); choose another output_dir"
            if isinstance(error, Timeout):
                problem = "another process is working in it; wait for it, or use resume=never"
            raise UserError(f"{self.path}: {problem}") from error
        with lock:
            yield

    @property
    def alive(self) -> bool:
        """Whether a process holds the lock; looking takes nothing from others and leaves no file behind."""
        try:
            with (self.path / ".lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:  # without a lock file it was copied from elsewhere
            return isinstance(error, BlockingIOError)
        return False

    @property
    def state(self) -> str:
        """``pending`` (nothing there), ``running``, ``finished``, ``failed`` or ``interrupted`` (also: its process was killed)."""
        state = str(self.status.get("state") or "pending")
        if state != "running" or self.alive:
            return state
        state = str(self.status.get("state"))  # again: it may have ended between the two looks
        return "interrupted" if state == "running" else state

    @contextmanager
    def recorded(self, **identity: Any) -> Iterator[None]:
        """Run the body with its state in ``status.json``, also when it fails or is interrupted."""
        before, start = self.status, time.monotonic()
        seconds = float(before.get("seconds") or 0.0)
        started = datetime.now(UTC).isoformat(timespec="milliseconds")
        about = {"versions": versions(), "git_commit": git_commit(), "test_read": before.get("test_read", 0)}
        self.update(state="running", error=None, started=started, seconds=seconds, **about, **identity)
        state, reason = "finished", None
        try:
            yield
        except KeyboardInterrupt:
            state = reason = "interrupted"
            raise
        except BaseException as error:
            state, reason = "failed", error_line(error)
            if type(error).__module__.startswith("submitit"):  # raised by its signal handler
                state, reason = "interrupted", f"its time was up ({error})"
            raise
        finally:
            self.update(state=state, error=reason, seconds=round(seconds + time.monotonic() - start, 3))

    def fail(self, error: str) -> None:
        """Record a run that could not even start."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.update(state="failed", error=error, started=now, seconds=0.0)


def choose_folder(parent: Path, name: str, resume: str, identity: Mapping[str, Any]) -> RunFolder:
    """The folder of the very same experiment (config, split, data, version), to resume or report, else a new ``<name>-2``, ..."""
    for number in count(1):
        folder = RunFolder(parent / (name if number == 1 else f"{name}-{number}"))
        try:
            status = folder.status
        except UserError:
            if resume != "never":
                raise
            continue
        unused = not identity.keys() & status.keys()  # or it failed before its data were read
        if unused or (resume != "never" and identity.items() <= status.items()):
            break
    return folder
