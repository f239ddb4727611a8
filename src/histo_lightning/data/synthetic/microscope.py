"""A synthetic tissue seen through a microscope: dyes whose densities add up (Ruifrok and Johnston 2001), light, focus, sensor."""

import math
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, map_coordinates

from histo_lightning.data.pixels.decode import image_height
from histo_lightning.data.synthetic.tissue import STAINS, Floats, Tissue, depth_in, generator, stain, trait

UM_PER_PX = {40: 0.49, 100: 0.20, 200: 0.10, 400: 0.05}  # nominal, at 700 pixels wide
Plane = NDArray[np.float32]


@cache
def _noise_tile() -> Plane:
    """1024 x 1024 smooth noise that wraps, mean 0, deviation 1; a feature is 8 cells wide."""
    white = generator("noise tile").standard_normal((1024, 1024))
    smooth = gaussian_filter(white, 3.2, mode="wrap")
    return np.asarray((smooth - smooth.mean()) / smooth.std(), dtype=np.float32)


def _noise(u: Floats, v: Floats, long_um: float, short_um: float) -> Plane:
    """Noise at tissue coordinates (um), features ``long_um`` along u and ``short_um`` along v: alike at any scale."""
    at = np.stack([v * (8 / short_um), u * (8 / long_um)])
    return np.asarray(map_coordinates(_noise_tile(), at, order=1, mode="grid-wrap"))


def _step(distance: Floats, width: float) -> Plane:
    """0 to 1 as a signed distance passes 0, over ``width``."""
    return np.asarray(np.clip(distance / width + 0.5, 0, 1), dtype=np.float32)


def _depths(glands: NDArray[np.void], x: Floats, y: Floats) -> tuple[Plane, Plane]:
    """Depth below outlines and below walls (um, H x W) of all glands, at columns ``x`` and rows ``y``."""
    depth = np.full((len(y), len(x)), -40.0, np.float32)
    lumen = depth.copy()
    for gland in glands:
        reach = gland["radius"] * (1 + 1.4 * gland["wobble"]) * math.sqrt(gland["stretch"]) + 16
        columns = slice(*np.searchsorted(x, (gland["x"] - reach, gland["x"] + reach)))
        rows = slice(*np.searchsorted(y, (gland["y"] - reach, gland["y"] + reach)))
        here = depth_in(gland, x[None, columns], y[rows, None]).astype(np.float32)
        np.maximum(depth[rows, columns], here, out=depth[rows, columns])
        np.maximum(lumen[rows, columns], here - gland["wall"], out=lumen[rows, columns])
    return depth, lumen


def _labels(nuclei: NDArray[np.void], um: float, height: int, width: int) -> NDArray[np.int32]:
    """Which nucleus (from 1) covers a pixel; 0 none; H x W."""
    theta = np.linspace(0, 2 * np.pi, 14 if um > 0.6 else 36, endpoint=False)
    phase = nuclei["phase"][:, None]
    radius = 1 + nuclei["ragged"][:, None] * (np.cos(2 * theta + phase) + np.cos(3 * theta - phase))
    u, v = nuclei["long"][:, None] * radius * np.cos(theta), nuclei["short"][:, None] * radius * np.sin(theta)
    cos, sin = np.cos(nuclei["angle"])[:, None], np.sin(nuclei["angle"])[:, None]
    px = (nuclei["x"][:, None] + u * cos - v * sin) / um + (width - 1) / 2
    py = (nuclei["y"][:, None] + u * sin + v * cos) / um + (height - 1) / 2
    image = Image.new("I", (width, height), 0)
    draw = ImageDraw.Draw(image)
    for i, corners in enumerate(np.stack([px, py], axis=2).reshape(len(nuclei), -1).tolist()):
        draw.polygon(corners, fill=i + 1)
    return np.asarray(image, dtype=np.int32)


