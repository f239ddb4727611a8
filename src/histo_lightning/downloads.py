"""Downloads: a file from the web, whole or not at all, resumed where a connection or a process died.

The bytes gather in ``.<name>.part`` beside the target. ``.<name>.part.json`` says which version of the remote file
they belong to (ETag, Last-Modified, length), so that a file that changed on the server starts from zero.
"""

import fcntl
import hashlib
import http.client
import json
import logging
import os
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from email.message import Message
from io import FileIO
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from histo_lightning import __version__
from histo_lightning.errors import UserError
from histo_lightning.runs import read_json

log = logging.getLogger("histo_lightning")
Progress = Callable[[int, int], None]
CHUNK_BYTES = 1 << 20
FIRST_PAUSE_SECONDS = 0.5  # doubles with every attempt that brought nothing
LONGEST_PAUSE_SECONDS = 8.0
ASK_AGAIN = (408, 429)  # the statuses below 500 that pass by themselves
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class _DiskError(Exception):
    """The part file cannot be written; asking the server again would not help."""


def fetch(
    url: str,
    target: Path,
    *,
    key: str,
    timeout_seconds: float = 60.0,
    attempts: int = 5,
    progress: Progress | None = None,
    check: Callable[[str], None] | None = None,
    advice: str = "check the address",
) -> str:
    """Download a file; what an earlier call or a killed process had received is not asked for again.

    Two processes that want the same target take turns, and the second uses what the first has brought.

    Args:
        url: ``http:``, ``https:`` or ``file:``.
        target: replaced in one step when the download is whole; its folder is made.
        key: what the user set to this URL, the start of every error (``dataset.url``).
        timeout_seconds: longest silence of the server.
        attempts: how often the server is asked without a new byte before this fails.
        progress: called with (bytes here, bytes in all; 0 where the server does not say).
        check: called with the SHA-256 before the target is touched; where it raises, the download is thrown away.
        advice: what else the user can do, for the error.

    Returns:
        The SHA-256 of the file as hexadecimal text.

    Raises:
        UserError: no such address, no connection, a server that never sends the whole, or no room on the disk.
    """
    goes_on = False
    try:
        attempts = _checked_attempts(url, attempts)
        target.parent.mkdir(parents=True, exist_ok=True)
        before = _identity(target)
        with exclusive(target.with_name(f".{target.name}.part")) as file:
            part = _Part(file, target.with_name(f".{target.name}.part"), url)
            try:
                if _identity(target) not in (None, before):
                    part.discard()
                    return _checked(target, check)  # another process brought it while this one waited
                _receive_all(part, url, timeout_seconds, attempts, progress)
                return part.finish(target, check)
            except BaseException:
                goes_on = part.resumable
                if not goes_on:
                    part.discard()
                raise
    except (OSError, ValueError, http.client.HTTPException, _DiskError) as error:
        again = "the same command goes on where it stopped" if goes_on else "try again"
        raise UserError(
            f"{key}={url}: cannot be downloaded to {target.parent} ({_reason(error, timeout_seconds)}); "
            f"{again}, or {advice}"
        ) from error


