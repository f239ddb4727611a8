"""Decisions of a part: every image by case, confusion matrices, and a contact sheet of the worst errors."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from histo_lightning.data.breakhis.names import CLASSES, SUBTYPES
from histo_lightning.evaluation import Table
from histo_lightning.evaluation.levels import is_grouped, units
from histo_lightning.evaluation.scores import confusion, log_error
from histo_lightning.evaluation.subtypes import subtype_log_error
from histo_lightning.evaluation.table import softmax
from histo_lightning.report import style
from histo_lightning.report.style import bare, label_axes, legend_below, new_figure, say_empty, shown
from histo_lightning.report.words import COLLAPSED, counted, levels_of, part_of

Reader = Callable[[str], NDArray[np.uint8] | None]
LOOKS = (("benign", style.BLUE, "o"), ("malignant", style.VERMILLION, "^"))
NAMED = 150  # cases, above which the rows are too thin for names
TALLEST = 14.0  # inches
LIFTS = np.array([-0.17, 0.17, 0.0])  # rows: points of one case that would hide each other are lifted apart
RASTER = 4000  # points, above which an SVG would be slow to open
COUNT, COLUMNS = 12, 3  # of the worst errors
INCHES = 1.9
WIDEST = 280  # pixels of a picture on the sheet


def case_order(table: Table) -> list[str]:
    """Benign cases, then malignant ones, each by rising mean probability (ties by name): from below to above."""
    cases = units(table, "case")
    names = cases.cases[cases.case]
    return [str(names[i]) for i in np.lexsort((names, cases.p, cases.truth))]


def case_figure(table: Table, threshold: float | None) -> Figure:
    """A row a case of one part: ``p_malignant`` of its images as points, their mean as a bar; the stored ``threshold``."""
    title = f"P(malignant) of each image\nby case, {part_of(table)}"
    if not is_grouped(table):
        figure, (axes,) = new_figure(5.0, 2.4)
        label_axes(axes, title)
        bare(axes)
        say_empty(axes, "Not drawn: the cases of some images are unknown.")
        return figure
    cases, order = units(table, "case"), case_order(table)
    mean = dict(zip(cases.cases[cases.case].tolist(), cases.p.tolist(), strict=True))
    height = min(float(np.interp(len(order), [12, 70], [0.27, 0.17])), TALLEST / max(len(order), 1))
    figure, (axes,) = new_figure(5.0, height * len(order) + 2.2)
    row_of = {case: row for row, case in enumerate(order)}
    rows = np.array([row_of[case] for case in table.case.tolist()]) + LIFTS[np.arange(len(table)) % 3]
    for row in range(0, len(order), 2):
        axes.axhspan(row - 0.5, row + 0.5, color=style.PALE, alpha=0.35, linewidth=0, zorder=0)
    for truth, (name, colour, marker) in enumerate(LOOKS):
        members = table.malignant == truth
        if members.any():
            axes.scatter(
                table.p_malignant[members], rows[members], s=13, color=colour, marker=marker, alpha=0.6,
                linewidths=0, label=f"{name} image", rasterized=len(table) > RASTER,
            )  # fmt: skip
    bar: dict[str, Any] = {"color": style.INK, "markersize": min(11.0, 60 * height), "markeredgewidth": 2}
    axes.plot([mean[case] for case in order], range(len(order)), "|", label="mean of the case", **bar)
    axes.axvline(0.5, color=style.GREY, linestyle=":", linewidth=1.3, zorder=1, label="threshold 0.5")
    if threshold is not None:
        name = f"stored threshold {threshold:.3f}"
        axes.axvline(threshold, color=style.GREEN, linestyle="-.", linewidth=1.3, zorder=1, label=name)
    named, sizes = len(order) <= NAMED, Counter(table.case.tolist())
    ticks = [f"{shown(case)} ({sizes[case]})" for case in order] if named else []
    size = min(style.TEXT_SIZE - 1, 62 * height)
    axes.set_yticks(range(len(ticks)), ticks, parse_math=False, fontsize=size)
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.6, len(order) - 0.4))
    label_axes(axes, title, "predicted P(malignant)", f"{len(order)} cases" + " (images)" * named)
    note = "Malignant cases above, benign ones below, each by their mean."
    legend_below(figure, axes, f"{note}\n{COLLAPSED}" if table.task == "subtype" else note, columns=2)
    return figure


def confusion_figure(table: Table) -> Figure:
    """Confusion matrices of the decisions by image and case, or of the eight subtypes by image: counts, and % of a row."""
    binary = table.task == "binary"
    names, levels = (CLASSES, levels_of(table)) if binary else (SUBTYPES, ["image"])
    width, height = (1.4 + 2.0 * len(levels), 3.0) if binary else (6.0, 5.6)
    figure, panels = new_figure(width, height, len(levels))
    for axes, level in zip(panels, levels, strict=True):
        level_units = units(table, level, binary=binary)
        counts = confusion(level_units.truth, level_units.decision, len(names))
        draw_matrix(axes, counts, names)
        label_axes(axes, f"{counts.sum()} {level}s\n{part_of(table)}", "called", "truth")
    return figure


def draw_matrix(
    axes: Axes, counts: NDArray[np.int64], names: tuple[str, ...], cases: NDArray[np.int64] | None = None
) -> None:
    """Draw a confusion matrix, rows are the truth; counts of ``cases`` are in brackets below those of images."""
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    axes.imshow(shares, cmap=style.SHADES, vmin=0, vmax=1)
    size = style.TEXT_SIZE + 1 if len(names) == 2 else style.TEXT_SIZE - 3
    for (row, column), share in np.ndenumerate(shares):
        text = f"{counts[row, column]}\n{100 * share:.0f} %"
        text += "" if cases is None else f"\n({cases[row, column]})"
        look: dict[str, Any] = {"color": "white" if share > 0.55 else style.INK, "fontsize": size}
        if not totals[row]:
            text, look = "none here", {"color": style.GREY, "fontsize": size - 2}
        axes.text(column, row, text, ha="center", va="center", **look)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names, rotation=90 if len(names) == 2 else 0, va="center")
    axes.spines[:].set_visible(False)
    # White lines between the cells keep neighbours of one shade apart.
    between = np.arange(len(names) - 1) + 0.5
    axes.set_xticks(between, minor=True)
    axes.set_yticks(between, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)


def worst_images(table: Table, count: int = COUNT) -> NDArray[np.int64]:
    """Rows of the images with the largest loss (of the task's own classes), worst first, ties by name."""
    if table.task == "binary":
        loss = log_error(table.malignant, table.p_malignant)
    else:
        loss = subtype_log_error(units(table, "image", binary=False))
    return np.lexsort((table.image, -loss))[:count]


def worst_figure(table: Table, read_image: Reader, count: int = COUNT) -> Figure:
    """The ``count`` images of a part with the largest loss, each with its case, its truth and its probability.

    ``read_image`` gives uint8 H x W x 3 for a ``path`` of the table, None where the image cannot be had.
    """
    rows = worst_images(table, count)
    cases = len(np.unique(table.case[rows])) if (table.case[rows] != "").all() else 0
    wrong = int((table.predicted[rows] != table.label[rows]).sum())
    title = f"The {len(rows)} images with the largest loss, {part_of(table)}:\n{wrong} called wrong"
    title += f", from {counted(cases, 'case')}" if cases else ""
    lines = max(1, -(-len(rows) // COLUMNS))
    figure, _ = style.new_grid(lines, COLUMNS, INCHES, title)
    figure.set_figheight(lines * (0.66 * INCHES + 0.4) + 0.6)  # fields are 1.5 times as wide as high
    for panel in figure.axes:
        panel.set_axis_off()  # without ticks to lay out
    for panel, row in zip(figure.axes, rows.tolist(), strict=False):
        pixels = read_image(str(table.path[row]))
        if pixels is None:
            pixels = np.full((2, 3, 3), 0xEE, np.uint8)
            say_empty(panel, "not readable")
        image = Image.fromarray(pixels)
        image.thumbnail((WIDEST, WIDEST))
        panel.imshow(np.asarray(image))
        case = shown(str(table.case[row]) or str(table.image[row]))
        zoom = f"{table.magnification[row]}X" if table.magnification[row] else ""
        caption, label = ", ".join(filter(None, [case, str(table.subtype[row]), zoom])), int(table.label[row])
        if table.task == "binary":
            caption += f"\n{CLASSES[label]}, P(mal.) {table.p_malignant[row]:.3f}"
        else:
            p = softmax(table.logits[row])[label]
            caption += f"\nP({SUBTYPES[label]}) {p:.3f}, called {SUBTYPES[table.predicted[row]]}"
        panel.set_title(caption, pad=3, fontsize=style.TEXT_SIZE - 2.5, color=style.INK, parse_math=False)
    return figure
