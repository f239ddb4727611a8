"""Heat maps over images, and a page that shows them."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from histo_lightning.report.page import page, paragraph, section
from histo_lightning.runs import write_atomic

EMBEDDED = 300  # images on the page; all stand in the folder
WIDTH = 560  # pixels of an embedded pair
STRENGTH = 0.55  # of the heat where the evidence is strongest
NAMES = {"gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++"}


@dataclass(frozen=True)
class Shown:
    """An image of the gallery: ``picture`` is the pair of field and overlay, uint8 H x W x 3; ``file`` is relative."""

    path: str
    caption: str
    picture: NDArray[np.uint8]
    file: str


def overlay(field: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A field (uint8 H x W x 3) beside itself under a heat map (float32 H x W in [0, 1]): uint8 H x 2W x 3.

    Without evidence the field stays as it is: the colour's share grows with the heat.
    """
    colours = colormaps["inferno"](heat)[:, :, :3] * 255
    share = STRENGTH * heat[:, :, None]
    mixed = field * (1 - share) + colours * share
    return np.concatenate([field, mixed.round().clip(0, 255).astype(np.uint8)], axis=1)


def write_overlay(path: Path, field: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Write the pair as PNG, atomically, and give it back."""
    pair = overlay(field, heat)
    file = io.BytesIO()
    Image.fromarray(pair).save(file, "png")
    write_atomic(path, file.getvalue())
    return pair


def write_gallery(path: Path, shown: Sequence[Shown], names: Sequence[str], method: str) -> None:
    """One self-contained page with the first 300 pairs."""
    lead = (
        f"{NAMES[method]} on the last stage, for the likeliest of {', '.join(names)}: left what the network sees, right "
        "where the evidence for its answer lies. A map shows what the network used, not what is true."
    )
    body = "".join(_figure(one) for one in shown[:EMBEDDED])
    more = len(shown) - EMBEDDED
    if more > 0:
        body += paragraph(f"{more} more in the folder gradcam.", "small")
    if not shown:
        body = paragraph("No image could be read.")
    header = f'<header><h1>{NAMES[method]}</h1><p class="lead">{escape(lead)}</p></header>'
    text = page(
        NAMES[method], header + section(f"{len(shown)} images", f'<div class="pictures">{body}</div>')
    )
    write_atomic(path, text.encode("utf-8", errors="replace"))


def _figure(one: Shown) -> str:
    image = Image.fromarray(one.picture)
    image.thumbnail((WIDTH, WIDTH))
    file = io.BytesIO()
    image.save(file, "jpeg", quality=85)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    name = escape(Path(one.path).name)
    return (
        f'<div><figure><img alt="{name}" src="data:image/jpeg;base64,{data}"></figure>'
        f'<p class="small">{name}<br><b>{escape(one.caption)}</b></p></div>'
    )
