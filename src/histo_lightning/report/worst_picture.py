"""The worst errors of a run as a contact sheet: what the network was most wrong about."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from histo_lightning.data.breakhis.names import CLASSES, SUBTYPES
from histo_lightning.errors import UserError
from histo_lightning.evaluation import Table, read_predictions
from histo_lightning.evaluation.levels import units
from histo_lightning.evaluation.scores import log_error
from histo_lightning.evaluation.subtypes import subtype_log_error
from histo_lightning.report.style import GREY, INK, PALE, TEXT_SIZE, new_grid, save_picture, shown
from histo_lightning.report.words import part_of
from histo_lightning.runs import read_json

Reader = Callable[[str], NDArray[np.uint8] | None]
COUNT, COLUMNS = 12, 4
INCHES = 1.8
WIDEST = 260  # pixels of a picture on the sheet


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
    lines = max(1, -(-len(rows) // COLUMNS))
    cases = len(np.unique(table.case[rows])) if (table.case[rows] != "").all() else 0
    wrong = int((table.predicted[rows] != table.label[rows]).sum())
    title = f"The {len(rows)} images with the largest loss, {part_of(table)}: {wrong} called wrong"
    title += f", from {cases} case{'s' * (cases != 1)}" if cases else ""
    figure, axes = new_grid(lines, COLUMNS, INCHES, title)
    figure.set_size_inches(
        COLUMNS * INCHES, lines * (INCHES * 0.66 + 0.4) + 0.35
    )  # fields are 1.5 times as wide as high
    panels = [panel for line in axes for panel in line]
    for panel in panels[len(rows) :]:
        panel.set_visible(False)
    for panel, row in zip(panels, rows.tolist(), strict=False):
        pixels = read_image(str(table.path[row]))
        if pixels is None:
            pixels = np.full((2, 3, 3), 0xEE, np.uint8)
            panel.text(
                0.5,
                0.5,
                "not readable",
                transform=panel.transAxes,
                ha="center",
                color=GREY,
                fontsize=TEXT_SIZE,
            )
        panel.imshow(_small(pixels))
        panel.set_title(_caption(table, row), fontsize=TEXT_SIZE - 2, color=INK, parse_math=False, pad=3)
        panel.patch.set_facecolor(PALE)
    return figure


def _caption(table: Table, row: int) -> str:
    case = str(table.case[row]) or str(table.image[row])
    subtype = f", {table.subtype[row]}" if table.subtype[row] else ""
    zoom = f", {table.magnification[row]}X" if table.magnification[row] else ""
    if table.task == "binary":
        told = f"{CLASSES[table.label[row]]}, P(mal.) {table.p_malignant[row]:.3f}"
    else:
        p = units(table.rows(np.array([row])), "image", binary=False).probabilities[0]
        label = int(table.label[row])
        told = f"P({SUBTYPES[label]}) {p[label]:.3f}, called {SUBTYPES[table.predicted[row]]}"
    return f"{shown(case)}{subtype}{zoom}\n{told}"


def _small(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = Image.fromarray(pixels)
    image.thumbnail((WIDEST, WIDEST))
    return np.asarray(image)


def draw_worst(run_folder: Path, read_image: Reader) -> list[Path]:
    """Draw ``plots/worst_test`` (``worst_val`` where test was left unread) as PNG and SVG.

    Args:
        run_folder: a scored run.
        read_image: as in ``worst_figure``.

    Raises:
        UserError: a table is missing or damaged, or a picture cannot be written.
    """
    metrics = read_json(run_folder / "metrics.json")
    if "best_epoch" not in metrics:
        raise UserError(f"{run_folder / 'metrics.json'}: is missing or damaged; the run has not been scored")
    part = "val" if metrics.get("test") is None else "test"
    table = read_predictions(run_folder / "predictions" / f"{part}.csv")
    return save_picture(worst_figure(table, read_image), run_folder / "plots" / f"worst_{part}")
