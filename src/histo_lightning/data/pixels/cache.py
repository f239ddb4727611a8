"""Verified uint8 pixels on disk: every image decoded once, shared by every run.

A shard holds a magnification. It is a folder ``pixels/<key>/`` with ``pixels.npy`` (uint8, image x height x width x 3,
memory-mapped) and ``index.json``; loading compares the checksums of all images.
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
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.pixels.decode import Array, canvas_of, decode, image_bytes, native_size, on_canvas
from histo_lightning.data.sources.folder import Progress, new_folder
from histo_lightning.errors import UserError
from histo_lightning.runs.files import utf8

log = logging.getLogger("histo_lightning")
VERSION = 2
MOST_UPSCALING = 4  # more shows nothing new, and grinds
DECODED_AT_ONCE = 256  # images that may wait in memory for the disk


@dataclass(frozen=True)
class Pixels:
    """Stored images; rows count through all shards."""

    shards: tuple[NDArray[np.uint8], ...]  # N x H x W x 3 each, read-only
    images: tuple[str, ...]  # file names by row
    digests: tuple[str, ...]  # SHA-256 of native pixels, by row
    sizes: tuple[tuple[int, int], ...]  # native (width, height), by row
    unreadable: dict[str, str] = field(default_factory=dict)  # reasons by image name; their rows are black

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
        images = np.empty((len(rows), *self.shape, 3), dtype=np.uint8)
        start = 0
        for shard in self.shards:
            inside = (rows >= start) & (rows < start + len(shard))
            images[inside] = shard[rows[inside] - start]
            start += len(shard)
        return images

    def fingerprint(self, images: Iterable[str]) -> str:
        """Hash of the native pixels of some images: the same data on any machine, however it is stored."""
        digests = dict(zip(self.images, self.digests, strict=True))
        text = "\n".join(f"{image} {digests[image]}" for image in sorted(images))
        return hashlib.sha256(utf8(text)).hexdigest()

    def channel_statistics(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation (0.001 or more) of each channel over some images, in units of [0, 1]."""

        def sums(chosen: NDArray[np.int64]) -> list[NDArray[np.int64]]:
            """Of values and of squares, whole numbers: exact in any order."""
            lines = self.take(chosen).reshape(len(chosen) * self.shape[0], -1)
            squares = np.multiply(lines, lines, dtype=np.uint16)
            totals = [values.sum(axis=0, dtype=np.uint32) for values in (lines, squares)]
            return [total.reshape(-1, 3).sum(axis=0, dtype=np.int64) for total in totals]

        with ThreadPoolExecutor(default_threads()) as pool:
            # 16 images of 4,096 lines would just not overflow.
            first, second = np.sum(list(pool.map(sums, np.split(rows, range(16, len(rows), 16)))), axis=0)
        count = len(rows) * self.shape[0] * self.shape[1]
        mean, square = first / count, second / count
        return mean / 255, np.maximum(np.sqrt(np.maximum(square - mean**2, 0)) / 255, 1e-3)


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/histo_lightning``, by default ``~/.cache/histo_lightning``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "histo_lightning"


def default_threads() -> int:
    """As many as there are cores, at most 16."""
    return min(len(os.sched_getaffinity(0)), 16)


