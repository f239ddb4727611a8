"""A synthetic tissue seen through a microscope: dyes, light, focus and sensor, at one of the four magnifications.

Colour is mixed as in a real slide (Ruifrok and Johnston 2001): concentrations of haematoxylin and eosin times
their optical densities add up, and light falls off exponentially with the sum.
"""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from histo_lightning.data.pixels.decode import image_height
from histo_lightning.data.synthetic.cohort import generator
from histo_lightning.data.synthetic.tissue import Tissue, below

UM_PER_PX = {40: 0.49, 100: 0.20, 200: 0.10, 400: 0.05}  # nominal, at 700 pixels wide
FINE_UM = 0.6  # per pixel; above, fibrils and granules are thinner than a pixel
Plane = NDArray[np.float32]
Coordinates = NDArray[np.floating]


class _View:
    """The window that a photograph shows, about the tissue's centre.

    ``um``: per pixel; ``columns``, ``rows``: pixel centres, um; ``x``, ``y``: the same as H x W planes.
    """

    def __init__(self, um: float, width: int) -> None:
        self.um, self.width = um, width
        self.height = image_height(width)
        self.columns = ((np.arange(width) - (width - 1) / 2) * um).astype(np.float32)
        self.rows = ((np.arange(self.height) - (self.height - 1) / 2) * um).astype(np.float32)
        self.x = np.broadcast_to(self.columns, (self.height, width))
        self.y = np.broadcast_to(self.rows[:, None], (self.height, width))


@cache
def _noise_tile() -> Plane:
    """1024 x 1024 smooth noise that wraps, mean 0, deviation 1; a feature is 8 cells wide."""
    white = generator("noise tile").standard_normal((1024, 1024))
    smooth = gaussian_filter(white, 3.2, mode="wrap")
    return np.asarray((smooth - smooth.mean()) / smooth.std(), dtype=np.float32)


def _noise(u: Coordinates, v: Coordinates, long_um: float, short_um: float) -> Plane:
    """Noise at tissue coordinates (um), features ``long_um`` along u and ``short_um`` along v: alike at any scale.

    Bilinear, on a tile that wraps; twice as fast as ``scipy.ndimage.map_coordinates``, and most of the time goes here.
    """
    tile = _noise_tile().ravel()
    right, low = u * np.float32(8 / long_um), v * np.float32(8 / short_um)
    column, row = np.floor(right), np.floor(low)
    right, low = right - column, low - row
    column, row = column.astype(np.int32) & 1023, row.astype(np.int32) & 1023
    next_column, next_row = (column + 1) & 1023, ((row + 1) & 1023) * 1024
    row *= 1024
    upper = tile[row + column] * (1 - right) + tile[row + next_column] * right
    lower = tile[next_row + column] * (1 - right) + tile[next_row + next_column] * right
    return np.asarray(upper * (1 - low) + lower * low)


def _step(distance: NDArray[np.floating], width: float) -> Plane:
    """0 to 1 as a signed distance passes 0, over ``width``."""
    return np.asarray(np.clip(distance / width + 0.5, 0, 1), dtype=np.float32)


def _fields(blobs: NDArray[np.void], view: _View) -> tuple[Plane, Plane]:
    """Depth below outlines and below walls (um, H x W) of a union of blobs."""
    x, y = view.columns, view.rows
    depth = np.full(view.x.shape, -40.0, np.float32)
    lumen = depth.copy()
    for blob in blobs:
        reach = blob["radius"] * (1 + 1.4 * blob["wobble"]) * np.sqrt(blob["stretch"]) + 16
        left, right = np.searchsorted(x, (blob["x"] - reach, blob["x"] + reach))
        top, bottom = np.searchsorted(y, (blob["y"] - reach, blob["y"] + reach))
        if left == right or top == bottom:
            continue
        box = np.s_[top:bottom, left:right]
        here = below(blob, x[None, left:right], y[top:bottom, None]).astype(np.float32)
        np.maximum(depth[box], here, out=depth[box])
        np.maximum(lumen[box], here - np.float32(blob["wall"]), out=lumen[box])
    return depth, lumen


