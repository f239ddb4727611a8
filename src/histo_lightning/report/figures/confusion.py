"""Confusion matrices: counts, and shares of each true class."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from histo_lightning.data.breakhis.names import CLASSES, SUBTYPES
from histo_lightning.evaluation import Table
from histo_lightning.evaluation.levels import units
from histo_lightning.evaluation.scores import confusion
from histo_lightning.report.style import GREY, INK, SHADES, TEXT_SIZE, label_axes, new_figure
from histo_lightning.report.words import levels_of, part_of


def confusion_figure(table: Table) -> Figure:
    """Confusion matrices, counts and percentages of each row: by image and case, or of the eight subtypes by image.

    Decisions are those of the table (largest logit) by image and mean probability at 0.5 by case.
    """
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
    axes.imshow(shares, cmap=SHADES, vmin=0, vmax=1)
    size = TEXT_SIZE + 1 if len(names) == 2 else TEXT_SIZE - 3
    for (row, column), share in np.ndenumerate(shares):
        text = f"{counts[row, column]}\n{100 * share:.0f} %"
        text += "" if cases is None else f"\n({cases[row, column]})"
        look: dict[str, Any] = {"color": "white" if share > 0.55 else INK, "fontsize": size}
        if not totals[row]:
            text, look = "none here", {"color": GREY, "fontsize": size - 2}
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
