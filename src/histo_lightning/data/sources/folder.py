"""Folders of images: the files in one, how a new one appears in one step, and archives that are unpacked into one."""

import gzip
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from filelock import FileLock

from histo_lightning.data.breakhis.records import IMAGE_SUFFIXES
from histo_lightning.errors import UserError

Progress = Callable[[int, int], None]  # called with what is done, and what there is in all
MOST_MEMBERS = 200_000  # the full set has 8,000
MOST_BYTES = 64 * 2**30  # unpacked; the full set has 4 GB
LONGEST_HEADER = 2**20  # bytes
BLOCK_BYTES = 512  # of a tar; its end is two blocks of zeros


def image_paths(root: Path) -> list[str]:
    """Every image file below a folder, with ``/``, sorted; hidden files and macOS' ``__MACOSX`` are passed over."""
    start, paths = str(root), []
    for folder, folders, names in os.walk(start):
        folders[:] = [f for f in folders if not f.startswith(".") and f != "__MACOSX"]
        relative = os.path.relpath(folder, start).replace(os.sep, "/")
        prefix = "" if relative == "." else relative + "/"
        paths += [prefix + n for n in names if not n.startswith(".") and n.lower().endswith(IMAGE_SUFFIXES)]
    return sorted(paths)


@contextmanager
def new_folder(folder: Path, problem: str, advice: str = "choose another folder") -> Iterator[Path]:
    """An empty folder beside ``folder``, to be filled and renamed to it, else removed; processes take turns.

    An OSError inside becomes a UserError with ``problem``, the reason and the advice.
    """
    building = folder.with_name(f".{folder.name}.building")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            try:
                shutil.rmtree(building, ignore_errors=True)  # left by a killed process
                building.mkdir()
                yield building
            finally:
                shutil.rmtree(building, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{problem} ({error.strerror or error}); free space or {advice}") from error


class DamagedArchive(UserError):
    """The archive itself is at fault, so that the same one can never be read."""


class _Pieces:
    """A stream for tarfile, which reads files in pieces, but all of a header's texts at once, as long as they claim to be."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.seek, self.tell = stream, stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if size > LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return bytes(self.stream.read(size))


def unpack(archive: Path, folder: Path, progress: Progress | None = None) -> None:
    """Unpack an archive into a new folder, which appears in one step when all is there and verified; not into an old one.

    ``progress`` is called with (bytes of the archive read, bytes of the archive). DamagedArchive where it is cut off,
    damaged or no archive, leads outside the folder, or holds links or more than any copy of BreakHis; nothing is left.
    UserError where it cannot be read, or there is no room.
    """
    with new_folder(folder, f"{archive}: cannot be unpacked to {folder.parent}") as building:
        if folder.exists():
            return
        try:
            _unpack_all(archive, building, progress)
        except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError) as error:
            problem = f"damaged, cut off or no tar archive ({str(error) or type(error).__name__})"
            raise DamagedArchive(f"{archive}: {problem}; get it again") from error
        building.rename(folder)


def _unpack_all(archive: Path, folder: Path, progress: Progress | None) -> None:
    size = archive.stat().st_size
    paths: set[str] = set()
    total = zeros = 0
    with archive.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"  # browsers unpack some downloads and keep the name
        raw.seek(0)
        stream: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=raw) if packed else raw
        with tarfile.open(fileobj=cast(Any, _Pieces(stream)), mode="r:") as tar:
            while (entry := tar.next()) is not None:
                total += entry.size
                plain = entry.isreg() or entry.isdir()
                if not plain or entry.name.startswith("/") or ".." in entry.name.split("/"):
                    raise tarfile.ReadError(f"{entry.name} is a link, a device, or leads outside the folder")
                if entry.isreg() and entry.name in paths:
                    raise tarfile.ReadError(f"it holds {entry.name} more than once")
                paths.add(entry.name)
                if len(paths) > MOST_MEMBERS or total > MOST_BYTES:
                    raise tarfile.ReadError("it holds more files or bytes than any copy of BreakHis")
                mode = 0o755 if entry.isdir() else 0o644
                tar.extract(entry.replace(mode=mode, deep=False), folder, filter="data")
                if progress is not None:
                    progress(raw.tell(), size)
        while chunk := stream.read(1 << 20):  # to the last byte: tarfile takes a damaged header for the end
            if chunk.count(0) != len(chunk):
                raise tarfile.ReadError("a damaged header")
            zeros += len(chunk)
        if zeros < BLOCK_BYTES:
            raise tarfile.ReadError("its end is missing")
