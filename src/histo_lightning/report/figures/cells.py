"""Figures with a panel for each setting of a comparison: ROC curves, confusion matrices, learning curves."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.report import style
from histo_lightning.report.figures.comparison import colours_of, distinct, key_below
from histo_lightning.report.figures.confusion import draw_matrix
from histo_lightning.report.figures.ranking import GRID
from histo_lightning.report.style import label_axes, legend_below, new_figure, say_empty, shown

Json = Mapping[str, Any]
COLUMNS = 4
MOST_PANELS = 24  # more cannot be read on one page
LETTERS, MOST_LINES = 24, 4  # of a panel's title
MOST_CURVES = 12  # pairs of panels
MOST_VALUES = 0.95  # of all runs' losses are inside the panels
QUANTITIES = {"train_loss": "train loss", "val_loss": "validation loss"}


def roc_cells_figure(decisions: Sequence[Json]) -> Figure:
    """ROC curves on test by image and case: thin lines are folds, thick ones their average over pairs within folds.

    Args:
        decisions: of one data set and split, as the comparison's record has them, at least one.
    """
    title = "ROC on test: folds (thin) and their average (thick)"
    figure, panels = _panels(decisions, title, ("1 - specificity", "sensitivity"))
    for axes, cell in panels:
        axes.set(
            xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1]
        )
        axes.plot([0, 1], [0, 1], color=style.GREY, linestyle=":", linewidth=1, zorder=0, label="chance")
        for level, (colour, line) in style.LEVEL_STYLES.items():
            roc = (cell.get(level) or {}).get("roc") or {"curves": []}
            for false, true in roc["curves"]:
                axes.plot(false, true, line, color=colour, linewidth=0.5, alpha=0.3)
            if roc["curves"]:
                axes.plot(
                    [0, *GRID], [0, *roc["mean"]], line, color=colour, linewidth=1.8, label=f"by {level}"
                )
        if len(axes.lines) == 1:
            say_empty(axes, "no fold with both classes")
    fullest = max((axes for axes, _ in panels), key=lambda axes: len(axes.get_legend_handles_labels()[1]))
    legend_below(figure, fullest, columns=3)
    return figure


def confusion_cells_figure(decisions: Sequence[Json]) -> Figure:
    """Confusion matrices of all test images together, with the cases below where they are known; arguments as above."""
    brackets = ", cases in brackets" if any("case" in cell for cell in decisions) else ""
    title = f"Confusion on test, all folds together: images{brackets}"
    figure, panels = _panels(decisions, title, ("called", "truth"))
    for axes, cell in panels:
        cases = np.array(cell["case"]["confusion"]) if "case" in cell else None
        draw_matrix(axes, np.array(cell["image"]["confusion"]), CLASSES, cases)
    return figure


def _panels(
    decisions: Sequence[Json], title: str, labels: tuple[str, str]
) -> tuple[Figure, list[tuple[Axes, Json]]]:
    """A figure with titled axes for each cell, at most 24; x and y are labelled at the outer panels."""
    cells = decisions[:MOST_PANELS]
    if len(cells) < len(decisions):
        title += f" (the first {len(cells)} of {len(decisions)} cells)"
    columns = min(COLUMNS, len(cells))
    rows = -(-len(cells) // columns)
    figure, panels = new_figure(max(2.4 * columns, 5.5), 2.6 * rows + 0.9, columns, rows)
    figure.suptitle(textwrap.fill(title, 48), fontsize=style.TEXT_SIZE, color=style.INK, x=0.01, ha="left")
    for axes in panels[len(cells) :]:
        figure.delaxes(axes)
    for number, (axes, cell) in enumerate(zip(panels, cells, strict=False)):
        parts = (str(cell[key]) for key in ("level", "stratum", "magnification"))
        lines = [line for text in parts for line in textwrap.wrap(text, LETTERS)][:MOST_LINES]
        outer = labels[0] if number + columns >= len(cells) else ""
        y = labels[1] if number % columns == 0 else ""
        label_axes(axes, "\n".join(lines), outer, y, style.TEXT_SIZE - 2)
    return figure, list(zip(panels, cells, strict=False))


def curves_figure(curves: Sequence[Json], cells: Sequence[Json]) -> Figure:
    """Train and validation loss of all runs by epoch: thin lines are runs, thick ones their means as far as all go.

    A pair of panels for each magnification and level of the other factors, 12 pairs at most, on one scale: that of the
    means and of 95 % of all values.

    Args:
        curves: of one data set and split: ``arm``, ``magnification``, ``train_loss``, ``val_loss``.
        cells: of the same, which say an arm's level and the level of the other factors.
    """
    level_of, stratum_of = ({cell["arm"]: str(cell[key]) for cell in cells} for key in ("level", "stratum"))
    every = {(str(cell["stratum"]), str(cell["magnification"])): None for cell in cells}
    pairs = sorted(every, key=lambda pair: len(pair[1]))[:MOST_CURVES]
    colours = colours_of(distinct(cells, "level"))
    columns = min(len(pairs), COLUMNS)
    lines = -(-len(pairs) // columns)
    figure, panels = new_figure(max(2.6 * columns, 5.0), 0.8 + 4.6 * lines, columns, 2 * lines)
    rows = [panels[row * columns : (row + 1) * columns] for row in range(2 * lines)]
    for axes in [axes for row in rows[-2:] for axes in row[len(pairs) - (lines - 1) * columns :]]:
        figure.delaxes(axes)
    for (line, quantity), (number, pair) in product(enumerate(QUANTITIES), enumerate(pairs)):
        axes = rows[2 * (number // columns) + line][number % columns]
        own = [c for c in curves if (stratum_of[c["arm"]], c["magnification"]) == pair]
        for arm in dict.fromkeys(curve["arm"] for curve in own):
            runs = [np.array(curve[quantity], np.float64) for curve in own if curve["arm"] == arm]
            _draw_runs(axes, runs, colours[level_of[arm]])
        if not own:
            say_empty(axes, "no finished run")
        title = f"{shown(pair[0])}\n{pair[1]}".strip() if line == 0 else ""
        y = "" if number % columns else QUANTITIES[quantity]
        label_axes(axes, title, "epoch" if line else "", y, style.TEXT_SIZE - 1)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    for line in (0, 1):
        drawn = [axes for row in rows[line::2] for axes in row]
        top = _highest([curve for axes in drawn for curve in axes.lines])
        for axes in drawn:
            axes.set_ylim(0, 1.05 * top)  # a single run may leave it
    if len(pairs) < len(every):
        text = f"the first {len(pairs)} of {len(every)} pairs of panels"
        figure.suptitle(text, fontsize=style.TEXT_SIZE, color=style.INK, x=0.01, ha="left")
    key_below(figure, colours, note="thick: means, as far as all runs go; thin: single runs")
    return figure


def _highest(lines: Sequence[Any]) -> float:
    """The largest mean (thick), or what 95 % of all values stay below; 1 where no value is finite."""
    values = np.concatenate([line.get_ydata() for line in lines] or [[]])
    means = np.concatenate([line.get_ydata() for line in lines if line.get_linewidth() > 1] or [[]])
    values, means = values[np.isfinite(values)], means[np.isfinite(means)]
    inside = float(np.quantile(values, MOST_VALUES)) if len(values) else 1.0
    return max(inside, 1.05 * float(means.max(initial=0)))


def _draw_runs(axes: Axes, runs: Sequence[Any], colour: str) -> None:
    """Thin curves and their mean, only as far as all go: a mean over those that are left would jump."""
    for values in runs:
        axes.plot(range(1, len(values) + 1), values, color=colour, linewidth=0.6, alpha=0.4)
    shared = min(len(values) for values in runs)
    mean = np.mean([values[:shared] for values in runs], axis=0)
    marker = "o" if shared == 1 else ""
    axes.plot(range(1, shared + 1), mean, color=colour, linewidth=1.8, marker=marker, markersize=4)
