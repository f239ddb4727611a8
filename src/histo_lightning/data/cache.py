"""Verified uint8 pixels on disk: every image decoded once, shared by every run.

A cache is a folder ``pixels/<key>/`` with ``pixels.npy`` (uint8, image x height x width x 3, memory-mapped) and
``index.json``. The key hashes the files' names, sizes and times, the canvas and :data:`VERSION`. It is built under
a lock in a temporary folder and renamed, so what stands there is whole; checksums notice later damage.
"""

import fcntl
import hashlib
import json
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from histo_lightning.data.records import Record
from histo_lightning.errors import UserError

VERSION = 1
SMALLEST_SIDE = 32
BREAKHIS_SIZES = ((700, 460), (700, 456))
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Pixels:
    """``array``: uint8, N x H x W x 3, read-only, in the order of ``images``; ``digests``: SHA-256 of native pixels."""

    array: NDArray[np.uint8]
    images: tuple[str, ...]
    digests: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """Hash of all images' native pixels: the same data on any machine, however it is stored."""
        lines = sorted(f"{image} {digest}" for image, digest in zip(self.images, self.digests, strict=True))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/histo_lightning``, by default ``~/.cache/histo_lightning``."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "histo_lightning"


def decode(path: Path, sizes: Sequence[tuple[int, int]] | None = None) -> Image.Image:
    """Decode one image completely.

    Args:
        sizes: allowed (width, height) in pixels; None allows any from 32 pixels a side.

    Raises:
        UserError: missing, truncated, not an image, not RGB, or of a size that is not allowed.
    """
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()).replace(str(path), "the file")
        raise UserError(
            f"{path}: cannot be read as an image ({reason}); replace it by an intact copy"
        ) from error
    if image.mode != "RGB":
        raise UserError(f"{path}: its mode is {image.mode}, 8-bit RGB is needed; convert it")
    if sizes is not None and image.size not in sizes:
        allowed = " or ".join(f"{width}x{height}" for width, height in sizes)
        raise UserError(
            f"{path}: it is {image.width}x{image.height} pixels, BreakHis images are {allowed}; "
            "restore the original, or use dataset=folders for rescaled copies"
        )
    if min(image.size) < SMALLEST_SIDE:
        raise UserError(
            f"{path}: it is {image.width}x{image.height} pixels, at least {SMALLEST_SIDE} a side are needed"
        )
    return image


def on_canvas(image: Image.Image, height: int, width: int) -> NDArray[np.uint8]:
    """Fit an image onto a canvas without distortion: equal scale in both directions, centre kept (uint8, H x W x 3)."""
    scale = min(image.width / width, image.height / height)
    box_width, box_height = width * scale, height * scale
    left, top = (image.width - box_width) / 2, (image.height - box_height) / 2
    box = (left, top, left + box_width, top + box_height)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(image, dtype=np.uint8)


def canvas_of(sizes: Sequence[tuple[int, int]], short_side: int) -> tuple[int, int]:
    """(height, width) with the given short side and the commonest aspect ratio of (width, height) ``sizes``."""
    width, height = max(Counter(sizes).items(), key=lambda item: (item[1], item[0]))[0]
    if width >= height:
        return short_side, round(short_side * width / height)
    return round(short_side * height / width), short_side


def _key(root: Path, records: Sequence[Record], short_side: int) -> str:
    digest = hashlib.sha256(f"{VERSION}:{short_side}".encode())
    for record in records:
        try:
            stat = (root / record.path).stat()
        except OSError as error:
            raise UserError(f"{root / record.path}: cannot be read ({error.strerror})") from error
        digest.update(f"\n{record.path}\0{stat.st_size}\0{stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:24]


def _load(folder: Path, images: tuple[str, ...]) -> Pixels | None:
    """An intact cache, else None."""
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        array: NDArray[np.uint8] = np.load(folder / "pixels.npy", mmap_mode="r")
        intact = (
            index["images"] == list(images)
            and array.dtype == np.uint8
            and list(array.shape) == index["shape"]
            and [zlib.crc32(row) for row in array] == index["checksums"]
        )
        return Pixels(array, images, tuple(index["digests"])) if intact else None
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def _build(
    root: Path,
    records: Sequence[Record],
    short_side: int,
    sizes: Sequence[tuple[int, int]] | None,
    folder: Path,
    progress: Progress | None,
) -> None:
    headers = []
    for record in records:  # reads headers only
        try:
            with Image.open(root / record.path) as header:
                headers.append(header.size)
        except (OSError, SyntaxError, ValueError):
            decode(root / record.path, sizes)  # says what is wrong
            raise
    height, width = canvas_of(headers, short_side)
    shape = (len(records), height, width, 3)
    array = np.lib.format.open_memmap(folder / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)
    digests, checksums = [], []
    for i, record in enumerate(records):
        image = decode(root / record.path, sizes)
        digests.append(hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest())
        array[i] = on_canvas(image, height, width)
        checksums.append(zlib.crc32(array[i]))
        if progress is not None:
            progress(i + 1, len(records))
    array.flush()
    index = {
        "images": [record.image for record in records],
        "shape": list(shape),
        "digests": digests,
        "checksums": checksums,
    }
    with (folder / "index.json").open("w", encoding="utf-8") as file:
        json.dump(index, file)
        file.flush()
        os.fsync(file.fileno())


def load_pixels(
    root: Path,
    records: Sequence[Record],
    short_side: int,
    cache_dir: Path,
    *,
    sizes: Sequence[tuple[int, int]] | None = None,
    progress: Progress | None = None,
) -> Pixels:
    """Pixels of the given records, from the cache or decoded into it.

    Args:
        root: the folder that ``record.path`` is relative to.
        short_side: short side of the canvas, in pixels.
        sizes: allowed native (width, height); see :func:`decode`.
        progress: called with (images done, images in all).

    Raises:
        UserError: an image cannot be used, or the cache cannot be written.
    """
    ordered = sorted(records, key=lambda record: record.image)
    images = tuple(record.image for record in ordered)
    parent = cache_dir / "pixels"
    key = _key(root, ordered, short_side)
    folder, building = parent / key, parent / f".{key}.building"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with (parent / f".{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = _load(folder, images)
            if found is None:
                shutil.rmtree(folder, ignore_errors=True)  # damaged
                shutil.rmtree(building, ignore_errors=True)  # left by a killed process
                building.mkdir()
                try:
                    _build(root, ordered, short_side, sizes, building, progress)
                    building.rename(folder)
                finally:
                    shutil.rmtree(building, ignore_errors=True)
                found = _load(folder, images)
    except OSError as error:
        raise UserError(
            f"{parent}: the pixel cache cannot be written ({error.strerror}); free space or set cache_dir"
        ) from error
    if found is None:
        raise UserError(
            f"{folder}: what was just written reads back damaged; check the disk, or set cache_dir"
        )
    return found
