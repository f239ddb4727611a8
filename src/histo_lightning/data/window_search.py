"""Is a field of a higher magnification a part of a field of a lower one, from another case?

The field's centre square is compared, by hash and in eight orientations, with windows of the lower magnification's
fields that show as much tissue. The nearest candidates of each field are compared by correlation.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from histo_lightning.data.names import MAGNIFICATIONS
from histo_lightning.data.perceptual import (
    SIDE,
    Floats,
    Hashes,
    best_correlation,
    luminance,
    orient,
    oriented_hashes,
    scaled,
    window_hashes,
)

# Nominal, in micrometres; Spanhol et al. 2016, table 1.
PIXEL_SIZES = {40: 0.49, 100: 0.20, 200: 0.10, 400: 0.05}
CANDIDATES = 8  # fields compared by correlation, for each field of the higher magnification
FIELDS_AT_ONCE = 64
_BLOCK = (8, 8192)  # windows x queries: half a megabyte, which stays in a core's cache

Rows = NDArray[np.int64]
PixelSource = Callable[[Rows], NDArray[np.uint8]]


@dataclass(frozen=True)
class Found:
    """A candidate: rows of the two fields, and the window (left, top, width, height) in pixels of the lower one."""

    lower: int
    higher: int
    distance: int
    correlation: float
    orientation: int
    window: tuple[int, int, int, int]


def scale_pairs(short_side: int) -> list[tuple[int, int, float]]:
    """(lower, higher, ratio of pixel sizes) where a window covers at least 32 pixels of the stored short side.

    Smaller windows would have to be up-sampled. At 256 pixels 400X in 40X is left out (26 pixels).
    """
    pairs = [
        (low, high, PIXEL_SIZES[low] / PIXEL_SIZES[high]) for low, high in combinations(MAGNIFICATIONS, 2)
    ]
    return [pair for pair in pairs if short_side / pair[2] >= SIDE]


def _step(ratio: float) -> int:
    """Cells between windows. Their number grows with the square of the ratio, so the grid is coarser there."""
    return 3 if ratio < 3 else 4


def least_distances(windows: Hashes, queries: Hashes) -> NDArray[np.uint8]:
    """The least Hamming distance of each query (uint64, Q) to any of the windows (uint64, W): uint8, Q."""
    least = np.full(len(queries), 64, dtype=np.uint8)
    differing = np.empty(_BLOCK, dtype=np.uint64)
    counts = np.empty(_BLOCK, dtype=np.uint8)
    for start in range(0, len(queries), _BLOCK[1]):
        part = queries[None, start : start + _BLOCK[1]]
        best = least[start : start + _BLOCK[1]]
        for first in range(0, len(windows), _BLOCK[0]):
            block = windows[first : first + _BLOCK[0], None]
            area = np.s_[: len(block), : part.shape[1]]
            np.bitwise_xor(block, part, out=differing[area])
            np.bitwise_count(differing[area], out=counts[area])
            np.minimum(best, counts[area].min(axis=0), out=best)
    return least


def _candidates(
    pixels: PixelSource, lower: Rows, hashes: Hashes, foreign: NDArray[np.bool_], ratio: float
) -> dict[int, list[int]]:
    """For each place in ``lower``, the places of the queries that have it among their nearest fields.

    Args:
        hashes: of the queries, uint64, 8 x Q.
        foreign: lower x Q, whether the two are of different cases.
    """
    distances = np.empty(foreign.shape, dtype=np.uint8)
    for start in range(0, len(lower), FIELDS_AT_ONCE):
        fields = scaled(luminance(pixels(lower[start : start + FIELDS_AT_ONCE])), ratio)
        for place, field in enumerate(fields, start):
            least = least_distances(window_hashes(field, _step(ratio)).ravel(), hashes.ravel())
            distances[place] = least.reshape(hashes.shape).min(axis=0)
    distances[~foreign] = 255
    nearest = np.argsort(distances, axis=0, kind="stable")[:CANDIDATES]
    chosen: dict[int, list[int]] = defaultdict(list)
    for places in nearest:
        for query, place in enumerate(places.tolist()):
            if foreign[place, query]:
                chosen[place].append(query)
    return chosen


def _compare(
    field: Floats, square: Floats, hashes: Hashes, windows: Hashes, ratio: float
) -> tuple[int, float, int, Rows]:
    """Distance, correlation and orientation of the best window for one query, and its top and left cell."""
    counts = np.bitwise_count(hashes[:, None, None] ^ windows[None])
    orientation, row, column = np.unravel_index(int(counts.argmin()), counts.shape)
    step = _step(ratio)
    # The window lies at most half a step away from the best place.
    reach = step // 2
    top, left = max(int(row) * step - reach, 0), max(int(column) * step - reach, 0)
    patch = field[top : int(row) * step + SIDE + reach, left : int(column) * step + SIDE + reach]
    correlation, down, across = best_correlation(orient(square, int(orientation)), patch)
    return int(counts.min()), correlation, int(orientation), np.array([top + down, left + across])


def search_windows(
    pixels: PixelSource,
    lower: Rows,
    higher: Rows,
    squares: Floats,
    cases: Sequence[str],
    ratio: float,
) -> list[Found]:
    """The nearest fields of other cases for every field of the higher magnification, unsorted.

    Args:
        pixels: rows -> uint8, B x H x W x 3; asked for at most :data:`FIELDS_AT_ONCE` rows.
        lower, higher: rows of the fields of the two magnifications.
        squares: centre squares of the higher ones, float32, len(higher) x 32 x 32.
        cases: by row, for all rows.
        ratio: pixel size of the lower magnification over that of the higher one.
    """
    hashes = oriented_hashes(squares)
    names = np.array(cases)
    foreign = names[lower][:, None] != names[higher][None, :]
    chosen = _candidates(pixels, lower, hashes, foreign, ratio)
    places = sorted(chosen)
    found = []
    for start in range(0, len(places), FIELDS_AT_ONCE):
        part = places[start : start + FIELDS_AT_ONCE]
        read = pixels(lower[part])
        cell = min(read.shape[1:3]) / (SIDE * ratio)  # in stored pixels
        for place, field in zip(part, scaled(luminance(read), ratio), strict=True):
            windows = window_hashes(field, _step(ratio))
            for query in chosen[place]:
                distance, correlation, orientation, (top, left) = _compare(
                    field, squares[query], hashes[:, query], windows, ratio
                )
                side = round(SIDE * cell)
                window = (round(left * cell), round(top * cell), side, side)
                found.append(
                    Found(int(lower[place]), int(higher[query]), distance, correlation, orientation, window)
                )
    return found
