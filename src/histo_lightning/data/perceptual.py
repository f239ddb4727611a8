"""Perceptual hashes: 64 bits that stay nearly the same when a picture is turned, recompressed or made brighter.

A picture's luminance is averaged over the cells of a 32 x 32 thumbnail; the bits are the signs of the cosine
transform's 8 x 8 coefficients of lowest frequency (Zauner 2010, "Implementation and Benchmarking of Perceptual
Image Hash Functions"); the constant one is left out, and with it brightness: its bit is always 0. Zauner takes the
frequencies 1 to 8 and compares with their median. The frequencies 0 to 7 bear shifts better: of real fields sought
on a grid of 4 cells, 12 to 14 bits differ in the median instead of 14 to 16. And as coefficients lie about zero
without the constant one, their sign serves and needs no sort.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

SIDE = 32  # cells a side of a thumbnail
ORIENTATIONS = (
    "as it is",
    "turned by 90°",
    "turned by 180°",
    "turned by 270°",
    "mirrored",
    "mirrored and turned by 90°",
    "mirrored and turned by 180°",
    "mirrored and turned by 270°",
)
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
_FREQUENCIES = 8

Floats = NDArray[np.float32]
Hashes = NDArray[np.uint64]

# DCT-II without its scale factors, which do not change a sign; float32, 8 x 32.
_COSINES: Floats = np.cos(np.pi * np.outer(np.arange(_FREQUENCIES), np.arange(SIDE) + 0.5) / SIDE).astype(
    np.float32
)


def luminance(pixels: NDArray[np.uint8]) -> Floats:
    """Luminance (0 to 255) of uint8 pixels, N x H x W x 3 -> float32, N x H x W."""
    grey: Floats = np.matmul(pixels.astype(np.float32), _LUMA)
    return grey


def area_matrix(length: int, start: float, stop: float, cells: int) -> Floats:
    """Weights (float32, cells x length) that average a line of pixels from ``start`` to ``stop`` over equal cells."""
    edges = np.linspace(start, stop, cells + 1)
    pixel = np.arange(length)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    weights = np.clip(overlap, 0, None)
    weights = weights / weights.sum(axis=1, keepdims=True)
    return np.asarray(weights, dtype=np.float32)


def _averaged(fields: Floats, down: Floats, across: Floats) -> Floats:
    """``down`` x fields x ``across`` transposed: N x H x W -> N x rows x columns."""
    found: Floats = np.matmul(np.matmul(down, fields), across.T)
    return found


def centre_squares(fields: Floats, cells: int) -> Floats:
    """The centre square of each field, area-averaged: float32, N x H x W -> N x ``cells`` x ``cells``."""
    height, width = fields.shape[1:]
    side = min(height, width)
    top, left = (height - side) / 2, (width - side) / 2
    rows = area_matrix(height, top, top + side, cells)
    columns = area_matrix(width, left, left + side, cells)
    return _averaged(fields, rows, columns)


def scaled(fields: Floats, ratio: float) -> Floats:
    """Fields resized so that a window of 1 / ``ratio`` of their short side covers 32 x 32 cells.

    Returns:
        float32, N x h x w with min(h, w) = 32 ``ratio``, rounded down; a remainder at the right and below is left out.
    """
    height, width = fields.shape[1:]
    cell = min(height, width) / (SIDE * ratio)  # in pixels
    rows, columns = int(height / cell + 1e-6), int(width / cell + 1e-6)
    down = area_matrix(height, 0, rows * cell, rows)
    across = area_matrix(width, 0, columns * cell, columns)
    return _averaged(fields, down, across)


def orient(squares: NDArray[np.float32], orientation: int) -> Floats:
    """Squares (... x S x S) in one of the eight orientations, by its place in :data:`ORIENTATIONS`.

    Mirrored means left and right exchanged; the turns, counter-clockwise, come after.
    """
    squares = squares[..., ::-1] if orientation >= 4 else squares
    return np.rot90(squares, orientation % 4, axes=(-2, -1))


def _packed(coefficients: Floats) -> Hashes:
    """Signs of ... x 8 x 8 coefficients as one uint64 each, ... ."""
    positive = coefficients > 0
    positive[..., 0, 0] = False
    bits = np.packbits(positive.reshape(*positive.shape[:-2], -1), axis=-1)
    return np.ascontiguousarray(bits).view(np.uint64)[..., 0]


def hashes(squares: Floats) -> Hashes:
    """Hashes of thumbnails: ... x 32 x 32 -> uint64, ... ."""
    return _packed(_averaged(squares, _COSINES, _COSINES))


def oriented_hashes(squares: Floats) -> Hashes:
    """Hashes in the eight orientations: N x 32 x 32 -> uint64, 8 x N."""
    return np.stack([hashes(orient(squares, o)) for o in range(len(ORIENTATIONS))])


def window_hashes(field: Floats, step: int) -> Hashes:
    """Hashes of the windows of 32 x 32 cells, ``step`` cells apart: h x w -> uint64, rows x columns."""
    across = sliding_window_view(field, SIDE, axis=1)[:, ::step] @ _COSINES.T
    down = sliding_window_view(across, SIDE, axis=0)[::step] @ _COSINES.T
    return _packed(down.swapaxes(-2, -1))  # vertical frequency first, as in hashes()


def local_contrast(square: Floats) -> Floats:
    """What each cell (... H x W) has more than the 7 x 7 cells about it on average.

    Fields of low contrast resemble each other by their shading alone: unrelated drawn ones correlate by up to 0.94,
    and by up to 0.71 without it.
    """
    axes = (square.ndim - 2, square.ndim - 1)
    return square - uniform_filter(square, size=7, mode="reflect", axes=axes)


def best_correlation(square: Floats, patch: Floats) -> tuple[float, int, int]:
    """The highest Pearson correlation of a square's local contrast with that of windows of its size in a patch.

    Args:
        square: S x S.
        patch: at least S x S; every window of S x S in it is tried.

    Returns:
        The correlation (0 where one side is of a single grey) and the window's first row and column.
    """
    side = len(square)
    contrast = local_contrast(square)
    contrast -= contrast.mean()
    windows = sliding_window_view(local_contrast(patch), (side, side))
    products = np.einsum("ijkl,kl->ij", windows, contrast)
    spread = np.einsum("ijkl,ijkl->ij", windows, windows) - windows.sum(axis=(-2, -1)) ** 2 / side**2
    scale = np.sqrt(np.maximum(spread, 0) * (contrast**2).sum())
    found = np.where(scale > 1e-3 * side**2, products / np.maximum(scale, 1e-9), 0.0)
    row, column = np.unravel_index(int(found.argmax()), found.shape)
    return float(found[row, column]), int(row), int(column)
