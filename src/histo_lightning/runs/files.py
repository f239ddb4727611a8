"""Files that are whole or absent: atomic writes, and JSON that is never silently empty."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from histo_lightning.errors import UserError


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
    """Read a JSON object; an empty dict where there is no such file.

    Raises:
        UserError: the file is there and cannot be read as a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not JSON"
        raise UserError(
            f"{path}: is damaged ({reason}); restore it, or move its folder away and run the command again"
        ) from error
    if not isinstance(value, dict):
        raise UserError(
            f"{path}: is damaged (a JSON object is expected); restore it, or move its folder away and run the command again"
        )
    return value
