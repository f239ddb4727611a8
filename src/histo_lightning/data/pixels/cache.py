"""Verified uint8 pixels on disk: every image decoded once, shared by every run.

A data set is stored in shards, one a magnification, so that runs at one magnification decode no other, and all folds
and ways to split share them. A shard is a folder ``pixels/<key>/`` with ``pixels.npy`` (uint8, image x height x width
x 3, memory-mapped) and ``index.json``. The key hashes the files' names, sizes and times, the canvas and
:data:`VERSION`. It is built under a lock in a temporary folder and renamed, so a folder of that name is whole; the
checksums of all images of a shard are compared whenever it is loaded, so later damage is noticed.
"""

import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.pixels.decode import canvas_of, decode, on_canvas, size_of
from histo_lightning.data.sources.folder import Folder
from histo_lightning.errors import UserError

log = logging.getLogger("histo_lightning")
VERSION = 2
HEADER_BYTES = 128  # of pixels.npy: numpy's own header, padded
MOST_THREADS = 16
Progress = Callable[[int, int], None]


class UnreadableImages(UserError):
    """Some images cannot be used; all others have been decoded. ``reasons``: one line each, by image name."""

    def __init__(self, reasons: dict[str, str]) -> None:
        first = next(iter(reasons.values()))
        more = len(reasons) - 1
        super().__init__(
            first + (f"; and {more} more images: the command prepare lists them all" if more else "")
        )
        self.reasons = reasons