def _chromatin(nuclei: NDArray[np.void], x: Floats, y: Floats, m: float) -> Plane:
    """Haematoxylin at points inside nuclei: a rim, clumps, a nucleolus; ``nuclei`` holds the nucleus of each point."""
    dx, dy = x - nuclei["x"], y - nuclei["y"]
    cos, sin = np.cos(nuclei["angle"]), np.sin(nuclei["angle"])
    u, v = (dx * cos + dy * sin) / nuclei["long"], (dy * cos - dx * sin) / nuclei["short"]
    rim = np.minimum(u * u + v * v, 1.2) ** 2
    clumps = _noise(x, y, 1.5, 1.5) + 0.6 * _noise(y, x, 0.7, 0.7)
    phase = nuclei["phase"]
    spot = np.hypot(u - 0.35 * np.cos(3 * phase), v - 0.35 * np.sin(5 * phase)) / nuclei["spot"]
    value = 0.72 + 0.28 * rim + (0.08 + 0.15 * m) * clumps + 0.55 * np.clip(1.5 - spot, 0, 1)
    return np.asarray(np.maximum(nuclei["dark"] * value, 0.15), dtype=np.float32)


def _dyes(tissue: Tissue, um: float, height: int, width: int) -> tuple[Plane, Plane]:
    """Concentrations of haematoxylin and eosin, H x W each: stroma, then glands and nuclei over it."""
    m, soft, of_case = tissue.malignancy, max(um, 0.5), partial(trait, tissue.seed, tissue.case)
    rows, columns = ((np.arange(n, dtype=np.float32) - (n - 1) / 2) * np.float32(um) for n in (height, width))
    depth, lumen = _depths(tissue.glands, columns, rows)
    x, y = np.meshgrid(columns + tissue.origin[0], rows + tissue.origin[1])
    cos, sin, thick = math.cos(tissue.direction), math.sin(tissue.direction), of_case("fibre")
    patches = _noise(y, x, 28, 28)
    # Collagen bundles run in the tissue's direction, bend slowly and hug the glands.
    along, across = x * cos + y * sin, y * cos - x * sin + 7 * _noise(x, y, 70, 70)
    across += 9 * np.exp(np.minimum(depth, 0) / 12)
    fibres = _noise(along, across, 9 * thick, thick) + 0.5 * _noise(along, across, 3 * thick, 0.4 * thick)

    eosin = np.maximum(0.62 + 0.16 * of_case("contrast") * fibres + 0.06 * patches, 0.12)
    # Benign stroma is more myxoid: as much blue as malignant nuclei add, so that mean colour hides the class.
    haematoxylin = 0.10 + 0.18 * (0.5 - m) + 0.02 * patches
    # Malignant nests shrink from their stroma: about as much white as the lumens that they lose.
    bright = 1 - 0.8 * _step(depth + 3.5 * m, soft) * _step(patches + 0.4, 0.6)
    eosin, haematoxylin = eosin * bright + 0.25 * np.exp(-((depth / 1.2) ** 2)), haematoxylin * bright
    inside, hollow = _step(depth, soft), _step(lumen, soft)
    haematoxylin += inside * (0.20 + 0.03 * patches - haematoxylin)
    haematoxylin += hollow * (0.015 - haematoxylin)
    eosin += inside * (0.42 * of_case("cytoplasm") + 0.05 * patches - eosin)
    eosin += hollow * (0.05 - eosin)

    labels = _labels(tissue.nuclei, um, height, width)
    row, column = np.nonzero(labels)
    nuclei = tissue.nuclei[labels[row, column] - 1]
    haematoxylin[row, column] = _chromatin(nuclei, columns[column], rows[row], m)
    eosin[row, column] = 0.30
    return haematoxylin, eosin


def render(tissue: Tissue, magnification: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A photograph of a tissue about its centre: uint8, H x W x 3 RGB; ``rng`` draws focus, light and sensor noise."""
    um, height = UM_PER_PX[magnification] * 700 / width, image_height(width)
    focus = trait(tissue.seed, tissue.case, "focus")
    focus_px = max(focus * rng.uniform(0.8, 1.4) / um, 0.55)  # nuclei are drawn without antialiasing
    density = np.full((height, width, 3), trait(tissue.seed, tissue.case, "glass"))
    for dye, amount in zip(STAINS, _dyes(tissue, um, height, width), strict=True):
        density += gaussian_filter(amount, focus_px)[..., None] * stain(tissue.seed, tissue.case, dye)
    v, u = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    slope_u, slope_v = rng.normal(0, 0.02, 2)
    light = rng.uniform(0.97, 1.03) * (1 + slope_u * u + slope_v * v - rng.uniform(0, 0.06) * (u * u + v * v))
    picture = 255 * light[..., None] * np.exp(-density)
    picture += 2.0 * rng.standard_normal(picture.shape, dtype=np.float32)
    return np.asarray(np.clip(np.rint(picture), 0, 255), dtype=np.uint8)
