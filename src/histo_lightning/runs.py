"""A run folder: its name, atomic writes, its lock and status, and whether a run is to be resumed."""

import fcntl
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import histo_lightning
from histo_lightning.errors import UserError

REPORTED_VERSIONS = (
    "torch",
    "torchvision",
    "pytorch-lightning",
    "torchmetrics",
    "hydra-core",
    "numpy",
    "scipy",
)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a whole file or nothing: temporary file beside it, fsync, rename.

    Raises:
        UserError: no permission, or the disk is full; nothing half-written is left.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # the folder itself may be what is wrong
            temporary.unlink(missing_ok=True)
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); free space or choose output_dir"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused, since they are not JSON."""
    write_atomic(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty dict where the file is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def git_commit() -> str | None:
    """The commit of this package's own checkout, with ``+`` where files differ from it; None outside a checkout."""
    here = Path(histo_lightning.__file__).resolve().parents[2]
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
    found = {"histo_lightning": histo_lightning.__version__, "python": platform.python_version()}
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
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock.

        Raises:
            UserError: another process works in the folder, or it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be made ({error.strerror}); choose another output_dir"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(
                    f"{self.path}: another process is working in it; wait for it, or use resume=never"
                ) from error
            yield

    @contextmanager
    def recorded(self, **identity: Any) -> Iterator[None]:
        """Run the body with ``status.json`` telling its state, also when it fails or is interrupted."""
        before = self.status
        start = time.monotonic()
        self.update(
            state="running",
            error=None,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
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
        except BaseException as error:
            self.update(state="failed", error=f"{type(error).__name__}: {error}", seconds=seconds())
            raise
        self.update(state="finished", seconds=seconds())

    def matches(self, identity: Mapping[str, Any]) -> bool:
        """Whether the folder holds the very same experiment: config, split, data and package version."""
        status = self.status
        return all(status.get(key) == value for key, value in identity.items())


def choose_folder(parent: Path, name: str, resume: str, identity: Mapping[str, Any]) -> RunFolder:
    """The folder of a run: the same one again to go on or to report, else a new ``<name>-2``, ``-3``, ..."""
    number = 1
    while True:
        folder = RunFolder(parent / (name if number == 1 else f"{name}-{number}"))
        if not folder.status or (resume != "never" and folder.matches(identity)):
            return folder
        number += 1
