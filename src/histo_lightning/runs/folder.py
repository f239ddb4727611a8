"""A run folder: its status, its lock, and which folder a run goes into."""

import fcntl
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from histo_lightning.errors import UserError
from histo_lightning.runs.files import read_json, write_json
from histo_lightning.runs.version import __version__

REPORTED_VERSIONS = (
    "torch",
    "torchvision",
    "pytorch-lightning",
    "torchmetrics",
    "hydra-core",
    "numpy",
    "scipy",
)


def git_commit() -> str | None:
    """The commit of this package's own checkout, with ``+`` where files differ from it; None outside a checkout."""
    here = Path(__file__).resolve().parents[3]
    if not (here / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    """Versions of this package, Python and what the numbers depend on."""
    found = {"histo_lightning": __version__, "python": platform.python_version()}
    return found | {name: version(name) for name in REPORTED_VERSIONS}


class RunFolder:
    """One run's folder. ``status.json`` says its state; the run is alive while ``.lock`` is held, whatever it says."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def status(self) -> dict[str, Any]:
        return read_json(self.path / "status.json")

    def update(self, **changes: Any) -> None:
        """Change entries of ``status.json``."""
        write_json(self.path / "status.json", self.status | changes)

    @contextmanager
    def locked(self, wait: bool = False) -> Iterator[None]:
        """Hold the folder's lock; ``wait`` for whoever holds it.

        Raises:
            UserError: another process works in the folder, or it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", timeout=-1 if wait else 0)
            lock.acquire()
        except Timeout as error:
            raise UserError(
                f"{self.path}: another process is working in it; wait for it, or use resume=never"
            ) from error
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be made ({error.strerror}); choose another output_dir"
            ) from error
        try:
            yield
        finally:
            lock.release()

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
        return "interrupted" if state == "running" and not self.alive and self._still_running() else state

    def _still_running(self) -> bool:
        return self.status.get("state") == "running"  # again: it may have ended between the two looks

    @contextmanager
    def recorded(self, **identity: Any) -> Iterator[None]:
        """Run the body with ``status.json`` telling its state, also when it fails or is interrupted."""
        before = self.status
        start = time.monotonic()
        self.update(
            state="running",
            error=None,
            started=datetime.now(UTC).isoformat(timespec="milliseconds"),
            seconds=before.get("seconds", 0.0),
            versions=versions(),
            git_commit=git_commit(),
            test_read=before.get("test_read", 0),
            **identity,
        )

        def seconds() -> float:
            return round(float(before.get("seconds") or 0.0) + time.monotonic() - start, 3)

        try:
            yield
        except KeyboardInterrupt:
            self.update(state="interrupted", error="interrupted", seconds=seconds())
            raise
        except UserError as error:
            self.update(state="failed", error=str(error), seconds=seconds())
            raise
        except BaseException as error:
            if type(error).__module__.startswith("submitit"):  # raised by its signal handler
                self.update(state="interrupted", error=f"its time was up ({error})", seconds=seconds())
            else:
                self.update(
                    state="failed", error=f"defect: {type(error).__name__}: {error}", seconds=seconds()
                )
            raise
        self.update(state="finished", seconds=seconds())

    def fail(self, error: str) -> None:
        """Record a run that could not even start."""
        started = datetime.now(UTC).isoformat(timespec="seconds")
        self.update(state="failed", error=error, started=started, seconds=0.0)

    def matches(self, identity: Mapping[str, Any]) -> bool:
        """Whether the folder holds the very same experiment: config, split, data and package version."""
        status = self.status
        return all(status.get(key) == value for key, value in identity.items())


def choose_folder(parent: Path, name: str, resume: str, identity: Mapping[str, Any]) -> RunFolder:
    """The folder of a run: the same one again to go on or to report, else a new ``<name>-2``, ``-3``, ..."""
    number = 1
    while True:
        folder = RunFolder(parent / (name if number == 1 else f"{name}-{number}"))
        unused = not any(key in folder.status for key in identity)  # or it failed before its data were read
        if unused or (resume != "never" and folder.matches(identity)):
            return folder
        number += 1