def _labels(nuclei: NDArray[np.void], view: _View) -> NDArray[np.int32]:
    """Which nucleus (from 1) covers a pixel; 0 none; H x W."""
    theta = np.linspace(0, 2 * np.pi, 14 if view.um > FINE_UM else 36, endpoint=False)
    phase, ragged = nuclei["phase"][:, None], nuclei["ragged"][:, None]
    radius = 1 + ragged * (
        np.cos(2 * theta + phase) + np.cos(3 * theta - phase) + 0.7 * np.cos(5 * theta + 2 * phase)
    )
    u, v = nuclei["long"][:, None] * radius * np.cos(theta), nuclei["short"][:, None] * radius * np.sin(theta)
    cos, sin = np.cos(nuclei["angle"])[:, None], np.sin(nuclei["angle"])[:, None]
    px = (nuclei["x"][:, None] + u * cos - v * sin) / view.um + (view.width - 1) / 2
    py = (nuclei["y"][:, None] + u * sin + v * cos) / view.um + (view.height - 1) / 2
    image = Image.new("I", (view.width, view.height), 0)
    draw = ImageDraw.Draw(image)
    for i, corners in enumerate(np.stack([px, py], axis=2).reshape(len(nuclei), -1).tolist()):
        draw.polygon(corners, fill=i + 1)
    return np.asarray(image, dtype=np.int32)


def _chromatin(nuclei: NDArray[np.void], x: Plane, y: Plane, origin: tuple[float, float]) -> Plane:
    """Haematoxylin at points inside nuclei; ``nuclei`` holds the nucleus of each point."""
    dx, dy = x - nuclei["x"], y - nuclei["y"]
    cos, sin = np.cos(nuclei["angle"]), np.sin(nuclei["angle"])
    u, v = (dx * cos + dy * sin) / nuclei["long"], (dy * cos - dx * sin) / nuclei["short"]
    rim = np.minimum(u * u + v * v, 1.2)
    clumps = _noise(x + origin[0], y + origin[1], 1.5, 1.5) + 0.6 * _noise(
        y + origin[0], x + origin[1], 0.7, 0.7
    )
    spot_u, spot_v = 0.35 * np.cos(3 * nuclei["phase"]), 0.35 * np.sin(5 * nuclei["phase"])
    spot = np.clip(1.5 - np.hypot(u - spot_u, v - spot_v) / np.maximum(nuclei["nucleolus"], 1e-3), 0, 1)
    value = nuclei["dark"] * (0.72 + 0.28 * rim**2 + 0.30 * nuclei["coarse"] * clumps + 0.55 * spot)
    return np.asarray(np.maximum(value, 0.15), dtype=np.float32)


def _fibres(tissue: Tissue, view: _View, depth: Plane) -> Plane:
    """Collagen bundles, about 0: they run in the tissue's direction, bend slowly and hug the glands (H x W)."""
    ox, oy = tissue.origin
    cos, sin = np.float32(math.cos(tissue.direction)), np.float32(math.sin(tissue.direction))
    thick = tissue.look.fibre_um
    along = view.x * cos + view.y * sin + ox
    across = view.y * cos - view.x * sin + oy
    across += 7 * _noise(view.x + ox, view.y + oy, 70, 70) + 9 * np.exp(np.minimum(depth, 0) / 12)
    fibres = _noise(along, across, 9 * thick, thick) + 0.5 * _noise(along, across, 3 * thick, 0.4 * thick)
    if view.um < FINE_UM:
        fibres += 0.45 * _noise(along, across, 2 * thick, 0.15 * thick)
    return fibres


def _surround(tissue: Tissue, view: _View, fibres: Plane, patches: Plane) -> tuple[Plane, Plane]:
    """Haematoxylin and eosin between the glands, H x W each: stroma, with pools of mucin or of nothing in it."""
    gaps = _step(fibres - 2.3 + 1.1 * tissue.look.clefts + 0.3 * patches, 0.5)
    eosin = np.maximum(0.62 + 0.16 * tissue.look.fibre_contrast * fibres + 0.06 * patches, 0.12)
    eosin *= 1 - 0.85 * gaps
    # Benign stroma is more myxoid: as much blue as malignant nuclei add, so that mean colour hides the class.
    haematoxylin = (0.10 + 0.18 * (0.5 - tissue.malignancy) + 0.02 * patches) * (1 - 0.7 * gaps)
    if tissue.surround != "stroma":
        pool = _step(_noise(view.x + tissue.origin[0], view.y - tissue.origin[1], 130, 130) + 0.25, 0.3)
        wisps = np.abs(patches)
        empty = tissue.surround == "empty"
        eosin += pool * ((0.05 if empty else 0.16) + 0.03 * wisps - eosin)
        haematoxylin += pool * ((0.02 if empty else 0.11) + 0.04 * wisps - haematoxylin)
    return haematoxylin, eosin