@dataclass(frozen=True)
class Pixels:
    """Stored images. ``shards``: uint8, N x H x W x 3 each, read-only; rows count through all of them.

    ``images``: file names by row; ``digests``: SHA-256 of native pixels, ``sizes``: native (width, height), by row.
    ``unreadable``: reasons by image name; their rows are black.
    """

    shards: tuple[NDArray[np.uint8], ...]
    images: tuple[str, ...]
    digests: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of every stored image."""
        return int(self.shards[0].shape[1]), int(self.shards[0].shape[2])

    @property
    def nbytes(self) -> int:
        return sum(shard.nbytes for shard in self.shards)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copies of the given rows: uint8, len(rows) x H x W x 3."""
        if len(self.shards) == 1:
            return np.take(self.shards[0], rows, axis=0)
        out = np.empty((len(rows), *self.shards[0].shape[1:]), dtype=np.uint8)
        start = 0
        for shard in self.shards:
            here = np.flatnonzero((rows >= start) & (rows < start + len(shard)))
            out[here] = shard[rows[here] - start]
            start += len(shard)
        return out

    def fingerprint(self, images: Iterable[str]) -> str:
        """Hash of the native pixels of some images: the same data on any machine, however it is stored."""
        digests = dict(zip(self.images, self.digests, strict=True))
        lines = [f"{image} {digests[image]}" for image in sorted(images)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/histo_lightning``, by default ``~/.cache/histo_lightning``."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "histo_lightning"


def default_threads() -> int:
    """As many as there are cores, at most 16."""
    return min(len(os.sched_getaffinity(0)), MOST_THREADS)


@dataclass(frozen=True)
class _Row:
    """What is known of one stored image; ``reason`` says why it could not be used."""

    digest: str = ""
    checksum: int = 0
    size: tuple[int, int] = (0, 0)
    reason: str = ""


@dataclass(frozen=True)
class _Shard:
    """One shard to be loaded or built."""

    files: Folder
    records: tuple[Record, ...]
    short_side: int
    sizes: Sequence[tuple[int, int]] | None
    threads: int

    @property
    def images(self) -> list[str]:
        return [record.image for record in self.records]

    def key(self) -> str:
        digest = hashlib.sha256(f"{VERSION}:{self.short_side}".encode())
        for record in self.records:
            stat = self.files.stat(record.path)
            digest.update(f"\n{record.path}\0{stat.st_size} {stat.st_mtime_ns}".encode())
        return digest.hexdigest()[:24]

    def load(self, folder: Path) -> Pixels | None:
        """What a folder holds if it is whole and intact, else None."""
        try:
            about = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            index, text = about["index"], json.dumps(about["index"])
            array: NDArray[np.uint8] = np.load(folder / "pixels.npy", mmap_mode="r").view(np.ndarray)
            intact = (
                zlib.crc32(text.encode()) == about["checksum"]
                and index["images"] == self.images
                and array.dtype == np.uint8
                and list(array.shape) == index["shape"]
                and checksums(array, self.threads) == index["checksums"]
            )
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            return None
        sizes = tuple((width, height) for width, height in index["sizes"])
        return Pixels((array,), tuple(self.images), tuple(index["digests"]), sizes) if intact else None

    def build(self, folder: Path, progress: Callable[[], None]) -> dict[str, str]:
        """Decode everything into a folder; reasons by image for what cannot be used."""
        height, width = canvas_of(self.sizes[:1] if self.sizes else self._header_sizes(), self.short_side)
        shape = (len(self.records), height, width, 3)
        with (folder / "pixels.npy").open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.flush()
            if file.tell() != HEADER_BYTES:
                raise RuntimeError(f"numpy wrote a header of {file.tell()} bytes")
            # A full disk is an error here; a memory map would end the process at some later write.
            os.posix_fallocate(file.fileno(), 0, HEADER_BYTES + int(np.prod(shape)))

            def store(row: int) -> _Row:
                return self._store(row, file.fileno(), height, width)

            rows = []
            with ThreadPoolExecutor(self.threads) as pool:  # decoders, hashes and writes leave Python's lock
                for row in pool.map(store, range(len(self.records))):
                    rows.append(row)
                    progress()
        index = {
            "images": self.images,
            "shape": list(shape),
            "digests": [row.digest for row in rows],
            "checksums": [row.checksum for row in rows],
            "sizes": [list(row.size) for row in rows],
        }
        text = json.dumps(index)
        with (folder / "index.json").open("w", encoding="utf-8") as out:
            out.write(f'{{"checksum": {zlib.crc32(text.encode())}, "index": {text}}}')
            out.flush()
            os.fsync(out.fileno())
        return {image: row.reason for image, row in zip(self.images, rows, strict=True) if row.reason}

    def _header_sizes(self) -> list[tuple[int, int]]:
        sizes = []
        for record in self.records:
            with suppress(OSError):  # reported when it is decoded
                sizes.append(size_of(self.files.read(record.path)))
        return sizes or [(self.short_side, self.short_side)]

    def _store(self, row: int, descriptor: int, height: int, width: int) -> _Row:
        """Decode one image, fit it to the canvas, and write it to its place."""
        path = self.records[row].path
        name = str(self.files.root / path)
        try:
            pixels = decode(self.files.read(path), name, self.sizes)
        except (UserError, OSError) as error:
            cause = getattr(error, "strerror", None) or error
            user = isinstance(error, UserError)
            reason = str(error) if user else f"{name}: cannot be read ({cause}); restore the file"
            return _Row(checksum=zlib.crc32(bytes(height * width * 3)), reason=reason)
        native_height, native_width = pixels.shape[:2]
        digest = hashlib.sha256(f"{(native_width, native_height)}".encode())
        digest.update(np.ascontiguousarray(pixels).data)
        stored = np.ascontiguousarray(on_canvas(pixels, height, width))
        view, offset = stored.data.cast("B"), HEADER_BYTES + row * stored.nbytes
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written
        return _Row(digest.hexdigest(), zlib.crc32(stored.data), (native_width, native_height))


def checksums(array: NDArray[np.uint8], threads: int) -> list[int]:
    """CRC-32 of every image."""

    def some(start: int) -> list[int]:
        return [zlib.crc32(row.data) for row in array[start : start + 64]]

    with ThreadPoolExecutor(min(threads, 4)) as pool:
        return [value for piece in pool.map(some, range(0, len(array), 64)) for value in piece]


def load_pixels(
    files: Folder,
    records: Sequence[Record],
    short_side: int,
    cache_dir: Path,
    *,
    sizes: Sequence[tuple[int, int]] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    tolerant: bool = False,
    verify: bool = False,
) -> Pixels:
    """Pixels of the given records, from the cache or decoded into it.

    Args:
        files: where ``record.path`` is read from.
        short_side: short side of the canvas, in pixels.
        sizes: allowed native (width, height), the usual one first: it gives the canvas its shape, and every
            magnification a shard of its own. None takes any size, and one shard for all.
        threads: that decode side by side; by default one a core.
        progress: called with (images done, images in all) while images are decoded.
        tolerant: give back what could be read, with ``unreadable`` filled, where otherwise an error is raised.
        verify: decode every image again, and rebuild where the cache differs from it.

    Raises:
        UnreadableImages: some images cannot be used; all others were decoded first.
        UserError: the cache cannot be written.
    """
    groups: dict[int, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.image):
        groups.setdefault(record.magnification if sizes else 0, []).append(record)
    shards = [
        _Shard(files, tuple(group), short_side, sizes, threads or default_threads())
        for _, group in sorted(groups.items())
    ]
    count = _Counter(len(records), progress)
    loaded = [_ensure(shard, cache_dir / "pixels", count, verify) for shard in shards]
    unreadable = {image: reason for pixels in loaded for image, reason in pixels.unreadable.items()}
    if unreadable and not tolerant:
        raise UnreadableImages(unreadable)
    return Pixels(
        tuple(shard for pixels in loaded for shard in pixels.shards),
        tuple(image for pixels in loaded for image in pixels.images),
        tuple(digest for pixels in loaded for digest in pixels.digests),
        tuple(size for pixels in loaded for size in pixels.sizes),
        unreadable,
    )


class _Counter:
    """Counts decoded images over all shards; those that were cached already count when the next one is built."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def __call__(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)


def _differ(before: Pixels, after: Pixels) -> list[bool]:
    """Which images of two versions of a shard are not the same, as stored or in their native pixels."""
    stored = [not np.array_equal(a, b) for a, b in zip(before.shards[0], after.shards[0], strict=True)]
    return [a or b != c for a, b, c in zip(stored, before.digests, after.digests, strict=True)]


def _ensure(shard: _Shard, parent: Path, count: _Counter, verify: bool) -> Pixels:
    key = shard.key()
    folder, building = parent / key, parent / f".{key}.building"
    # First without the lock: a finished cache also serves from a folder that cannot be written.
    pixels = None if verify else shard.load(folder)
    if pixels is None:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            with FileLock(parent / f".{key}.lock"):
                pixels = None if verify else shard.load(folder)  # another process may have built it meanwhile
                if pixels is None:
                    return _built(shard, folder, building, count)
        except OSError as error:
            raise UserError(
                f"{parent}: the pixel cache cannot be written ({error.strerror or error}); free space or set cache_dir"
            ) from error
    count.done += len(shard.records)
    return pixels


def _built(shard: _Shard, folder: Path, building: Path, count: _Counter) -> Pixels:
    """Build a shard beside its folder, and rename it where every image could be used."""
    shutil.rmtree(building, ignore_errors=True)  # left by a killed process
    building.mkdir()
    try:
        before = shard.load(folder)
        if before is None and folder.is_dir():
            log.warning("%s: the pixel cache is damaged and is built again", folder)
        unreadable = shard.build(building, count)
        pixels = shard.load(building)
        if pixels is None:
            raise UserError(
                f"{folder}: what was just written reads back damaged; check the disk, or set cache_dir"
            )
        differ = sum(_differ(before, pixels)) if before is not None else 0
        if differ:
            log.warning("%s: %d images differed from their files and are mended", folder, differ)
        if not unreadable:
            shutil.rmtree(folder, ignore_errors=True)  # damaged, or verified again
            building.rename(folder)
        return replace(pixels, unreadable=unreadable)
    finally:
        shutil.rmtree(building, ignore_errors=True)  # a memory map of it stays readable
