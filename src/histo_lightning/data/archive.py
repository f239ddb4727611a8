"""Images inside a tar archive: listed, read in one pass, or extracted, and nothing in it is trusted.

Python's tarfile takes a damaged header in mid-archive for the end and leaves gzip's checksum unread; every whole pass
here therefore reads on to the last byte.
"""

import gzip
import hashlib
import json
import shutil
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from histo_lightning.data.records import IMAGE_SUFFIXES
from histo_lightning.downloads import Progress, exclusive
from histo_lightning.errors import UserError
from histo_lightning.runs import read_json, write_json

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar")
VERSION = 1
BLOCK_BYTES = 512  # of a tar; its end is two blocks of zeros
CHUNK_BYTES = 1 << 20
_DAMAGE = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)


class DamagedArchive(UserError):
    """The archive itself is at fault, so that the same one can never be read."""


@dataclass(frozen=True, slots=True)
class Member:
    """An image in an archive: its path with ``/``, its size in bytes, its time of change in nanoseconds."""

    path: str
    size: int
    mtime: int


def is_archive(path: Path) -> bool:
    """Whether a path is named like an archive that this module reads, and is not a folder."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES) and not path.is_dir()


def list_members(archive: Path, cache_dir: Path) -> list[Member]:
    """All images of an archive, in its order; hidden files and macOS' additions are passed over, as are links.

    The first call reads the whole archive, and so verifies it; the list is kept in ``cache_dir/archives``.

    Raises:
        UserError: no such file, damaged, the same path twice, or the list cannot be kept.
    """
    kept = cache_dir / "archives" / f"{_key(archive)}.json"
    members = _kept_members(kept)
    if members is None:
        with _opened(archive) as opened:
            members = [
                Member(path, entry.size, int(entry.mtime * 1_000_000_000))
                for entry in opened.entries()
                if entry.isreg() and (path := _safe_path(entry.name)) and _is_image(path)
            ]
        twice = [path for path, count in Counter(member.path for member in members).items() if count > 1]
        if twice:
            raise UserError(f"{archive}: holds {twice[0]} more than once; pack it anew with one copy of each")
        try:
            rows = [list(astuple(member)) for member in members]
            write_json(kept, {"version": VERSION, "checksum": _checksum(rows), "members": rows})
        except UserError as error:
            raise UserError(
                f"{kept.parent}: the list of an archive's images cannot be written; free space or set cache_dir"
            ) from error
    return members


def read_members(archive: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """The bytes of some members by path, in the archive's order, in one pass that ends when all were found.

    Where the last member is among them, the archive's checksum is read too, after that member was handed out.

    Raises:
        UserError: no such file, damaged up to there, or a member is missing.
    """
    missing = set(wanted)
    if not missing:
        return
    with _opened(archive) as opened:
        for entry in opened.entries():
            if not missing:
                return
            path = _safe_path(entry.name)
            if path in missing and entry.isreg():
                missing.remove(path)
                yield path, opened.read(entry)
    if missing:
        raise UserError(
            f"{archive}: {len(missing)} file(s) are not in it, e.g. {min(missing)}; give the archive that was listed"
        )


def read_chosen(archive: Path, choose: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Path and bytes of every regular file whose path is chosen; reads, and so verifies, the whole archive.

    Raises:
        UserError: no such file, or damaged.
    """
    with _opened(archive) as opened:
        for entry in opened.entries():
            path = _safe_path(entry.name)
            if path and entry.isreg() and choose(path):
                yield path, opened.read(entry)


def extract(archive: Path, folder: Path, progress: Progress | None = None) -> int:
    """Extract an archive into a new folder, which appears in one step when all is there and verified.

    Args:
        folder: must be missing or empty.
        progress: called with (bytes of the archive read, bytes of the archive).

    Returns:
        The number of files.

    Raises:
        UserError: damaged; an entry with an absolute path or ``..``, a link or a device; no room. Nothing is left.
    """
    building = folder.with_name(f".{folder.name}.extracting")
    lock = folder.with_name(f".{folder.name}.lock")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(lock):
            try:
                if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                    raise UserError(f"{folder}: is there already; remove it, or choose another folder")
                shutil.rmtree(building, ignore_errors=True)  # left by a killed process
                building.mkdir()
                count = _extract_all(archive, building, progress)
                building.rename(folder)
            finally:
                shutil.rmtree(building, ignore_errors=True)
                lock.unlink(missing_ok=True)
    except OSError as error:
        raise _not_extracted(archive, folder, error) from error
    return count


