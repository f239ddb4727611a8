"""Who the synthetic cases are, and what is where in a piece of their tissue.

The class is hidden in how nuclei and glands look, by a latent malignancy
``class mean + case effect + slide effect + image effect``: cases of one class differ far more than images of one case.
Stain and fibres vary by case whatever the class: a split that puts one case on both sides rewards learning them.
"""

import hashlib
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.stats import norm

from histo_lightning.data.breakhis.names import CLASSES, SUBTYPES, Name, census

Floats = NDArray[np.floating]
Objects = NDArray[np.void]  # glands or nuclei, a record each

# Latent malignancy, 0 to 1: classes lie 2 * CLASS_SHIFT apart and overlap by case, the ceiling of a case split.
CLASS_SHIFT, CASE_SPREAD, SLIDE_SPREAD, IMAGE_SPREAD = 0.315, 0.17, 0.03, 0.05
STAINS = {"haematoxylin": (0.62, 0.66, 0.30), "eosin": (0.12, 0.72, 0.34)}  # mean optical density in R, G, B
TRAITS = {  # least and most of a case's traits, whatever its class
    "haematoxylin": (0.74, 1.3),  # strength of the stain
    "eosin": (0.74, 1.3),
    "glass": (0.04, 0.14),  # optical density of the empty slide
    "fibre": (2.5, 8.0),  # thickness of collagen bundles, um
    "contrast": (0.4, 1.1),  # of collagen bundles
    "cytoplasm": (0.6, 1.3),
    "cellularity": (0.6, 1.7),
    "coverage": (0.3, 1.0),
    "focus": (0.06, 0.22),  # blur, um
}
WIDTH_UM, HEIGHT_UM = 343.0, 225.4  # the field at 40X: 700 x 460 pixels of 0.49 um
MARGIN_UM = 14.0  # objects that reach into the field from outside
OWN_LAYOUT = 0.5  # of slides are laid out as their subtype, the others as any: else it gave the class away
GLAND = np.dtype([(n, "f8") for n in ["x", "y", "radius", "stretch", "angle", "wobble", "phase", "wall"]])
NUCLEUS = np.dtype(
    [(n, "f8") for n in ["x", "y", "long", "short", "angle", "ragged", "dark", "spot", "phase"]]
)
# Of a subtype: tries to place a gland; smallest and largest radius, um; largest stretch, long over short axis; wobble of
# outlines; share of glands with a lumen; stromal cells per 100 um square.
LAYOUTS = {
    "A": (260, (10, 19), 1.5, 0.10, 0.95, 9),
    "F": (60, (15, 26), 4.0, 0.16, 0.95, 10),
    "PT": (50, (24, 40), 4.5, 0.20, 0.95, 14),
    "TA": (500, (12, 16), 1.3, 0.06, 0.95, 7),
    "DC": (160, (13, 36), 2.2, 0.20, 0.50, 9),
    "LC": (90, (7, 14), 1.8, 0.18, 0.30, 16),
    "MC": (60, (13, 30), 2.0, 0.18, 0.45, 4),
    "PC": (140, (13, 19), 4.5, 0.16, 0.95, 3),
}


def generator(*key: object) -> np.random.Generator:
    """A generator that depends on the key alone, on any machine and in any process."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


@cache
def _rank(seed: int, quantity: str) -> dict[str, float]:
    """A value from 0 to 1 for each case, dealt at random and evenly spread over each class: no class is paler by chance."""
    values: dict[str, float] = {}
    slides = [entry.names()[0] for entry in census().values()]
    for class_name in CLASSES:
        cases = sorted({name.case for name in slides if name.class_name == class_name})
        ranks = generator(seed, quantity, class_name).permutation(len(cases))
        values.update(zip(cases, ((ranks + 0.5) / len(cases)).tolist(), strict=True))
    return values


def trait(seed: int, case: str, name: str) -> float:
    """One of :data:`TRAITS` of a case (``14-22549``)."""
    least, most = TRAITS[name]
    return float(least * (most / least) ** _rank(seed, name)[case])


def stain(seed: int, case: str, dye: str) -> Floats:
    """Optical density in R, G and B per unit of a dye, as a case's laboratory stains."""
    shifts = np.array([norm.ppf(_rank(seed, f"{dye} {channel}")[case]) for channel in "RGB"])
    return np.asarray((np.array(STAINS[dye]) + 0.03 * shifts) * trait(seed, case, dye))


