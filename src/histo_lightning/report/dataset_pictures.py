"""Pictures of the data set's report: an example mosaic, stain by case, and near-duplicates side by side."""

import base64
import io
from html import escape

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from histo_lightning.data.breakhis.names import CLASSES, MAGNIFICATIONS, SUBTYPE_NAMES, SUBTYPES
from histo_lightning.data.pixels.duplicates import ORIENTATIONS, SUSPICIOUS, Pair
from histo_lightning.data.pixels.stains import COLUMNS
from histo_lightning.report.dataset_facts import DatasetFacts
from histo_lightning.report.page import paragraph
from histo_lightning.report.style import BLUE, DPI, GREY, TEXT_SIZE, VERMILLION, label_axes, new_figure

WIDTH = 240  # pixels, of a thumbnail
PAIRS_SHOWN = 10
CSS = """<style>
.mosaic { display: grid; grid-template-columns: minmax(90px, auto) repeat(4, minmax(96px, 1fr)); gap: 6px;
  min-width: 520px; align-items: center; font-size: .84rem; }
.mosaic img, .twin img { display: block; width: 100%; height: auto; border-radius: 4px; }
.mosaic .none { text-align: center; }
.twins { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); gap: 18px; }
.twin { border-top: 1px solid var(--line); padding-top: 10px; min-width: 0; overflow-wrap: anywhere; }
.twin div { display: grid; grid-template-columns: 1fr 1fr; gap: 6px; align-items: start; margin: 6px 0; }
tr.words td, tr.words th { white-space: normal; overflow-wrap: anywhere; min-width: 120px; }
.scroll:has(.words) table { width: 100%; min-width: 0; }
.scroll:has(.words) :is(th, td) { text-align: left; width: 50%; }
figure.wide { overflow-x: auto; justify-content: safe center; margin-bottom: 12px; }
figure.wide img { max-width: 1000px; min-width: 560px; }
</style>"""


def jpeg(pixels: NDArray[np.uint8], alt: str, width: int = WIDTH) -> str:
    """An ``img`` element that holds the picture (uint8, H x W x 3), at most ``width`` pixels wide."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if picture.width > width:
        size = (width, max(1, round(picture.height * width / picture.width)))
        picture = picture.resize(size, Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="{escape(alt)}" width="{picture.width}" height="{picture.height}" src="data:image/jpeg;base64,{data}">'


def _one(facts: DatasetFacts, row: int) -> NDArray[np.uint8]:
    picture: NDArray[np.uint8] = facts.pixels(np.array([row], dtype=np.int64))[0]
    return picture


def mosaic(facts: DatasetFacts) -> str:
    """The first readable image of each subtype at each magnification."""
    first: dict[tuple[str, int], int] = {}
    for row, record in enumerate(facts.records):
        if record.subtype and facts.readable(row):
            first.setdefault((record.subtype, record.magnification), row)
    cells = ["<span></span>", *(f"<b>{magnification}X</b>" for magnification in MAGNIFICATIONS)]
    for subtype in SUBTYPES:
        cells.append(f"<span><b>{subtype}</b><br>{SUBTYPE_NAMES[subtype].replace('_', ' ')}</span>")
        for magnification in MAGNIFICATIONS:
            row = first.get((subtype, magnification), -1)
            cells.append(
                '<span class="none">none here</span>'
                if row < 0
                else jpeg(_one(facts, row), facts.records[row].image)
            )
    return f'<div class="scroll"><div class="mosaic">{"".join(cells)}</div></div>'


def stain_figure(facts: DatasetFacts) -> Figure:
    """Haematoxylin and eosin by case: the median image as a point, the middle half of the images as a line."""
    figure, panels = new_figure(9.6, 3.9, columns=2)
    cases = np.array([r.case if facts.readable(i) else "" for i, r in enumerate(facts.records)])
    labels = np.array([record.class_name for record in facts.records])
    for axes, stain in zip(panels, ("haematoxylin", "eosin"), strict=True):
        values = facts.stains[:, COLUMNS.index(stain)]
        place = 0
        for class_name, colour in zip(CLASSES, (BLUE, VERMILLION), strict=True):
            names = sorted(set(cases[(labels == class_name) & (cases != "")].tolist()))
            thirds = [
                np.percentile(values[(cases == case) & (labels == class_name)], [25, 50, 75])
                for case in names
            ]
            thirds.sort(key=lambda quarters: float(quarters[1]))
            if thirds:
                low, middle, high = np.array(thirds).T
                at = np.arange(place, place + len(thirds))
                axes.vlines(at, low, high, color=colour, linewidth=1.6, alpha=0.6)
                axes.plot(
                    at, middle, "o", color=colour, markersize=3.5, label=f"{class_name}, {len(at)} cases"
                )
            place += len(thirds) + 2
        label_axes(
            axes, stain.capitalize(), "cases, sorted within each class", "optical density, mean of an image"
        )
        axes.set_xticks([])
        axes.grid(axis="y", color=GREY, alpha=0.2, linewidth=0.6)
        if place > 4:
            axes.legend(fontsize=TEXT_SIZE - 1, frameon=False, loc="best")
    return figure


def stain_picture(facts: DatasetFacts) -> str:
    """:func:`stain_figure` inside the page; nothing where no image says its case."""
    if not any(record.case and facts.readable(row) for row, record in enumerate(facts.records)):
        return ""
    figure, buffer = stain_figure(facts), io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<figure class="wide"><img alt="Haematoxylin and eosin by case" src="data:image/png;base64,{data}"></figure>'


def _oriented(pixels: NDArray[np.uint8], orientation: str) -> NDArray[np.uint8]:
    index = ORIENTATIONS.index(orientation)
    turned = pixels[:, ::-1] if index >= 4 else pixels
    return np.rot90(turned, index % 4)


def _side_by_side(facts: DatasetFacts, pair: Pair) -> str:
    rows = [facts.row_of.get(image, -1) for image in (pair.first, pair.second)]
    if min(rows) < 0:
        return ""
    first, second = (_one(facts, row) for row in rows)
    mark = "<b>suspicious</b>: " if pair.suspicious else ""
    return (
        f'<div class="twin"><b>{escape(pair.first)}</b> and <b>{escape(pair.second)}</b>'
        f"<div>{jpeg(first, pair.first)}{jpeg(_oriented(second, pair.orientation), pair.second)}</div>"
        f'<span class="small">{mark}correlation {pair.correlation:.2f}, {pair.distance} of 64 bits differ; '
        f"second {escape(pair.orientation)}; the centre squares are compared</span></div>"
    )


def pair_pictures(facts: DatasetFacts) -> str:
    """The closest pairs of images of different cases, side by side."""
    if not facts.pairs:
        return paragraph("Near-duplicates were not looked for, or there are not two cases.")
    said = paragraph(
        "The images of different cases that look most alike, in any of eight orientations. Pairs are called suspicious "
        f"from a correlation of {SUSPICIOUS}. Nothing is left out for it: look at them."
    )
    shown = [_side_by_side(facts, pair) for pair in facts.pairs[:PAIRS_SHOWN]]
    return f'{said}<div class="twins">{"".join(shown)}</div>'
