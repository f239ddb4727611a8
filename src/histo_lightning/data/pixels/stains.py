"""How strongly images are stained, in which cases differ more than classes: mean colour, haematoxylin, eosin, tissue."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# Optical density of haematoxylin, eosin and DAB in red, green and blue: Ruifrok and Johnston 2001, table 1.
HED = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
BASIS = np.array(HED) / np.linalg.norm(HED, axis=1, keepdims=True)  # a stain a row, of length 1
UNMIXING = np.linalg.inv(BASIS)  # optical density (a row vector) times this is the amount of each stain
COLUMNS = ("red", "green", "blue", "haematoxylin", "eosin", "tissue")
TISSUE_DENSITY = 0.15  # as in Macenko et al. 2009
ROWS_AT_ONCE = 32
PixelSource = Callable[[NDArray[np.int64]], NDArray[np.uint8]]

# Optical density -log10(I / 255) by intensity; 0 counts as 1, since nothing is infinitely dense.
_DENSITY = -np.log10(np.maximum(np.arange(256), 1) / 255).astype(np.float32)


def stain_statistics(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean intensities (0 to 255) and amounts of stains (decadic optical density), and the share (0 to 1) of tissue.

    Of each image, uint8 RGB, N x H x W x 3 -> float64, N x 6, see :data:`COLUMNS`. Tissue: a mean density above 0.15.
    """
    colour = pixels.mean(axis=(1, 2), dtype=np.float64)
    density = _DENSITY[pixels]
    amounts = density.mean(axis=(1, 2), dtype=np.float64) @ UNMIXING  # which is linear
    tissue = (density.sum(axis=3) > 3 * TISSUE_DENSITY).mean(axis=(1, 2))
    return np.column_stack([colour, amounts[:, :2], tissue])


def measure_stains(pixels: PixelSource, count: int) -> NDArray[np.float64]:
    """:func:`stain_statistics` of ``count`` images (count x 6); ``pixels``: rows -> uint8 RGB, at most 32 at a time."""
    chunks = np.split(np.arange(count, dtype=np.int64), range(ROWS_AT_ONCE, count, ROWS_AT_ONCE))
    return np.concatenate([stain_statistics(pixels(rows)) for rows in chunks])