def malignancy_of(seed: int, name: Name, sequence: int) -> float:
    """The latent malignancy of a field of a slide, 0 to 1."""
    value = 0.5 + (CLASS_SHIFT if name.class_name == "malignant" else -CLASS_SHIFT)
    value += CASE_SPREAD * float(norm.ppf(_rank(seed, "malignancy")[name.case]))
    value += SLIDE_SPREAD * generator(seed, "slide", name.slide).normal()
    value += IMAGE_SPREAD * generator(seed, "image", name.slide, sequence).normal()
    return float(np.clip(value, 0.0, 1.0))


@dataclass(frozen=True)
class Tissue:
    """One field of a case: objects in um about its centre."""

    seed: int
    case: str
    malignancy: float
    glands: NDArray[np.void]  # GLAND
    nuclei: NDArray[np.void]  # NUCLEUS
    direction: float  # of the fibres, radians
    origin: tuple[float, float]  # of the field in the noise, um


def outline(gland: np.void, theta: Floats) -> Floats:
    """Radius of a gland's outline at angles ``theta``, in its own unstretched frame, um."""
    phase = gland["phase"]
    waves = np.cos(2 * theta + phase) + np.cos(3 * theta - 2 * phase) + 0.5 * np.cos(5 * theta + 3 * phase)
    return np.asarray(gland["radius"] * (1 + 0.5 * gland["wobble"] * waves))


def depth_in(gland: np.void, x: Floats, y: Floats) -> Floats:
    """How deep points lie below a gland's outline, um, to first order; negative outside."""
    dx, dy = x - gland["x"], y - gland["y"]
    cos, sin, root = np.cos(gland["angle"]), np.sin(gland["angle"]), np.sqrt(gland["stretch"])
    u, v = (dx * cos + dy * sin) / root, (dy * cos - dx * sin) * root
    rho = np.hypot(u, v) + 1e-6  # no 0 over 0 at the very centre
    steepness = np.hypot(u / root, v * root) + 1e-6
    return np.asarray((outline(gland, np.arctan2(v, u)) - rho) * (rho / steepness))


def _glands(rng: Generator, subtype: str, wall: float, solid: float, coverage: float) -> Objects:
    """Glands at random that do not overlap; ``wall``: of epithelium, um; ``solid``: share of lumens that are lost."""
    tries, radii, longest, wobble, lumen, _ = LAYOUTS[subtype]
    glands = np.zeros(0, GLAND)
    lean = rng.uniform(0, np.pi)
    reach = np.array([WIDTH_UM, HEIGHT_UM]) / 2 + MARGIN_UM
    for attempt in range(round(tries * coverage)):
        # The first lies at the centre, its wall in the middle of the 400X field: people photograph what matters.
        x, y = rng.uniform(-reach, reach) * (1.0 if attempt else 0.05)
        radius, stretch = rng.uniform(*radii), rng.uniform(1, longest)
        depth = wall if rng.uniform() < lumen * (1 - solid) else 1e3
        # Stretched glands lean one way and may lie side by side: distance counts more across than along.
        dx, dy = x - glands["x"], y - glands["y"]
        along = (dx * np.cos(lean) + dy * np.sin(lean)) / np.sqrt(stretch)
        across = (dy * np.cos(lean) - dx * np.sin(lean)) * np.sqrt(stretch)
        angle, wobbling = lean + rng.normal(0, 0.5), wobble * rng.uniform(0.5, 1.2)
        gland = (x, y, radius, stretch, angle, wobbling, rng.uniform(0, 2 * np.pi), depth)
        if np.all(np.hypot(along, across) > 1.04 * (radius + glands["radius"])):
            glands = np.append(glands, np.array([gland], GLAND))
    return glands


def _lining(rng: np.random.Generator, gland: np.void, m: float, spacing: float, inwards: float) -> Floats:
    """Cells that line or fill a gland, N x (x, y, direction): rows at growing depth, shaken out of order by malignancy."""
    rows = [np.zeros((3, 0))]
    root, cos, sin = np.sqrt(gland["stretch"]), np.cos(gland["angle"]), np.sin(gland["angle"])
    for depth in np.arange(0.5 * inwards, min(gland["wall"] - 0.3 * spacing, gland["radius"]), inwards):
        theta = np.linspace(0, 2 * np.pi, 97)
        inset = depth * np.hypot(np.cos(theta) / root, np.sin(theta) * root)
        rho = np.maximum(outline(gland, theta) - inset, 0)
        u, v = rho * np.cos(theta) * root, rho * np.sin(theta) / root
        length = np.append(0, np.cumsum(np.hypot(np.diff(u), np.diff(v))))
        at = np.arange(round(length[-1] / spacing)) * spacing
        u, v, theta = (np.interp(at, length, values) for values in (u, v, theta))
        x, y = gland["x"] + u * cos - v * sin, gland["y"] + u * sin + v * cos
        rows.append(np.stack([x, y, theta + gland["angle"]]))
    cells = np.concatenate(rows, axis=1).T
    cells[:, :2] += rng.normal(0, (0.05 + 0.30 * m) * spacing, (len(cells), 2))
    return cells


