"""What lies where in a synthetic piece of tissue: glands, fat and nuclei.

A :class:`Tissue` is one field of view of one slide, in micrometres about its centre; the four magnifications look at
the same one.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from histo_lightning.data.breakhis.names import SUBTYPES, Name
from histo_lightning.data.synthetic.cohort import Floats, Look, generator, look_of, malignancy_of

WIDTH_UM, HEIGHT_UM = 343.0, 225.4  # the field at 40X: 700 x 460 pixels of 0.49 um
MARGIN_UM = 14.0  # objects that reach into the field from outside

# Share of slides laid out as their subtype; the others borrow a layout, or it would give the class away.
OWN_LAYOUT = 0.5

BLOB = np.dtype(
    [(name, "f8") for name in ("x", "y", "radius", "stretch", "angle", "wobble", "phase", "wall")]
)
NUCLEUS = np.dtype(
    [
        (name, "f8")
        for name in ("x", "y", "long", "short", "angle", "ragged", "dark", "coarse", "nucleolus", "phase")
    ]
)


@dataclass(frozen=True)
class Layout:
    """How a subtype is built.

    ``glands``: tries to place one; ``radius``: smallest and largest, um; ``stretch``: long over short axis;
    ``wobble``: relative waviness of outlines; ``lumen``: share of glands that keep one; ``surround``: what fills the
    space between glands (``stroma``, ``mucin``, or ``empty``, where glands are papillae with a stromal core);
    ``files``: rows of single cells per 100 um square; ``cells``: stromal nuclei per 100 um square.
    """

    glands: int
    radius: tuple[float, float]
    stretch: tuple[float, float]
    wobble: float
    lumen: float
    surround: str = "stroma"
    files: float = 0.0
    cells: float = 9.0


LAYOUTS = {
    "A": Layout(260, (10, 19), (1.0, 1.5), 0.10, 0.95),
    "F": Layout(50, (15, 26), (2.2, 5.0), 0.16, 0.95, cells=10.0),
    "PT": Layout(40, (24, 40), (2.5, 5.5), 0.20, 0.95, cells=14.0),
    "TA": Layout(500, (12, 16), (1.0, 1.3), 0.06, 0.95, cells=7.0),
    "DC": Layout(160, (13, 36), (1.0, 2.2), 0.20, 0.50),
    "LC": Layout(60, (9, 17), (1.0, 1.8), 0.18, 0.30, files=1.0, cells=8.0),
    "MC": Layout(60, (13, 30), (1.0, 2.0), 0.18, 0.45, surround="mucin", cells=4.0),
    "PC": Layout(140, (13, 19), (2.0, 5.0), 0.16, 0.95, surround="empty", cells=3.0),
}


@dataclass(frozen=True)
class Tissue:
    """One field: objects in um about its centre. ``glands``, ``fat``: BLOB arrays; ``nuclei``: a NUCLEUS array.

    ``direction``: of the fibres, radians; ``origin``: where the field lies in the noise, um.
    """

    look: Look
    malignancy: float
    surround: str
    glands: NDArray[np.void]
    fat: NDArray[np.void]
    nuclei: NDArray[np.void]
    direction: float
    origin: tuple[float, float]


def outline(blob: np.void, theta: Floats) -> Floats:
    """Radius of a blob's outline at angles ``theta``, in its own unstretched frame, um."""
    _, _, radius, _, _, wobble, phase, _ = blob.item()
    waves = (
        0.6 * np.cos(2 * theta + phase)
        + 0.5 * np.cos(3 * theta - 2 * phase)
        + 0.3 * np.cos(5 * theta + 3 * phase)
    )
    return np.asarray(radius * (1 + wobble * waves))


def _placed(
    rng: np.random.Generator, layout: Layout, *, wall: float, solid: float, coverage: float
) -> NDArray[np.void]:
    """Glands thrown at random and kept where they do not lie on each other.

    ``wall``: thickness of the epithelium, um; ``solid``: share of lumens that are lost; ``coverage``: of the tries
    that the layout asks for.
    """
    kept = np.zeros(layout.glands, BLOB)
    count = 0
    reach_x, reach_y = WIDTH_UM / 2 + MARGIN_UM, HEIGHT_UM / 2 + MARGIN_UM
    lean = rng.uniform(0, np.pi)
    for attempt in range(round(layout.glands * coverage)):
        # The first lies at the centre, its wall in the middle of the 400X field: people photograph what matters.
        scale = 1.0 if attempt else 0.05
        x, y = scale * rng.uniform(-reach_x, reach_x), scale * rng.uniform(-reach_y, reach_y)
        radius, stretch = rng.uniform(*layout.radius), rng.uniform(*layout.stretch)
        angle = lean + rng.normal(0, 0.5)
        phase, has_lumen = rng.uniform(0, 2 * np.pi), rng.uniform() < layout.lumen * (1 - solid)
        others = kept[:count]
        # Stretched glands lean one way and may lie side by side: distance counts more across than along.
        dx, dy = x - others["x"], y - others["y"]
        along = (dx * np.cos(lean) + dy * np.sin(lean)) / np.sqrt(stretch)
        across = (dy * np.cos(lean) - dx * np.sin(lean)) * np.sqrt(stretch)
        if np.any(np.hypot(along, across) < 1.04 * (radius + others["radius"])):
            continue
        kept[count] = (
            x, y, radius, stretch, angle, layout.wobble * rng.uniform(0.5, 1.2), phase, wall if has_lumen else 1e3,
        )  # fmt: skip
        count += 1
    return kept[:count]


