"""Files written in one step or not at all, and JSON that is never silently empty."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from histo_lightning.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A temporary file that takes the place of ``path`` (fsync, rename) if the body succeeds, and is removed if not."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # the folder itself may be what is wrong
            temporary.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file in one step, or nothing; UserError without permission or on a full disk."""
    try:
        with replacing(path) as file:
            file.write(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); free space or choose output_dir"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused, since they are not JSON."""
    write_atomic(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, empty where there is no file; UserError where the file is damaged."""
    reason = "a JSON object is expected"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(value, dict):
            return value
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not JSON"
    raise UserError(f"{path}: is damaged ({reason}); restore it, or move its folder away and run again")
