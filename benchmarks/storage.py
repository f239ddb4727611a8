"""P5 and P6: building the pixel cache, and finding it again."""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from histo_lightning.data.breakhis.names import census_names
from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.pixels import cache, decode
from histo_lightning.data.pixels.cache import load_pixels
from histo_lightning.data.sources.dataset import Source

from .measure import Row, interleaved, judged, ratios

IMAGES = 60  # decoded in a round of P5
READY = 2000  # images of P6: about one magnification


def _pillow(data: bytes, name: str, sizes: Any = None) -> np.ndarray[Any, np.dtype[np.uint8]]:
    pixels: np.ndarray[Any, np.dtype[np.uint8]] = decode.with_pillow(data)
    return pixels


def build_rows(source: Source, short_side: int, rounds: int) -> list[Row]:
    """P5a: our decoder against Pillow in the same build, one thread; P5b: two threads against one."""
    records = list(source.records)[:IMAGES]
    build = _Builds(source, records, short_side)
    ours, pillow, two = interleaved(
        [lambda: build(1), lambda: build(1, mock.patch.object(cache, "decode", _pillow)), lambda: build(2)],
        rounds,
    )
    native = _Builds(source, records, min(source.sizes[0]) if source.sizes else short_side)
    native_ours, native_pillow = interleaved(
        [lambda: native(1), lambda: native(1, mock.patch.object(cache, "decode", _pillow))], rounds
    )
    size = "x".join(map(str, source.sizes[0])) if source.sizes else "any size"
    why = f"{len(records)} images of {source.name}, {size}; median {1e3 * sorted(ours)[len(ours) // 2] / len(records):.1f} ms an image"
    return [
        judged(
            "P5a",
            f"cache build at short side {short_side}, one thread: Pillow / ours",
            ">= 1.4",
            ratios(pillow, ours),
            why,
        ),
        judged(
            "P5a native",
            "the same at native size",
            ">= 1.4",
            ratios(native_pillow, native_ours),
            why.split(";")[0],
        ),
        judged("P5b", "cache build: one thread / two threads", ">= 1.5", ratios(ours, two), why),
    ]


class _Builds:
    """Seconds of building a cache of some images, each time from nothing."""

    def __init__(self, source: Source, records: list[Record], short_side: int) -> None:
        self.source, self.records, self.short_side = source, records, short_side

    def __call__(self, threads: int, patch: Any = None) -> float:
        with tempfile.TemporaryDirectory(prefix="histo-benchmark-") as folder, patch or mock.patch.dict({}):
            start = time.perf_counter()
            load_pixels(
                self.source.root,
                self.records,
                self.short_side,
                Path(folder),
                sizes=self.source.sizes,
                threads=threads,
            )
            return time.perf_counter() - start


class _Opened:
    """Counts image files that this process opens. An audit hook cannot be removed, so there is one for good."""

    def __init__(self) -> None:
        self.count = 0
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]).endswith(".png"):
            self.count += 1


def ready_rows(
    source: Source, short_side: int, rounds: int, ready: Callable[[Path, Path], None]
) -> list[Row]:
    """P6: a second run over an existing cache of 2,000 images.

    Args:
        ready: sets up the data of a run, given the root of a tree and the cache folder.
    """
    names = sorted(name for name in census_names() if "-100-" in name)[:READY]
    opened = _Opened()
    with tempfile.TemporaryDirectory(prefix="histo-benchmark-") as folder:
        tree, stored = Path(folder) / "tree", Path(folder) / "cache"
        tree.mkdir()
        images = [(source.root / record.path).resolve() for record in source.records]
        for i, name in enumerate(names):
            (tree / name).symlink_to(images[i % len(images)])
        ready(tree, stored)
        opened.count = 0
        seconds = interleaved([lambda: _timed(lambda: ready(tree, stored))], rounds)[0]
        found = opened.count
    why = f"{len(names)} images at short side {short_side}, names, split, checksums and statistics included"
    return [
        judged("P6", "second run: seconds until the data is ready", "<= 0.5", seconds, why),
        judged("P6 files", "second run: PNG files opened", "<= 0", [found], why),
    ]


def _timed(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