def _fat(rng: np.random.Generator) -> NDArray[np.void]:
    """Vacuoles packed about a corner of the field, in every fourth field."""
    if rng.uniform() > 0.25:
        return np.zeros(0, BLOB)
    corner_x, corner_y = rng.choice([-1, 1]) * WIDTH_UM / 2, rng.choice([-1, 1]) * HEIGHT_UM / 2
    layout = Layout(60, (17, 30), (1.0, 1.25), 0.04, 1.0)
    found = _placed(rng, layout, wall=0.9, solid=0.0, coverage=1.0)
    near = np.hypot(found["x"] - corner_x, found["y"] - corner_y) < rng.uniform(70, 130)
    return np.asarray(found[near])


def _ring(blob: np.void, depth: float, spacing: float) -> Floats:
    """Equally spaced points at a depth (um) below a gland's outline: N x 3, (x, y, direction of the wall)."""
    theta = np.linspace(0, 2 * np.pi, 129)
    root = np.sqrt(blob["stretch"])
    steepness = np.hypot(np.cos(theta) / root, np.sin(theta) * root)
    rho = outline(blob, theta) - depth * steepness
    if rho.max() < 1.5:
        return np.zeros((0, 3))
    u, v = np.maximum(rho, 0) * np.cos(theta) * root, np.maximum(rho, 0) * np.sin(theta) / root
    steps = np.hypot(np.diff(u), np.diff(v))
    length = np.concatenate([[0.0], np.cumsum(steps)])
    at = np.arange(max(1, round(length[-1] / spacing))) * spacing
    u, v, direction = (
        np.interp(at, length, u),
        np.interp(at, length, v),
        np.interp(at, length, np.unwrap(np.arctan2(np.gradient(v), np.gradient(u)))),
    )
    cos, sin = np.cos(blob["angle"]), np.sin(blob["angle"])
    return np.column_stack(
        [blob["x"] + u * cos - v * sin, blob["y"] + u * sin + v * cos, direction + blob["angle"]]
    )


def _nuclei(
    rng: np.random.Generator, points: Floats, size: float, m: float, *, aspect: float, dark: float
) -> NDArray[np.void]:
    """Nuclei at points (N x 3): ``size`` is the mean radius in um; malignancy ``m`` makes them vary."""
    count = len(points)
    nuclei = np.zeros(count, NUCLEUS)
    radius = size * np.exp(rng.normal(0, 0.05 + 0.25 * m, count))
    ratio = np.sqrt(aspect * np.exp(np.abs(rng.normal(0, 0.08 + 0.14 * m, count))))
    nuclei["x"], nuclei["y"] = points[:, 0], points[:, 1]
    nuclei["long"], nuclei["short"] = radius * ratio, radius / ratio
    nuclei["angle"] = points[:, 2] + rng.normal(0, 0.12 + 0.7 * m, count)
    nuclei["ragged"] = (0.015 + 0.09 * m) * rng.uniform(0.5, 1.5, count)
    nuclei["dark"] = dark * np.exp(rng.normal(0, 0.05 + 0.16 * m, count))
    nuclei["coarse"] = 0.25 + 0.5 * m
    nuclei["nucleolus"] = np.where(
        rng.uniform(size=count) < 0.15 + 0.7 * m, rng.uniform(0.12, 0.18 + 0.14 * m, count), 0
    )
    nuclei["phase"] = rng.uniform(0, 2 * np.pi, count)
    return nuclei


def _epithelium(
    rng: np.random.Generator, gland: np.void, size: float, m: float, spacing: float, inwards: float
) -> Floats:
    """Points of the cells that line or fill a gland: rows at growing depth, shaken out of order by malignancy."""
    rows = []
    depth = 0.5 * inwards
    while depth < min(float(gland["wall"]), 60.0) - 0.3 * size:
        row = _ring(gland, depth, spacing)
        if len(row) == 0:
            break
        rows.append(row)
        depth += inwards
    if not rows:
        return np.zeros((0, 3))
    points = np.concatenate(rows)
    points[:, 2] += np.pi / 2  # columnar cells stand upright on the wall
    points[:, :2] += rng.normal(0, (0.05 + 0.30 * m) * spacing, (len(points), 2))
    return points


