"""Downloads: a file from the web, complete or absent, resumed where a connection or a process died.

The bytes gather in ``.<name>.part`` beside the target. ``.<name>.part.json`` says which version of the remote file
they belong to (ETag or Last-Modified, length), so that a file that changed on the server starts from zero.
"""

import errno
import http.client
import json
import logging
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from histo_lightning.data.sources.folder import Progress
from histo_lightning.errors import UserError
from histo_lightning.runs import read_json
from histo_lightning.runs.manifest import digest_of
from histo_lightning.runs.version import __version__

log = logging.getLogger("histo_lightning")
SCHEMES = ("http", "https", "file")
VERSION_HEADERS = ("ETag", "Last-Modified", "Content-Length")
CHUNK_BYTES = 1 << 20
MOST_BYTES = 2**34  # BreakHis has 4 GB; a server that never ends would fill the disk
FIRST_PAUSE_SECONDS = 0.5  # doubles with every attempt that brought nothing
LONGEST_PAUSE_SECONDS = 8.0
TEMPORARY_STATUSES = (408, 416, 429, *range(500, 600))  # after 416 the file is asked for from its start
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EFBIG)


def fetch(
    url: str, target: Path, *, key: str, advice: str = "check the address", timeout_seconds: float = 60.0,
    attempts: int = 5, progress: Progress | None = None,
) -> str:  # fmt: skip
    """Download a file (``http:``, ``https:`` or ``file:``); returns its SHA-256 as hexadecimal text.

    ``target`` is replaced in one step. What an earlier call or a killed process had received is not asked for again. Of two
    processes that want one target, the second uses what the first has brought. UserError where it cannot be had or stored.

    Args:
        key, advice: for errors, what the user set to this URL (``dataset.url``), and what else to do.
        timeout_seconds, attempts: longest silence of the server; requests that bring no new byte before this fails.
        progress: called with (bytes here, bytes in all; 0 where the server does not say).
    """
    part, size = target.with_name(f".{target.name}.part"), 0
    try:
        scheme, server = urlsplit(url).scheme, urlsplit(url).hostname
        if scheme not in SCHEMES or not (server or scheme == "file"):
            raise ValueError("only http, https and file addresses are known, with a server's name")
        if scheme == "file" and not Path(unquote(urlsplit(url).path)).is_file():  # /dev/zero never ends
            raise ValueError("no such file")
        target.parent.mkdir(parents=True, exist_ok=True)
        before = target.stat().st_ino if target.exists() else 0
        with FileLock(target.with_name(f".{target.name}.lock")):
            if target.exists() and target.stat().st_ino != before:  # another process brought it meanwhile
                return digest_of(target)
            try:
                _receive_all(url, part, timeout_seconds, attempts, progress or (lambda done, total: None))
                digest = digest_of(part)
                _note(part).unlink()  # a part without one is thrown away below
                part.replace(target)
            finally:
                size, _ = _received(url, part)
                if not size:
                    _discard(part)
        return digest
    except (OSError, ValueError, http.client.HTTPException) as error:
        again = "the same command resumes where it stopped" if size else "try again"
        problem = f"cannot be downloaded to {target.parent} ({_reason(error, timeout_seconds)})"
        raise UserError(f"{key}={url}: {problem}; {again}, or {advice}") from error


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _discard(part: Path) -> None:
    for path in (part, _note(part)):
        path.unlink(missing_ok=True)


def _received(url: str, part: Path) -> tuple[int, dict[str, Any]]:
    """How many bytes need not be asked for again, and the ``validator`` and ``total`` of the file they belong to."""
    try:
        version = read_json(_note(part))
    except UserError:  # a damaged note: the download starts anew
        version = {}
    size = part.stat().st_size if part.is_file() else 0
    # Without a validator nobody could say whether the rest is the rest of the same file.
    usable = version.get("url") == url and version.get("validator") and size <= (version.get("total") or size)
    return (size, version) if usable else (0, {})


def _receive_all(url: str, part: Path, timeout_seconds: float, attempts: int, progress: Progress) -> None:
    """Ask for the rest until it is here; only bytes beyond the furthest so far count as progress."""
    failures, furthest = 0, _received(url, part)[0]
    while True:
        try:
            return _receive(url, part, timeout_seconds, progress)
        except (OSError, http.client.HTTPException) as error:
            size, _ = _received(url, part)
            failures = 1 if size > furthest else failures + 1
            furthest = max(furthest, size)
            lasting = isinstance(error, http.client.InvalidURL) or getattr(error, "errno", 0) in DISK_ERRORS
            if isinstance(error, HTTPError):
                lasting = error.code not in TEMPORARY_STATUSES
            if lasting or failures >= attempts or url.startswith("file:"):
                raise
            log.info("%s: %s after %s bytes, asking again", url, error, size)
        time.sleep(min(FIRST_PAUSE_SECONDS * 2 ** (failures - 1), LONGEST_PAUSE_SECONDS))


def _receive(url: str, part: Path, timeout_seconds: float, progress: Progress) -> None:
    """One request, for the rest or for everything; returns when the part is complete."""
    size, version = _received(url, part)
    if size and size == version["total"]:
        return
    headers = {"User-Agent": f"histo-lightning/{__version__}"}
    if size:
        headers |= {"Range": f"bytes={size}-", "If-Range": version["validator"]}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout_seconds)
    except HTTPError as error:
        error.close()
        if error.code == 416:
            _discard(part)
        raise
    with answer:
        if urlsplit(answer.url).scheme not in SCHEMES or answer.status not in (None, 200, 206):
            raise OSError(f"the server answered with HTTP status {answer.status} from {answer.url}")
        if answer.status != 206:
            etag, modified, length = (answer.headers.get(name, "") for name in VERSION_HEADERS)
            validator = modified if etag.startswith("W/") else etag or modified  # weak: not the same bytes
            total = int(length) if length.isdigit() else None
            size, version = 0, {"url": url, "validator": validator, "total": total}
            part.write_bytes(b"")  # first: old bytes beside the new note would be mixed after a crash
            _note(part).write_text(json.dumps(version), encoding="utf-8")
        else:  # the answer must begin where the part ends, in the same file: some servers ignore If-Range
            first, _, length = answer.headers.get("Content-Range", "").strip().partition("/")
            names = [name for key in VERSION_HEADERS[:2] if (name := answer.headers.get(key))]
            same_file = version.get("validator") in names or not names
            known = version.get("total") in (None, int(length) if length.isdigit() else -1) or length == "*"
            if not (size > 0 and first.startswith(f"bytes {size}-") and same_file and known):
                _discard(part)
                raise OSError("the server sent something else than the rest of the file")
        total = version["total"]
        progress(size, total or 0)
        with part.open("ab") as file:
            # read1 hands over what has come; read would lose up to a chunk of it at a cut.
            while chunk := answer.read1(min(CHUNK_BYTES, total - size) if total else CHUNK_BYTES):
                file.write(chunk)
                file.flush()
                size += len(chunk)
                if size > MOST_BYTES:
                    raise OSError(errno.EFBIG, f"more than {MOST_BYTES // 2**30} GiB")
                progress(size, total or 0)
    if size < (total or 0):
        raise OSError(f"the connection was cut after {size} of {total} bytes")


def _reason(error: object, timeout_seconds: float) -> str:
    if isinstance(error, TimeoutError):
        return f"the server was silent for {timeout_seconds:g} s"
    if isinstance(error, URLError) and not isinstance(error, HTTPError):
        return _reason(error.reason, timeout_seconds)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
