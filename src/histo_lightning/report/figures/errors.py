"""The worst errors as a contact sheet: what the network was most wrong about."""

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from histo_lightning.data.breakhis.names import CLASSES, SUBTYPES
from histo_lightning.evaluation import Table
from histo_lightning.evaluation.levels import units
from histo_lightning.evaluation.scores import log_error
from histo_lightning.evaluation.subtypes import subtype_log_error
from histo_lightning.report.style import INK, TEXT_SIZE, new_grid, say_empty, shown
from histo_lightning.report.words import counted, part_of

Reader = Callable[[str], NDArray[np.uint8] | None]
COUNT, COLUMNS = 12, 3
INCHES = 1.9
WIDEST = 280  # pixels of a picture on the sheet


def worst_images(table: Table, count: int = COUNT) -> NDArray[np.int64]:
    """Rows of the images with the largest loss (of the task's own classes), worst first, ties by name."""
    if table.task == "binary":
        loss = log_error(table.malignant, table.p_malignant)
    else:
        loss = subtype_log_error(units(table, "image", binary=False))
    return np.lexsort((table.image, -loss))[:count]


def worst_figure(table: Table, read_image: Reader, count: int = COUNT) -> Figure:
    """The ``count`` images with the largest loss, each with its case, its truth and the probability it was given.

    Args:
        table: predictions of one part.
        read_image: ``path`` of the table to uint8 H x W x 3, or None where the image cannot be had.
    """
    rows = worst_images(table, count)
    cases = len(np.unique(table.case[rows])) if (table.case[rows] != "").all() else 0
    wrong = int((table.predicted[rows] != table.label[rows]).sum())
    title = f"The {len(rows)} images with the largest loss, {part_of(table)}:\n{wrong} called wrong"
    title += f", from {counted(cases, 'case')}" if cases else ""
    lines = max(1, -(-len(rows) // COLUMNS))
    figure, grid = new_grid(lines, COLUMNS, INCHES, title)
    figure.set_figheight(lines * (0.66 * INCHES + 0.4) + 0.6)  # fields are 1.5 times as wide as high
    panels = [panel for line in grid for panel in line]
    for panel in panels[len(rows) :]:
        panel.set_visible(False)
    for panel, row in zip(panels, rows.tolist(), strict=False):
        pixels = read_image(str(table.path[row]))
        if pixels is None:
            pixels = np.full((2, 3, 3), 0xEE, np.uint8)
            say_empty(panel, "not readable")
        image = Image.fromarray(pixels)
        image.thumbnail((WIDEST, WIDEST))
        panel.imshow(np.asarray(image))
        panel.set_title(_caption(table, row), fontsize=TEXT_SIZE - 2.5, color=INK, parse_math=False, pad=3)
    return figure


def _caption(table: Table, row: int) -> str:
    case = str(table.case[row]) or str(table.image[row])
    subtype = f", {table.subtype[row]}" if table.subtype[row] else ""
    zoom = f", {table.magnification[row]}X" if table.magnification[row] else ""
    label = int(table.label[row])
    if table.task == "binary":
        called = f"{CLASSES[label]}, P(mal.) {table.p_malignant[row]:.3f}"
    else:
        p = units(table.rows(np.array([row])), "image", binary=False).probabilities[0]
        called = f"P({SUBTYPES[label]}) {p[label]:.3f}, called {SUBTYPES[table.predicted[row]]}"
    return f"{shown(case)}{subtype}{zoom}\n{called}"