@contextmanager
def exclusive(path: Path) -> Iterator[FileIO]:
    """Open a file for appending under an exclusive lock; waits where another process holds it.

    The holder may rename or remove the file: who waited for it then gets a fresh one of that name.

    Raises:
        OSError: the file cannot be made or locked.
    """
    while True:
        with path.open("ab", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("waiting for another process that works on %s", path)
                fcntl.flock(file, fcntl.LOCK_EX)
            if _identity(path) == _identity(file.fileno()):
                yield file
                return


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class _Version:
    """What a server says to know its file again; ``total`` is its length in bytes, None where it is not said."""

    etag: str
    modified: str
    total: int | None

    @property
    def validator(self) -> str:
        """What ``If-Range`` may carry; a weak ETag does not promise the same bytes."""
        return self.modified if self.etag.startswith("W/") else self.etag or self.modified

    def is_continued_by(self, headers: Message, total: int | None) -> bool:
        """Whether a partial answer belongs to this version: some servers heed Range and not If-Range."""
        for name, kept in (("ETag", self.etag), ("Last-Modified", self.modified)):
            said = headers.get(name)
            if kept and said and said != kept:
                return False
        return total is None or self.total is None or total == self.total


class _Part:
    """The part file under its lock, with the version of the remote file that its bytes belong to."""

    def __init__(self, file: FileIO, path: Path, url: str) -> None:
        self.file, self.path, self.url = file, path, url
        self.there = True
        self.side = path.with_name(path.name + ".json")
        self.size = os.fstat(file.fileno()).st_size
        self.version = self._kept_version()

    def _kept_version(self) -> _Version | None:
        kept = read_json(self.side)
        total = kept.get("total")
        if kept.get("url") != self.url or not isinstance(total, int | None):
            return None
        return _Version(str(kept.get("etag", "")), str(kept.get("modified", "")), total)

    @property
    def resumable(self) -> bool:
        """Without a validator nobody could say whether the rest is the rest of the same file."""
        if not self.there or self.size == 0 or self.version is None or not self.version.validator:
            return False
        return self.version.total is None or self.size <= self.version.total

    def begin(self, version: _Version) -> None:
        """Throw away what is there and gather the bytes of ``version``."""
        try:
            self.file.truncate(0)
            os.fsync(
                self.file.fileno()
            )  # old bytes beside the new version's name would be mixed after a crash
            self.size, self.version = 0, version
            self.side.write_text(json.dumps({"url": self.url, **asdict(version)}), encoding="utf-8")
        except OSError as error:
            raise _DiskError(error.strerror or str(error)) from error

    def write(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        try:
            while rest:
                written = self.file.write(rest)
                self.size += written
                rest = rest[written:]
        except OSError as error:
            raise _DiskError(error.strerror or str(error)) from error

    def finish(self, target: Path, check: Callable[[str], None] | None) -> str:
        """Give the whole file its name."""
        os.fsync(self.file.fileno())
        try:
            digest = _checked(self.path, check)
        except UserError:
            self.discard()
            raise
        self.path.replace(target)
        self.there = False
        self.side.unlink(missing_ok=True)
        return digest

    def discard(self) -> None:
        if self.there:  # once only: the next file of this name is another process's
            self.there = False
            self.path.unlink(missing_ok=True)
            self.side.unlink(missing_ok=True)


def _checked(path: Path, check: Callable[[str], None] | None) -> str:
    digest = sha256_of(path)
    if check is not None:
        check(digest)
    return digest


def _checked_attempts(url: str, attempts: int) -> int:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https", "file"):
        raise ValueError("only http, https and file addresses are known")
    if parts.scheme == "file":
        return 1  # a file that is not there does not come by waiting
    if not parts.hostname:
        raise ValueError("the address names no server")
    return attempts


def _identity(file: Path | int) -> tuple[int, int] | None:
    """Device and inode of a path or of an open file; None where there is no file."""
    try:
        stat = os.stat(file)  # noqa: PTH116 (takes a descriptor too)
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


def _receive_all(
    part: _Part, url: str, timeout_seconds: float, attempts: int, progress: Progress | None
) -> None:
    """Ask for the rest until it is here; only bytes beyond the furthest so far count as progress."""
    failures, furthest = 0, part.size if part.resumable else 0
    while True:
        try:
            _receive(part, url, timeout_seconds, progress)
            return
        except (OSError, http.client.HTTPException) as error:
            if part.size > furthest:
                failures, furthest = 0, part.size
            failures += 1
            if not _passes_by_itself(error) or failures >= attempts:
                raise
            log.info("%s: %s after %s bytes, asking again", url, _reason(error, timeout_seconds), part.size)
        time.sleep(min(FIRST_PAUSE_SECONDS * 2 ** (failures - 1), LONGEST_PAUSE_SECONDS))


def _passes_by_itself(error: Exception) -> bool:
    if isinstance(error, HTTPError):
        return error.code >= 500 or error.code in ASK_AGAIN
    return not isinstance(error, http.client.InvalidURL)


def _receive(part: _Part, url: str, timeout_seconds: float, progress: Progress | None) -> None:
    """One request: for the rest where something is here, else for the whole; returns when the part is whole."""
    headers = {"User-Agent": f"histo-lightning/{__version__}"}
    asked_for_rest = part.resumable
    if part.version is not None and asked_for_rest:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": part.version.validator}
    answer: Any
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout_seconds)
    except HTTPError as error:
        error.close()
        if error.code != 416 or not asked_for_rest:
            raise
        if not _is_whole(part, error.headers):
            part.begin(_Version("", "", None))
            raise OSError("the server has no rest to send, yet this is not the whole file") from error
        return
    with answer:
        if urlsplit(answer.url).scheme not in ("http", "https", "file"):
            raise OSError(f"the server leads to {answer.url}")
        stop = _place_answer(part, answer, asked_for_rest)
        _copy_body(part, answer, stop, progress)


def _is_whole(part: _Part, headers: Message) -> bool:
    """Whether "no such range" only says that nothing is left to send."""
    said = _number(headers.get("Content-Range", "").rpartition("/")[2])
    known = {total for total in (said, part.version and part.version.total) if total is not None}
    return known == {part.size}


def _place_answer(part: _Part, answer: Any, asked_for_rest: bool) -> int | None:
    """Make the part ready for an answer's body; returns the offset in bytes where that body ends, None if unsaid."""
    headers, status = answer.headers, answer.status
    if status in (None, 200):  # a file: address has no status
        chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
        total = None if chunked else _number(headers.get("Content-Length"))
        part.begin(_Version(headers.get("ETag", ""), headers.get("Last-Modified", ""), total))
        return total
    if status != 206 or not asked_for_rest or part.version is None:
        raise OSError(f"the server answered with HTTP status {status}")
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if (
        match is None
        or int(match[1]) != part.size
        or not part.version.is_continued_by(headers, _number(match[3]))
    ):
        part.begin(_Version("", "", None))
        raise OSError("the server sent something else than the rest of the file")
    if part.version.total is None and match[3] != "*":
        part.version = _Version(part.version.etag, part.version.modified, int(match[3]))
    return int(match[2]) + 1


def _copy_body(part: _Part, answer: Any, stop: int | None, progress: Progress | None) -> None:
    total = part.version.total if part.version else None
    if progress is not None:
        progress(part.size, total or 0)
    # read1 hands over what has come: with read, a cut would lose up to a chunk of received bytes. It does not
    # watch the announced length in every Python, and a server may keep the connection open after the last byte.
    while stop is None or part.size < stop:
        chunk = answer.read1(CHUNK_BYTES if stop is None else min(CHUNK_BYTES, stop - part.size))
        if not chunk:
            break
        part.write(chunk)
        if progress is not None:
            progress(part.size, total or 0)
    if total is not None and part.size < total:
        raise OSError(f"the connection was cut after {part.size} of {total} bytes")


def _number(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() else None


def _reason(error: object, timeout_seconds: float) -> str:
    if isinstance(error, TimeoutError):
        return f"the server was silent for {timeout_seconds:g} s"
    if isinstance(error, URLError) and not isinstance(error, HTTPError):
        return _reason(error.reason, timeout_seconds)
    return str(error) or type(error).__name__
