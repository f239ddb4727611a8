"""Images that are the same, or nearly: a copy that stands in two cases leaks from training into test.

Nothing is dropped on the strength of this: the pairs are listed, and a person looks at them.

Two thresholds call a pair suspicious, by correlation alone. They were measured on 250 real images at 100X, stored
at 256 x 390, and on the 1,312 drawn ones at all magnifications:

- One magnification. Of 240,000 unrelated pairs the 10,000 nearest by hash (11 bits and more) were compared; none
  was above 0.27, of the real ones none above 0.13. Copies that were turned, mirrored, saved as JPEG of quality 50
  or made 10 % brighter had 0.96 or more (0 to 4 bits); shifted by 10 of 700 pixels in both directions 0.61 to 0.93
  (4 to 17 bits).
- A window of a lower magnification. Unrelated fields reached 0.71. Fields planted at random places of real ones,
  turned or mirrored, had 0.84 to 0.92 in the median. The hash finds about 90 of 100 such fields at the ratios 2 and
  2.45 and 65 of 100 at 4 and 4.9 among 250 images, and about 75 and 55 are expected among 2,000: a case that stands
  in the set twice shows in many of its images, a single image may escape.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from histo_lightning.data.breakhis.names import MAGNIFICATIONS
from histo_lightning.data.perceptual import (
    ORIENTATIONS,
    SIDE,
    Floats,
    best_correlation,
    centre_squares,
    hashes,
    luminance,
    orient,
    oriented_hashes,
)
from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.window_search import FIELDS_AT_ONCE, PixelSource, Rows, scale_pairs, search_windows

FINE = 2 * SIDE  # cells a side of the squares that are compared by correlation
SHIFT = 2  # cells of those, each way
CANDIDATES = 2000  # pairs compared by correlation, for each magnification
SUSPICIOUS, SUSPICIOUS_WINDOW = 0.5, 0.75  # correlation, at one magnification and across two; see above
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images of different cases that look alike.

    Attributes:
        first: image name; of the lower magnification, where they differ.
        second: image name.
        distance: bits, 0 to 64, in which the perceptual hashes differ.
        correlation: of local contrast, cell by cell, at the best of small shifts, -1 to 1.
        orientation: what to do to ``second`` to see it in ``first``; one of ``ORIENTATIONS``.
        window: where ``second`` lies in ``first``: left, top, width, height in stored pixels. None at equal
            magnification, where the whole centre squares are compared.
    """

    first: str
    second: str
    distance: int
    correlation: float
    orientation: str
    window: tuple[int, int, int, int] | None = None

    @property
    def suspicious(self) -> bool:
        """Whether it is nearer than unrelated images were found to be."""
        return self.correlation >= (SUSPICIOUS if self.window is None else SUSPICIOUS_WINDOW)


def identical_pixels(images: Sequence[str], digests: Sequence[str]) -> list[tuple[str, ...]]:
    """Groups of two or more images whose native pixels have the same SHA-256, sorted; an empty digest is none."""
    members: dict[str, list[str]] = defaultdict(list)
    for image, digest in zip(images, digests, strict=True):
        if digest:
            members[digest].append(image)
    return sorted(tuple(sorted(group)) for group in members.values() if len(group) > 1)


def _squares(pixels: PixelSource, rows: Rows) -> Floats:
    """Fine centre squares of the given rows: float32, rows x 64 x 64."""
    found = np.empty((len(rows), FINE, FINE), dtype=np.float32)
    for start in range(0, len(rows), FIELDS_AT_ONCE):
        part = slice(start, start + FIELDS_AT_ONCE)
        found[part] = centre_squares(luminance(pixels(rows[part])), FINE)
    return found


def _halved(squares: Floats) -> Floats:
    """N x 64 x 64 -> N x 32 x 32: means of 2 x 2 cells."""
    small: Floats = squares.reshape(len(squares), SIDE, 2, SIDE, 2).mean(axis=(2, 4))
    return small


def _same_magnification(squares: Floats, records: Sequence[Record]) -> list[Pair]:
    """The candidates among one magnification's pairs of different cases, unsorted; squares as by ``_squares``."""
    small = _halved(squares)
    plain, oriented = hashes(small), oriented_hashes(small)
    cases = np.array([record.case for record in records])
    distances = np.full((len(records), len(records)), 255, dtype=np.uint8)
    for row in range(len(records) - 1):  # row by row: 8 x N x N counts at once would take a gigabyte
        counts = np.bitwise_count(oriented[:, row + 1 :] ^ plain[row]).min(axis=0)
        distances[row, row + 1 :] = np.where(cases[row + 1 :] == cases[row], 255, counts)
    nearest = np.argsort(distances, axis=None, kind="stable")[:CANDIDATES]
    pairs = []
    for row, column in zip(*np.unravel_index(nearest, distances.shape), strict=True):
        if distances[row, column] == 255:
            break
        orientation = int(np.bitwise_count(oriented[:, column] ^ plain[row]).argmin())
        inner = orient(squares[column], orientation)[SHIFT:-SHIFT, SHIFT:-SHIFT]
        correlation, _, _ = best_correlation(inner, squares[row])
        pairs.append(
            Pair(
                records[row].image,
                records[column].image,
                int(distances[row, column]),
                correlation,
                ORIENTATIONS[orientation],
            )
        )
    return pairs


def _nearest(pairs: list[Pair], count: int) -> list[Pair]:
    return sorted(pairs, key=lambda p: (-p.correlation, p.distance, p.first, p.second))[:count]


def nearest_pairs(
    pixels: PixelSource, records: Sequence[Record], *, count: int = 20, progress: Progress | None = None
) -> list[Pair]:
    """The images of different cases that look most alike, at one magnification and across two.

    Args:
        pixels: rows (int64) -> uint8, B x H x W x 3, at most 64 rows at a time.
        records: in the order of the rows. Those without a case or a magnification are left out.
        count: pairs for each magnification, and for each two of them.
        progress: called with (steps done, steps in all).

    Returns:
        Highest correlation first: of two unrelated images a few are near by hash, hardly any by correlation.
        For each magnification pairs of centre squares; for each two magnifications, where a window covers 32 stored
        pixels or more, squares of the higher one found anywhere in a field of the lower one.
    """
    rows = {
        magnification: np.array(
            [i for i, r in enumerate(records) if r.magnification == magnification and r.case], dtype=np.int64
        )
        for magnification in MAGNIFICATIONS
    }
    there = [magnification for magnification in MAGNIFICATIONS if len(rows[magnification])]
    if not there:
        return []
    short_side = min(pixels(rows[there[0]][:1]).shape[1:3])
    scales = [pair for pair in scale_pairs(short_side) if pair[0] in there and pair[1] in there]
    cases = [record.case for record in records]
    pairs: list[Pair] = []
    small: dict[int, Floats] = {}
    for done, magnification in enumerate(there, start=1):
        squares = _squares(pixels, rows[magnification])
        pairs += _nearest(_same_magnification(squares, [records[i] for i in rows[magnification]]), count)
        small[magnification] = _halved(squares)
        if progress is not None:
            progress(done, len(there) + len(scales))
    for done, (low, high, ratio) in enumerate(scales, start=len(there) + 1):
        found = search_windows(pixels, rows[low], rows[high], small[high], cases, ratio)
        windows = [
            Pair(
                records[f.lower].image,
                records[f.higher].image,
                f.distance,
                f.correlation,
                ORIENTATIONS[f.orientation],
                f.window,
            )
            for f in found
        ]
        pairs += _nearest(windows, count)
        if progress is not None:
            progress(done, len(there) + len(scales))
    return _nearest(pairs, len(pairs))