def _scattered(rng: np.random.Generator, per_area: float, direction: float) -> Floats:
    """Cells at random in the field, about along the fibres; ``per_area`` is per 100 um square."""
    width, height = WIDTH_UM + 2 * MARGIN_UM, HEIGHT_UM + 2 * MARGIN_UM
    count = rng.poisson(per_area * width * height / 1e4)
    x, y = rng.uniform(-0.5, 0.5, (2, count))
    return np.column_stack([x * width, y * height, direction + rng.normal(0, 0.3, count)])


def _nuclei(rng: Generator, cells: Floats, size: float, m: float, aspect: float, dark: float) -> Objects:
    """Nuclei of cells: ``size`` is the mean radius in um; malignancy ``m`` makes them vary."""
    count = len(cells)
    nuclei = np.zeros(count, NUCLEUS)
    radius = size * np.exp(rng.normal(0, 0.05 + 0.25 * m, count))
    ratio = np.sqrt(aspect * np.exp(np.abs(rng.normal(0, 0.08 + 0.14 * m, count))))
    nuclei["x"], nuclei["y"] = cells[:, 0], cells[:, 1]
    nuclei["long"], nuclei["short"] = radius * ratio, radius / ratio
    nuclei["angle"] = cells[:, 2] + rng.normal(0, 0.12 + 0.7 * m, count)
    nuclei["ragged"] = (0.015 + 0.09 * m) * rng.uniform(0.5, 1.5, count)
    nuclei["dark"] = dark * np.exp(rng.normal(0, 0.05 + 0.16 * m, count))
    has_spot = rng.uniform(size=count) < 0.15 + 0.7 * m
    nuclei["spot"] = np.where(has_spot, rng.uniform(0.12, 0.18 + 0.14 * m, count), 1e-3)
    nuclei["phase"] = rng.uniform(0, 2 * np.pi, count)
    return nuclei


def make_tissue(seed: int, name: Name, sequence: int) -> Tissue:
    """Lay out one field of the slide of a name, whatever its magnification and sequence number."""
    m = malignancy_of(seed, name, sequence)
    rng = generator(seed, "layout", name.slide)
    subtype = name.subtype if rng.uniform() < OWN_LAYOUT else str(rng.choice(SUBTYPES))
    coverage = trait(seed, name.case, "coverage") * rng.uniform(0.7, 1.0)

    rng = generator(seed, "tissue", name.slide, sequence)
    direction = rng.uniform(0, np.pi)
    size, dark = 2.2 + 2.5 * m, 1.05 + 0.10 * m
    spacing, inwards = size * (2.2 + 0.5 * m), size * (2.3 + 0.4 * m)
    glands = _glands(rng, subtype, (1.2 + 2.0 * m) * inwards, 0.9 * m, coverage)
    lining = [np.zeros((0, 3)), *(_lining(rng, gland, m, spacing, inwards) for gland in glands)]
    cellularity = LAYOUTS[subtype][-1] * trait(seed, name.case, "cellularity")
    scattered, nuclei = partial(_scattered, rng, direction=direction), partial(_nuclei, rng)
    stroma = scattered(cellularity * (1.7 - 1.4 * m))
    strays = scattered(24.0 * m**2)  # single tumour cells that infiltrate the stroma
    lymphocytes = scattered(rng.exponential(2.5))
    kinds = nuclei(stroma, 2.2, 0.1, 4.5, 0.9), nuclei(strays, size, m, 1.2, dark)
    around = np.concatenate([*kinds, nuclei(lymphocytes, 2.1, 0.0, 1.05, 1.3)])
    outside = np.all([depth_in(gland, around["x"], around["y"]) < -1.5 for gland in glands], axis=0)
    inside = nuclei(np.concatenate(lining), size, m, 1.35 - 0.2 * m, dark)
    origin = (rng.uniform(0, 4000), rng.uniform(0, 4000))
    return Tissue(seed, name.case, m, glands, np.append(inside, around[outside]), direction, origin)