def _dyes(tissue: Tissue, view: _View) -> tuple[Plane, Plane]:
    """Concentrations of haematoxylin and eosin, H x W each: surroundings, then glands, fat and nuclei over them."""
    ox, oy = tissue.origin
    depth, lumen = _fields(tissue.glands, view)
    fibres = _fibres(tissue, view, depth)
    patches = _noise(view.x + oy, view.y + ox, 28, 28)
    haematoxylin, eosin = _surround(tissue, view, fibres, patches)

    papillae = tissue.surround == "empty"
    soft = max(view.um, 0.5)
    # Malignant nests shrink from their stroma: about as much white as the lumens that they lose, so that the class
    # does not show in the mean colour.
    cleft = _step(depth + 3.5 * tissue.malignancy, soft) * _step(patches + 0.4, 0.6)
    eosin *= 1 - 0.8 * cleft
    haematoxylin *= 1 - 0.8 * cleft
    if not papillae:  # a thin basement membrane
        eosin += 0.25 * np.exp(-((depth / 1.2) ** 2))
    grain = _noise(view.x + ox, view.y + oy, 2.2, 2.2) if view.um < FINE_UM else patches
    inside = _step(depth, soft)
    haematoxylin += inside * (0.20 + 0.03 * grain - haematoxylin)
    eosin += inside * (0.42 * tissue.look.cytoplasm + 0.05 * grain - eosin)
    hollow = _step(lumen, soft)
    haematoxylin += hollow * ((0.06 if papillae else 0.015) - haematoxylin)
    eosin += hollow * ((0.55 + 0.12 * fibres if papillae else 0.05) - eosin)

    outer, inner = _fields(tissue.fat, view)
    vacuole = _step(outer, soft)
    haematoxylin *= 1 - vacuole
    eosin += vacuole * (0.55 - eosin)
    eosin *= 1 - 0.97 * _step(inner, soft)

    labels = _labels(tissue.nuclei, view)
    covered = np.nonzero(labels)
    owners = tissue.nuclei[labels[covered] - 1]
    haematoxylin[covered] = _chromatin(owners, view.x[covered], view.y[covered], tissue.origin)
    eosin[covered] = 0.30
    return haematoxylin, eosin


def _light(rng: np.random.Generator, height: int, width: int) -> Plane:
    """Uneven illumination: a slope and a fall-off towards the corners, H x W about 1."""
    v, u = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    slope_u, slope_v = rng.normal(0, 0.02, 2)
    falloff = rng.uniform(0.0, 0.06)
    light = rng.uniform(0.97, 1.03) * (1 + slope_u * u + slope_v * v - falloff * (u * u + v * v))
    return np.asarray(light, dtype=np.float32)


def render(tissue: Tissue, magnification: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A photograph of a tissue: uint8, H x W x 3 RGB, ``width`` pixels wide, about the tissue's centre.

    Args:
        magnification: 40, 100, 200 or 400.
        rng: draws what differs between photographs of one tissue: focus, light and sensor noise.
    """
    view, look = _View(UM_PER_PX[magnification] * 700 / width, width), tissue.look
    focus_px = max(
        look.focus_um * rng.uniform(0.8, 1.4) / view.um, 0.55
    )  # nuclei are drawn without antialiasing
    density = look.glass.astype(np.float32) * np.ones((view.height, width, 1), np.float32)
    for dye, spectrum in zip(_dyes(tissue, view), (look.haematoxylin, look.eosin), strict=True):
        density += gaussian_filter(dye, focus_px)[..., None] * spectrum.astype(np.float32)
    picture = 255 * _light(rng, view.height, width)[..., None] * np.exp(-density)
    picture += 2.0 * rng.standard_normal(picture.shape, dtype=np.float32)
    return np.asarray(np.clip(np.rint(picture), 0, 255), dtype=np.uint8)