def _scattered(rng: np.random.Generator, per_area: float, direction: float) -> Floats:
    """Points at random in the field, about along the fibres; ``per_area`` is per 100 um square."""
    width, height = WIDTH_UM + 2 * MARGIN_UM, HEIGHT_UM + 2 * MARGIN_UM
    count = rng.poisson(per_area * width * height / 1e4)
    x, y = rng.uniform(-0.5, 0.5, (2, count))
    return np.column_stack([x * width, y * height, direction + rng.normal(0, 0.3, count)])


def _files(rng: np.random.Generator, per_area: float, spacing: float, direction: float) -> Floats:
    """Single files of cells that follow the fibres; ``per_area`` is per 100 um square."""
    rows = [np.zeros((0, 3))]
    for start in _scattered(rng, per_area, direction):
        steps = np.arange(rng.integers(4, 13)) * spacing
        bend = start[2] + rng.normal(0, 0.004) * steps
        rows.append(np.column_stack([start[0] + steps * np.cos(bend), start[1] + steps * np.sin(bend), bend]))
    return np.concatenate(rows)


def below(blob: np.void, x: Floats | NDArray[np.float32], y: Floats | NDArray[np.float32]) -> Floats:
    """How deep points lie below a blob's outline, um; negative outside.

    First-order distance: the implicit function over its gradient, ample for walls and rims.
    """
    x0, y0, _, stretch, angle, *_ = blob.item()
    dx, dy = x - x0, y - y0
    cos, sin, root = math.cos(angle), math.sin(angle), math.sqrt(stretch)
    u, v = (dx * cos + dy * sin) / root, (dy * cos - dx * sin) * root
    rho = np.hypot(u, v) + 1e-6  # no 0 over 0 at the very centre
    steepness = np.hypot(u / root, v * root) + 1e-6
    return np.asarray((outline(blob, np.arctan2(v, u)) - rho) * (rho / steepness))


def _outside(blobs: NDArray[np.void], nuclei: NDArray[np.void]) -> NDArray[np.bool_]:
    """Which nuclei lie clear of every blob."""
    clear = np.ones(len(nuclei), bool)
    for blob in blobs:
        clear &= below(blob, nuclei["x"], nuclei["y"]) < -1.5
    return clear


def make_tissue(seed: int, name: Name, sequence: int) -> Tissue:
    """Lay out one field of the slide that a name stands for; its magnification and sequence are not looked at."""
    look, m = look_of(seed, name.case), malignancy_of(seed, name, sequence)
    rng = generator(seed, "layout", name.slide)
    subtype = name.subtype if rng.uniform() < OWN_LAYOUT else str(rng.choice(SUBTYPES))
    layout = LAYOUTS[subtype]
    coverage = look.coverage * rng.uniform(0.7, 1.0)

    rng = generator(seed, "tissue", name.slide, sequence)
    direction = rng.uniform(0, np.pi)
    size = (2.2 + 2.5 * m) * look.nucleus_size
    spacing, inwards = size * (2.2 + 0.5 * m), size * (2.3 + 0.4 * m)
    layers = 1 + rng.uniform(0.0, 0.4) + 2.0 * m
    glands = _placed(rng, layout, wall=layers * inwards, solid=0.9 * m, coverage=coverage)
    fat = _fat(rng)

    groups = []
    epithelium = [_epithelium(rng, gland, size, m, spacing, inwards) for gland in glands]
    rows = np.concatenate([np.zeros((0, 3)), *epithelium, _files(rng, layout.files, spacing, direction)])
    groups.append(_nuclei(rng, rows, size, m, aspect=1.35 - 0.2 * m, dark=1.05 + 0.10 * m))
    stroma = _scattered(rng, layout.cells * look.cellularity * (1.7 - 1.4 * m), direction)
    groups.append(_nuclei(rng, stroma, 2.2, 0.1, aspect=4.5, dark=0.9))
    strays = _scattered(rng, 24.0 * m**2, direction)  # single tumour cells that infiltrate the stroma
    groups.append(_nuclei(rng, strays, size, m, aspect=1.2, dark=1.05 + 0.10 * m))
    lymphocytes = _scattered(rng, rng.exponential(2.5), direction)
    groups.append(_nuclei(rng, lymphocytes, 2.1, 0.0, aspect=1.05, dark=1.3))
    groups[1:] = [group[_outside(glands, group)] for group in groups[1:]]
    nuclei = np.concatenate(groups)
    nuclei = nuclei[_outside(fat, nuclei)]
    return Tissue(
        look, m, layout.surround, glands, fat, nuclei, direction, (rng.uniform(0, 4000), rng.uniform(0, 4000))
    )
