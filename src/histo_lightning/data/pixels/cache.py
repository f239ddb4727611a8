"""Verified uint8 pixels on disk: every image decoded once, shared by every run.

A data set is stored in shards, one a magnification, so that runs at one magnification decode no other, and all folds
and ways to split share them. A shard is a folder ``pixels/<key>/`` with ``pixels.npy`` (uint8, image x height x width
x 3, memory-mapped) and ``index.json``. The key hashes the files' names, sizes and times, the canvas and
:data:`VERSION`. It is built under a lock in a temporary folder and renamed, so what stands there is whole; the
checksums of all images of a shard are compared whenever it is loaded, so later damage is noticed.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_lightning.data.pixels.decode import canvas_of, decode, on_canvas, size_of
from histo_lightning.data.sources.folder import ImageFiles
from histo_lightning.data.breakhis.records import Record
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

    files: ImageFiles
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
            digest.update(f"\n{record.path}\0{self.files.stamp(record.path)}".encode())
        return digest.hexdigest()[:24]

    def load(self, folder: Path) -> Pixels | None:
        """What stands in a folder if it is whole and intact, else None."""
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
        """Decode everything into a folder; reasons by image for what cannot be used (then no index is written)."""
        height, width = self._canvas()
        shape = (len(self.records), height, width, 3)
        with (folder / "pixels.npy").open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.flush()
            if file.tell() != HEADER_BYTES:
                raise RuntimeError(f"numpy wrote a header of {file.tell()} bytes")
            # A full disk is an error here; a memory map would end the process at some later write.
            os.posix_fallocate(file.fileno(), 0, HEADER_BYTES + int(np.prod(shape)))
            rows = self._decoded(file.fileno(), height, width, progress)
        reasons = {record.image: row.reason for record, row in zip(self.records, rows, strict=True)}
        reasons = {image: reason for image, reason in reasons.items() if reason}
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
        return reasons

    def _canvas(self) -> tuple[int, int]:
        sizes = self.sizes[:1] if self.sizes else self._header_sizes()
        return canvas_of(sizes, self.short_side)

    def _header_sizes(self) -> list[tuple[int, int]]:
        found = []
        for _, read in self.files.contents([record.path for record in self.records]):
            try:
                found.append(size_of(read()))
            except OSError:  # reported when it is decoded
                continue
        return found or [(self.short_side, self.short_side)]

    def _decoded(self, descriptor: int, height: int, width: int, progress: Callable[[], None]) -> list[_Row]:
        """Decode, fit and write every image in threads: the decoders, hashes and writes leave Python's lock."""
        position = {record.path: i for i, record in enumerate(self.records)}
        root, blank = self.files.root, zlib.crc32(bytes(height * width * 3))

        def store(path: str, read: Callable[[], bytes]) -> tuple[int, _Row]:
            try:
                pixels = decode(read(), str(root / path), self.sizes)
            except UserError as error:
                return position[path], _Row(checksum=blank, reason=str(error))
            except OSError as error:
                reason = f"{root / path}: cannot be read ({error.strerror or error}); restore the file"
                return position[path], _Row(checksum=blank, reason=reason)
            digest = hashlib.sha256(f"{pixels.shape[1::-1]}".encode())
            digest.update(np.ascontiguousarray(pixels).data)
            stored = np.ascontiguousarray(on_canvas(pixels, height, width))
            _write_at(descriptor, stored, HEADER_BYTES + position[path] * stored.nbytes)
            size = (int(pixels.shape[1]), int(pixels.shape[0]))
            return position[path], _Row(digest.hexdigest(), zlib.crc32(stored.data), size)

        rows = [_Row()] * len(self.records)
        work = ((path, read) for path, read in self.files.contents(list(position)))
        for i, row in _in_threads(store, work, self.threads):
            rows[i] = row
            progress()
        return rows


def _write_at(descriptor: int, data: NDArray[np.uint8], offset: int) -> None:
    view = data.data.cast("B")
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _in_threads(function: Callable[..., Any], work: Iterator[tuple[Any, ...]], threads: int) -> Iterator[Any]:
    """Results in order; only a few items are in memory at a time."""
    if threads == 1:
        for item in work:
            yield function(*item)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Any]] = deque(
            pool.submit(function, *item) for item in islice(work, 3 * threads)
        )
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(function, *item) for item in islice(work, 1))


def checksums(array: NDArray[np.uint8], threads: int) -> list[int]:
    """CRC-32 of every image."""

    def some(start: int) -> list[int]:
        return [zlib.crc32(row.data) for row in array[start : start + 64]]

    pieces = _in_threads(some, ((start,) for start in range(0, len(array), 64)), min(threads, 4))
    return [value for piece in pieces for value in piece]


def load_pixels(
    files: ImageFiles,
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
    found = [_ensure(shard, cache_dir / "pixels", count, verify) for shard in shards]
    unreadable = {image: reason for pixels in found for image, reason in pixels.unreadable.items()}
    if unreadable and not tolerant:
        raise UnreadableImages(unreadable)
    return Pixels(
        tuple(shard for pixels in found for shard in pixels.shards),
        tuple(image for pixels in found for image in pixels.images),
        tuple(digest for pixels in found for digest in pixels.digests),
        tuple(size for pixels in found for size in pixels.sizes),
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
    found = None if verify else shard.load(folder)
    if (
        found is not None
    ):  # without the lock: a finished cache also serves from a folder that cannot be written
        count.done += len(shard.records)
        return found
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with (parent / f".{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = None if verify else shard.load(folder)
            if found is not None:  # another process built it meanwhile
                count.done += len(shard.records)
                return found
            shutil.rmtree(building, ignore_errors=True)  # left by a killed process
            building.mkdir()
            before = shard.load(folder)
            if before is None and folder.is_dir():
                log.warning("%s: the pixel cache is damaged and is built again", folder)
            try:
                unreadable = shard.build(building, count)
                found = shard.load(building)
                if before is not None and found is not None:
                    differ = sum(_differ(before, found))
                    if differ:
                        log.warning("%s: %d images differed from their files and are mended", folder, differ)
                if found is not None and not unreadable:
                    shutil.rmtree(folder, ignore_errors=True)  # damaged, or verified again
                    building.rename(folder)
            finally:
                shutil.rmtree(building, ignore_errors=True)  # a memory map of it stays readable
    except OSError as error:
        raise UserError(
            f"{parent}: the pixel cache cannot be written ({error.strerror or error}); free space or set cache_dir"
        ) from error
    if found is None:
        raise UserError(
            f"{folder}: what was just written reads back damaged; check the disk, or set cache_dir"
        )
    return Pixels(found.shards, found.images, found.digests, found.sizes, unreadable)