@dataclass(frozen=True)
class _Shard:
    """Images that are stored together."""

    root: Path
    records: Sequence[Record]
    short_side: int
    sizes: Sequence[tuple[int, int]] | None
    threads: int
    progress: Callable[[int], None]  # called with the images decoded

    def key(self) -> str:
        """Hash of the files' names, sizes and times, the canvas and :data:`VERSION`."""
        key = hashlib.sha256(f"{VERSION}:{self.short_side}".encode())
        for record in self.records:
            about = ""  # of what is missing, or a link in a circle: reported when it is decoded
            with suppress(OSError):
                stat = os.stat(os.path.join(self.root, record.path))  # noqa: PTH116, PTH118 - thousands at each start
                about = f"{stat.st_size} {stat.st_mtime_ns}"
            key.update(utf8(f"\n{record.path}\0{about}"))
        return key.hexdigest()[:24]

    def stored(self, parent: Path, verify: bool) -> Pixels:
        """The shard's pixels below a folder; decoded first where they are absent or damaged, or with ``verify``."""
        key = self.key()
        folder = parent / key
        # First without the lock: a finished cache also serves from a folder that cannot be written.
        if not verify and (pixels := self.load(folder)) is not None:
            return pixels
        with new_folder(folder, f"{parent}: the pixel cache cannot be written", "set cache_dir") as building:
            before = self.load(folder)  # another process may have built it meanwhile
            if before is not None and not verify:
                return before
            if before is None and folder.is_dir():
                log.warning("%s: the pixel cache is damaged and is built again", folder)
            unreadable = self.decode_into(building)
            if self.key() != key:
                problem = "images changed while they were read"
                raise UserError(f"{self.root}: {problem}; run again when they are all there")
            if (pixels := self.load(building)) is None:
                raise UserError(f"{folder}: reads back damaged; check the disk, or set cache_dir")
            pairs = zip(before.shards[0], pixels.shards[0], strict=True) if before else ()
            if changed := sum(not np.array_equal(*pair) for pair in pairs):
                log.warning("%s: %d images differed from their files and are mended", folder, changed)
            if not unreadable:
                shutil.rmtree(folder, ignore_errors=True)  # damaged, or verified again
                building.rename(folder)
            return replace(pixels, unreadable=unreadable)  # a memory map of a removed file stays readable

    def load(self, folder: Path) -> Pixels | None:
        """The pixels in a folder if they are complete and intact, else None."""
        images = [record.image for record in self.records]
        try:
            content = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            index, text = content["index"], json.dumps(content["index"])
            array: NDArray[np.uint8] = np.load(folder / "pixels.npy", mmap_mode="r").view(np.ndarray)
            with ThreadPoolExecutor(min(self.threads, 4)) as pool:
                blocks = (array[start : start + 64] for start in range(0, len(array), 64))
                checksums = pool.map(lambda images: [zlib.crc32(image.data) for image in images], blocks)
            intact = (
                zlib.crc32(text.encode()) == content["checksum"]
                and index["images"] == images
                and array.dtype == np.uint8
                and list(array.shape) == index["shape"]
                and list(chain.from_iterable(checksums)) == index["checksums"]
            )
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, EOFError):
            return None
        sizes = tuple((width, height) for width, height in index["sizes"])
        return Pixels((array,), tuple(images), tuple(index["digests"]), sizes) if intact else None

    def decode_into(self, folder: Path) -> dict[str, str]:
        """Decode everything into a folder; reasons by image for what cannot be used."""
        announced = (native_size(self.root / record.path) for record in self.records)
        sizes = self.sizes[:1] if self.sizes else list(filter(None, announced))
        if (native := max(map(min, sizes), default=self.short_side)) * MOST_UPSCALING < self.short_side:
            problem = f"would be stored {self.short_side} pixels high, more than {MOST_UPSCALING} times as high as they are"
            advice = "choose a smaller image_size or dataset.short_side"
            raise UserError(f"images of {native} pixels {problem}; {advice}")
        height, width = canvas_of(sizes or [(self.short_side, self.short_side)], self.short_side)
        rows, unreadable, shape = [], {}, (len(self.records), height, width, 3)
        with (folder / "pixels.npy").open("wb") as file, ThreadPoolExecutor(self.threads) as pool:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, len(self.records), DECODED_AT_ONCE):
                chunk = self.records[start : start + DECODED_AT_ONCE]
                for stored, row, reason in pool.map(partial(self._decode, height, width), chunk):
                    file.write(stored.data)
                    rows.append(row)
                    if reason:
                        unreadable[row[0]] = reason
                    self.progress(len(rows))
        columns = zip(("images", "digests", "checksums", "sizes"), zip(*rows, strict=True), strict=True)
        text = json.dumps({"shape": shape, **dict(columns)})
        text = f'{{"checksum": {zlib.crc32(text.encode())}, "index": {text}}}'
        (folder / "index.json").write_text(text, encoding="utf-8")
        return unreadable

    def _decode(self, height: int, width: int, record: Record) -> tuple[Array, tuple[Any, ...], str]:
        """One image on the canvas; its row of the index: name, SHA-256 of native pixels, CRC-32, native size; any problem."""
        path, size, digest, reason = self.root / record.path, (0, 0), "", ""
        stored = np.zeros((height, width, 3), np.uint8)
        try:
            pixels = decode(image_bytes(path), str(path), self.sizes)
            size = pixels.shape[1], pixels.shape[0]
            digest = hashlib.sha256(f"{size}".encode() + pixels.tobytes()).hexdigest()
            stored = np.ascontiguousarray(on_canvas(pixels, height, width))
        except UserError as error:
            reason = str(error)
        return stored, (record.image, digest, zlib.crc32(stored.data), size), reason


def load_pixels(
    root: Path, records: Sequence[Record], short_side: int, cache_dir: Path, *, tolerant: bool = False,
    verify: bool = False, sizes: Sequence[tuple[int, int]] | None = None, threads: int | None = None,
    progress: Progress | None = None,
) -> Pixels:  # fmt: skip
    """Pixels of the given records, from the cache or decoded into it; UserError where that cannot be.

    Args:
        short_side, threads: of the canvas, in pixels; that decode side by side, by default one a core.
        sizes: allowed native (width, height), the usual one first: it gives the canvas its shape, and every
            magnification a shard of its own. None takes any size, and one shard for all.
        progress: called with (images done, images in all) while images are decoded.
        tolerant, verify: fill ``unreadable`` instead of raising an error; decode again, and rebuild the cache.
    """
    groups: dict[int, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.image):
        groups.setdefault(record.magnification if sizes else 0, []).append(record)
    loaded: list[Pixels] = []

    def report(done: int) -> None:
        if progress is not None:
            progress(sum(len(pixels.images) for pixels in loaded) + done, len(records))

    for _, group in sorted(groups.items()):
        shard = _Shard(root, group, short_side, sizes, threads or default_threads(), report)
        loaded.append(shard.stored(cache_dir / "pixels", verify))
    unreadable = {image: reason for pixels in loaded for image, reason in pixels.unreadable.items()}
    if unreadable and not tolerant:
        more = len(unreadable) - 1
        rest = f"; and {more} more images: the command prepare lists them all" if more else ""
        raise UserError(next(iter(unreadable.values())) + rest)
    names = ("shards", "images", "digests", "sizes")
    joined: dict[str, Any] = {n: tuple(chain.from_iterable(getattr(one, n) for one in loaded)) for n in names}
    return Pixels(**joined, unreadable=unreadable)
