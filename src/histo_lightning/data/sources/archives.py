"""Tar archives of images, unpacked once and completely; nothing in them is trusted.

They are read to the last byte: tarfile takes a damaged header for the end, and leaves gzip's checksum unread.
"""

import gzip
import hashlib
import tarfile
import zlib
from pathlib import Path
from typing import IO

from histo_lightning.data.sources.folder import Progress, new_folder
from histo_lightning.errors import UserError

SUFFIXES = (".tar.gz", ".tgz", ".tar")
MOST_MEMBERS = 200_000  # the full set has 8,000
MOST_BYTES = 64 * 2**30  # unpacked; the full set has 4 GB
BLOCK_BYTES = 512  # of a tar; its end is two blocks of zeros


class DamagedArchive(UserError):
    """The archive itself is at fault, so that the same one can never be read."""


def is_archive(path: Path) -> bool:
    """Whether a file is named like an archive that this module reads."""
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


def unpacked(archive: Path, cache_dir: Path, progress: Progress | None = None) -> Path:
    """The folder below ``cache_dir/archives`` with an archive's files; unpacked on first use, see :func:`unpack`.

    An archive with another path, size or time has another folder.
    """
    stat = archive.stat()
    text = f"{archive.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}"
    folder = cache_dir / "archives" / hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:24]
    if not folder.is_dir():
        unpack(archive, folder, progress)
    return folder


def unpack(archive: Path, folder: Path, progress: Progress | None = None) -> None:
    """Unpack an archive into a new folder, which appears in one step when all is there and verified.

    An existing folder is left alone. ``progress`` is called with (bytes of the archive read, bytes of the archive).

    Raises:
        DamagedArchive: cut off, damaged, or no archive; an entry with an absolute path or ``..``, a link, a device or
            a path twice; more files or bytes than any copy of BreakHis. Nothing is left.
        UserError: the archive cannot be read, or there is no room.
    """
    with new_folder(folder, f"{archive}: cannot be unpacked to {folder.parent}") as building:
        if folder.exists():
            return
        try:
            _unpack_all(archive, building, progress)
        except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise DamagedArchive(
                f"{archive}: damaged, cut off or no tar archive ({reason}); get it again"
            ) from error
        building.rename(folder)


def _unpack_all(archive: Path, folder: Path, progress: Progress | None) -> None:
    size = archive.stat().st_size
    paths: set[str] = set()
    total = zeros = 0
    with archive.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"  # browsers unpack some downloads and keep the name
        raw.seek(0)
        stream: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=raw) if packed else raw
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            while (entry := tar.next()) is not None:
                total += entry.size
                kind_allowed = entry.isreg() or entry.isdir()
                if not kind_allowed or entry.name.startswith("/") or ".." in entry.name.split("/"):
                    raise tarfile.ReadError(f"{entry.name} is a link, a device, or leads outside the folder")
                if entry.isreg() and entry.name in paths:
                    raise tarfile.ReadError(f"it holds {entry.name} more than once")
                paths.add(entry.name)
                if len(paths) > MOST_MEMBERS or total > MOST_BYTES:
                    raise tarfile.ReadError("it holds more files or bytes than any copy of BreakHis")
                plain = entry.replace(mode=0o755 if entry.isdir() else 0o644, deep=False)
                tar.extract(plain, folder, filter="data")
                if progress is not None:
                    progress(raw.tell(), size)
        while chunk := stream.read(1 << 20):
            if chunk.count(0) != len(chunk):
                raise tarfile.ReadError("a damaged header")
            zeros += len(chunk)
        if zeros < BLOCK_BYTES:
            raise tarfile.ReadError("its end is missing")
