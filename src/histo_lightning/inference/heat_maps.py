"""Heat maps over images, as files and as a page that shows them."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from histo_lightning.report.pages import thumbnail, write_page
from histo_lightning.runs import write_atomic

EMBEDDED = 300  # images on the page; all are in the folder
WIDTH = 560  # pixels of an embedded pair
STRENGTH = 0.55  # of the heat where the evidence is strongest


class HeatMap(NamedTuple):
    """An image of the page: ``picture`` is the pair of field and overlay, uint8 H x W x 3; ``file`` is relative."""

    path: str
    caption: str
    picture: NDArray[np.uint8]
    file: str


def overlay(field: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A field (uint8 H x W x 3) beside itself under a heat map (float32 H x W in [0, 1]): uint8 H x 2W x 3.

    Without evidence the field is unchanged: the colour's share grows with the heat.
    """
    colours = colormaps["inferno"](heat)[:, :, :3] * 255
    share = STRENGTH * heat[:, :, None]
    mixed = field * (1 - share) + colours * share
    return np.concatenate([field, mixed.round().clip(0, 255).astype(np.uint8)], axis=1)


def write_overlay(path: Path, field: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Write the pair as PNG, atomically, and give it back."""
    pair, file = overlay(field, heat), io.BytesIO()
    Image.fromarray(pair).save(file, "png")
    write_atomic(path, file.getvalue())
    return pair


def write_gallery(path: Path, maps: Sequence[HeatMap], classes: Sequence[str]) -> None:
    """One self-contained page with the first 300 pairs; ``classes`` are the network's."""
    pictures = [thumbnail(one.picture, Path(one.path).name, WIDTH) for one in maps[:EMBEDDED]]
    entries = list(zip(maps, pictures, strict=False))
    write_page(path, "gallery.html", title="Grad-CAM", entries=entries, count=len(maps), names=classes)