def _extract_all(archive: Path, folder: Path, progress: Progress | None) -> int:
    count = 0
    with _opened(archive) as opened:
        for entry in opened.entries():
            if _safe_path(entry.name) is None or not (entry.isreg() or entry.isdir()):
                raise DamagedArchive(
                    f"{archive}: {entry.name} is a link, a device, or leads outside the folder; nothing was "
                    "extracted, get the archive from its authors"
                )
            if entry.isreg():
                opened.extract(entry, folder)
                count += 1
            if progress is not None:
                progress(opened.raw.tell(), opened.size)
    return count


def _not_extracted(archive: Path, folder: Path, error: OSError) -> UserError:
    return UserError(
        f"{archive}: cannot be extracted to {folder.parent} ({error.strerror or error}); "
        "free space or choose another folder"
    )


def _key(archive: Path) -> str:
    try:
        stat = archive.stat()
    except OSError as error:
        raise _unreadable(archive, error) from error
    text = f"{VERSION}\0{archive.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}"
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:24]


def _checksum(rows: list[list[str | int]]) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _kept_members(path: Path) -> list[Member] | None:
    """An intact list, else None."""
    found = read_json(path)
    try:
        if found["checksum"] != _checksum(found["members"]):
            return None
        return [Member(str(path), int(size), int(mtime)) for path, size, mtime in found["members"]]
    except (KeyError, TypeError, ValueError):
        return None


def _safe_path(name: str) -> str | None:
    """A stored path without ``./``; None where it would lead outside of the folder it is extracted to."""
    path = PurePosixPath(name)
    return None if path.is_absolute() or ".." in path.parts else path.as_posix()


def _is_image(path: str) -> bool:
    parts = path.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and parts[-1].lower().endswith(IMAGE_SUFFIXES)


class _Opened:
    """An archive in the middle of its one pass. ``raw`` tells how many of its ``size`` bytes were read."""

    def __init__(
        self, path: Path, raw: IO[bytes], stream: IO[bytes] | gzip.GzipFile, tar: tarfile.TarFile
    ) -> None:
        self.path, self.raw, self.stream, self.tar = path, raw, stream, tar
        self.size = path.stat().st_size

    def entries(self) -> Iterator[tarfile.TarInfo]:
        """Every entry; after the last one the end is verified."""
        while (entry := self._next()) is not None:
            yield entry
        zeros = 0
        while chunk := self.stream.read(CHUNK_BYTES):
            if chunk.count(0) != len(chunk):
                raise tarfile.ReadError("a damaged header")
            zeros += len(chunk)
        if zeros < BLOCK_BYTES:
            raise tarfile.ReadError("its end is missing")

    def _next(self) -> tarfile.TarInfo | None:
        try:
            return self.tar.next()
        except ValueError as error:  # a damaged extended header
            raise tarfile.ReadError(str(error)) from error

    def read(self, entry: tarfile.TarInfo) -> bytes:
        file = self.tar.extractfile(entry)
        if file is None:
            raise tarfile.ReadError(f"{entry.name} is no file")
        with file:
            return file.read()

    def extract(self, entry: tarfile.TarInfo, folder: Path) -> None:
        plain = entry.replace(mode=0o644, deep=False)
        try:
            self.tar.extract(plain, folder, filter="data")
        except OSError as error:
            if error.errno is None:  # gzip's own: the archive is damaged
                raise
            raise _not_extracted(self.path, folder, error) from error


@contextmanager
def _opened(archive: Path) -> Iterator[_Opened]:
    try:
        with ExitStack() as stack:
            raw = stack.enter_context(archive.open("rb"))
            packed = raw.read(2) == b"\x1f\x8b"  # browsers unpack some downloads and keep the name
            raw.seek(0)
            stream: IO[bytes] | gzip.GzipFile = raw
            if packed:
                stream = stack.enter_context(gzip.GzipFile(fileobj=raw))
            tar = stack.enter_context(tarfile.open(fileobj=stream, mode="r:"))
            yield _Opened(archive, raw, stream, tar)
    except _DAMAGE as error:
        raise DamagedArchive(
            f"{archive}: damaged, cut off or no tar archive ({str(error) or type(error).__name__}); get it again"
        ) from error
    except OSError as error:
        raise _unreadable(archive, error) from error


def _unreadable(archive: Path, error: OSError) -> UserError:
    return UserError(
        f"{archive}: cannot be read ({error.strerror or error}); give the archive that holds the images"
    )
