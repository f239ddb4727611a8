"""What every cell's networks decided, a panel for each cell: ROC curves and confusion matrices."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.report.figures import draw_matrix
from histo_lightning.report.ranking_pictures import GRID
from histo_lightning.report.style import (
    GREY,
    INK,
    LEVEL_STYLES,
    TEXT_SIZE,
    legend_below,
    new_figure,
    say_empty,
)

Json = Mapping[str, Any]
COLUMNS = 4
MOST_PANELS = 24  # more cannot be read on one page
LETTERS = 30  # of a title's line
MOST_LINES = 4


def roc_cells_figure(decisions: Sequence[Json]) -> Figure:
    """ROC curves on test by image and case: thin lines are folds, thick ones their average over pairs within folds.

    Args:
        decisions: of one world, as ``cell_decisions.decisions_of`` makes them, at least one.
    """
    title = "ROC on test: folds (thin) and their average (thick)"
    figure, panels = _panels(decisions, title, ("1 - specificity", "sensitivity"))
    for axes, about in panels:
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([0, 0.5, 1])
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, zorder=0, label="chance")
        for level, (colour, line) in LEVEL_STYLES.items():
            roc = (about.get(level) or {}).get("roc")
            if roc is None:
                continue
            for false, true in roc["curves"]:
                axes.plot(false, true, line, color=colour, linewidth=0.5, alpha=0.3)
            axes.plot([0, *GRID], [0, *roc["mean"]], line, color=colour, linewidth=1.8, label=f"by {level}")
        if len(axes.lines) == 1:
            say_empty(axes, "no fold with both classes")
    fullest = max((axes for axes, _ in panels), key=lambda axes: len(axes.get_legend_handles_labels()[1]))
    legend_below(figure, fullest, columns=3)
    return figure


def confusion_cells_figure(decisions: Sequence[Json]) -> Figure:
    """Confusion matrices of all test images together, with the cases below where they are known; arguments as above."""
    grouped = any("case" in about for about in decisions)
    title = "Confusion on test, all folds together: images" + (", and cases in brackets" if grouped else "")
    figure, panels = _panels(decisions, title, ("called", "truth"))
    for axes, about in panels:
        cases = np.array(about["case"]["confusion"]) if "case" in about else None
        draw_matrix(axes, np.array(about["image"]["confusion"]), CLASSES, cases)
    return figure


def _panels(
    decisions: Sequence[Json], title: str, labels: tuple[str, str]
) -> tuple[Figure, list[tuple[Axes, Json]]]:
    """A figure with titled axes for each cell, at most 24; the figure's title says how many are left out.

    ``labels`` of x and y stand at the outer panels.
    """
    chosen = decisions[:MOST_PANELS]
    if len(chosen) < len(decisions):
        title += f" (the first {len(chosen)} of {len(decisions)} cells)"
    columns = min(COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    figure, _ = new_figure(max(2.3 * columns, 5.5), 2.5 * rows + 0.9, 0)
    figure.suptitle(title, fontsize=TEXT_SIZE, color=INK, x=0.01, ha="left")
    panels = []
    for number, about in enumerate(chosen):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.tick_params(labelsize=TEXT_SIZE - 1.5, colors=INK, length=3)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(GREY)
        parts = (str(about["level"]), str(about["stratum"]), str(about["magnification"]))
        lines = [line for text in parts for line in textwrap.wrap(text, LETTERS)]
        axes.set_title(
            "\n".join(lines[:MOST_LINES]), fontsize=TEXT_SIZE - 1.5, loc="left", color=INK, parse_math=False
        )
        if number + columns >= len(chosen):
            axes.set_xlabel(labels[0], fontsize=TEXT_SIZE - 1, color=INK)
        if number % columns == 0:
            axes.set_ylabel(labels[1], fontsize=TEXT_SIZE - 1, color=INK)
        panels.append((axes, about))
    return figure, panels
