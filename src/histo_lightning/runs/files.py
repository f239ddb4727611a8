"""Files written in one step or not at all, and beside other work; CSV that is safe in a spreadsheet."""

import fcntl
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from numbers import Number
from pathlib import Path
from typing import Any, BinaryIO

from histo_lightning.errors import UserError


def utf8(text: str) -> bytes:
    """The bytes of a text; a file name that is not UTF-8 gets its own back."""
    return text.encode("utf-8", "surrogateescape")


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """A temporary file that replaces ``path`` (``durable``: after an fsync) if the body succeeds, and is removed if not."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{escape(path.name)}.*.tmp"):
            with suppress(OSError), left.open("rb") as file:  # of a killed writer: a living one holds a lock
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
        with temporary.open("w+b") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
            temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # the folder itself may be what is wrong
            temporary.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, content: str | bytes, durable: bool = True) -> None:
    """Write a file in one step, or nothing; UserError without permission or on a full disk."""
    data = utf8(content) if isinstance(content, str) else content
    try:
        if path.exists() and not path.is_file():  # /dev/stdout: nothing to be replaced
            path.write_bytes(data)
            return
        with replacing(path, durable) as file:
            file.write(data)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be written ({reason}); free space or choose output_dir") from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused, since they are not JSON."""
    write_atomic(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def quote_cell(cell: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would run as a formula, or that looks quoted already."""
    return f"'{cell}" if re.match(r"[=+\-@\t\r]|'[=+\-@\t\r']", cell) else cell


def unquote_cell(cell: str) -> str:
    """The text that ``quote_cell`` was given."""
    return cell[1:] if re.match(r"'[=+\-@\t\r']", cell) else cell


def _csv_cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, Number):
        return str(value)
    cell = quote_cell(str(value))
    # csv.writer leaves a lone carriage return bare under a "\n" line end, and no reader gets it back then.
    return '"' + cell.replace('"', '""') + '"' if any(c in cell for c in ',"\r\n') else cell


def write_csv(path: Path, rows: Iterable[Iterable[Any]], durable: bool = True) -> None:
    """Write rows as CSV in one step: None and NaN are empty cells, floats come back bit-identical, texts unchanged."""
    text = "".join(",".join(map(_csv_cell, row)) + "\n" for row in rows)
    write_atomic(path, text, durable)


@contextmanager
def beside(work: Callable[[], object], fork: bool) -> Iterator[None]:
    """Do ``work`` while the body is done, in a process of its own; after the body where ``fork`` is false, or not on Linux.

    ``work`` uses no thread pool, which a forked process lacks. If it fails there it is done again here, where its error is heard.
    """
    with warnings.catch_warnings(action="ignore"):  # Python 3.12: that this process has threads
        child = os.fork() if fork and sys.platform == "linux" else -1
    if child == 0:
        with suppress(BaseException):
            work()
            os._exit(0)
        os._exit(1)
    yield
    if child < 0 or os.waitpid(child, 0)[1]:
        work()
