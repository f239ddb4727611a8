"""Images that are the same, or nearly: a copy filed under two cases leaks from training into test.

Candidates come from perceptual hashes (pHash: Zauner 2010) in all eight orientations, at one magnification; they are
ranked by the correlation of local contrast. On 250 real images at 100X no pair of different cases was above 0.15, of drawn ones 175 wide above 0.52; copies
turned, mirrored, shifted by 4 of 390 pixels, saved as JPEG of quality 50 or made 10 % brighter had 0.97 or more.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import imagehash
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy.ndimage import uniform_filter

from histo_lightning.data.breakhis.names import MAGNIFICATIONS
from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.pixels.stains import PixelSource
from histo_lightning.data.sources.folder import Progress

_TURNS = ("turned by 90°", "turned by 180°", "turned by 270°")
ORIENTATIONS = ("as it is", *_TURNS, "mirrored", *(f"mirrored and {turn}" for turn in _TURNS))
SIDE = 64  # pixels of the squares that are compared
SHIFT = 2  # of those, each way
CANDIDATES = 2000  # pairs compared by correlation, for each magnification
SUSPICIOUS = 0.6  # correlation; see above
ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Pair:
    first: str  # one of two images of different cases that look alike
    second: str
    distance: int  # bits, 0 to 64, in which the perceptual hashes differ
    correlation: float  # of local contrast at the best of small shifts, -1 to 1
    orientation: str  # what to do to ``second`` to see ``first``; one of :data:`ORIENTATIONS`

    @property
    def suspicious(self) -> bool:
        """Whether it is nearer than unrelated images were found to be."""
        return self.correlation >= SUSPICIOUS


def _rank(pair: Pair) -> tuple[float, int, str, str]:
    return -pair.correlation, pair.distance, pair.first, pair.second


def identical_pixels(images: Sequence[str], digests: Sequence[str]) -> list[tuple[str, ...]]:
    """Groups of two or more images whose native pixels have the same SHA-256, sorted; an empty digest is none."""
    members: dict[str, list[str]] = defaultdict(list)
    for image, digest in sorted(zip(images, digests, strict=True)):
        members[digest].append(image)
    return sorted(tuple(group) for digest, group in members.items() if digest and len(group) > 1)


def orient(square: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
    """A square (S x S, or S x S x 3) in an orientation, by its place in :data:`ORIENTATIONS`: first mirrored, then turned."""
    return np.rot90(square[:, ::-1] if orientation >= 4 else square, orientation % 4)


def nearest_pairs(
    pixels: PixelSource, records: Sequence[Record], *, count: int = 20, progress: Progress | None = None
) -> list[Pair]:
    """The ``count`` pairs of different cases that look most alike at each magnification, highest correlation first.

    ``pixels``: rows (int64), at most 64, -> uint8, B x H x W x 3; ``records`` are in their order, and those without a case
    or a magnification are left out. ``progress`` is called with (images done, images in all).
    """
    pairs: list[Pair] = []
    done, total = 0, sum(r.magnification > 0 and bool(r.case) for r in records)
    for magnification in MAGNIFICATIONS:
        rows = np.flatnonzero([r.magnification == magnification and bool(r.case) for r in records])
        members = [records[row] for row in rows.tolist()]
        squares: list[NDArray[np.uint8]] = []
        for start in range(0, len(rows), ROWS_AT_ONCE):
            for image in pixels(rows[start : start + ROWS_AT_ONCE]):
                grey = Image.fromarray(image).convert("L")  # its centre square is averaged
                squares.append(np.asarray(ImageOps.fit(grey, (SIDE, SIDE), Image.Resampling.BOX)))
            if progress is not None:
                progress(done + len(squares), total)
        done += len(squares)
        pairs += sorted(_candidates(squares, members), key=_rank)[:count]
    return sorted(pairs, key=_rank)


def _candidates(squares: Sequence[NDArray[np.uint8]], records: Sequence[Record]) -> list[Pair]:
    """The pairs of different cases whose hashes are nearest, compared by correlation; unsorted."""
    hashes = np.zeros((len(ORIENTATIONS), len(squares)), np.uint64)
    for turn, i in np.ndindex(hashes.shape):
        square = Image.fromarray(np.ascontiguousarray(orient(squares[i], turn)))
        hashes[turn, i] = int(str(imagehash.phash(square)), 16)
    cases = np.array([record.case for record in records])
    distances = np.full((len(records), len(records)), 255, dtype=np.uint8)
    for row in range(len(records) - 1):  # row by row: 8 x N x N counts at once would take a gigabyte
        bits = np.bitwise_count(hashes[:, row + 1 :] ^ hashes[0, row]).min(axis=0)
        distances[row, row + 1 :] = np.where(cases[row + 1 :] == cases[row], 255, bits)
    pairs = []
    for nearest in np.argsort(distances, axis=None, kind="stable")[:CANDIDATES].tolist():
        i, j = divmod(nearest, len(records))
        if distances[i, j] == 255:
            break
        orientation = int(np.bitwise_count(hashes[:, j] ^ hashes[0, i]).argmin())
        correlation = best_correlation(squares[i], orient(squares[j], orientation))
        first, second = records[i].image, records[j].image
        pairs.append(Pair(first, second, int(distances[i, j]), correlation, ORIENTATIONS[orientation]))
    return pairs


def best_correlation(first: NDArray[np.generic], second: NDArray[np.generic]) -> float:
    """The highest Pearson correlation of two squares' contrast to the mean of 7 x 7 pixels, over small shifts; 0 for one grey."""
    values = [square.astype(np.float32) for square in (first, second)]
    contrasts = [square - uniform_filter(square, size=7, mode="reflect") for square in values]
    inner = contrasts[1][SHIFT:-SHIFT, SHIFT:-SHIFT]
    inner = inner - inner.mean()
    windows = sliding_window_view(contrasts[0], inner.shape)
    products = np.einsum("ijkl,kl->ij", windows, inner)
    spread = np.einsum("ijkl,ijkl->ij", windows, windows) - windows.sum(axis=(-2, -1)) ** 2 / inner.size
    scale = np.sqrt(np.maximum(spread, 0) * (inner**2).sum())
    return float(np.where(scale > 1e-3 * inner.size, products / np.maximum(scale, 1e-9), 0.0).max())
