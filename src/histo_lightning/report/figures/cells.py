"""Figures with a panel for each cell of a comparison: ROC curves, confusion matrices, learning curves."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.report import style
from histo_lightning.report.figures.cases import draw_matrix
from histo_lightning.report.figures.comparison import colours_of, key_below, panel_grid
from histo_lightning.report.figures.ranking import GRID
from histo_lightning.report.style import label_axes, legend_below, say_empty

Json = Mapping[str, Any]
CELL = ("level", "stratum", "magnification")
COLUMNS = 4
MOST_PANELS = 24  # more cannot be read on one page
LETTERS, MOST_LINES = 24, 4  # of a panel's title
MOST_VALUES = 0.95  # of all runs' losses are inside the panels
QUANTITIES = {"train_loss": "train loss", "val_loss": "validation loss"}


def _cell_panels(
    cells: Sequence[Json], title: str, x: str, y: str, keys: Sequence[str] = CELL
) -> tuple[Figure, list[tuple[Axes, Json]]]:
    """A figure with axes for each cell, at most 24, titled by ``keys``; x and y are labelled at the outer panels."""
    drawn = cells[:MOST_PANELS]
    if len(drawn) < len(cells):
        title += f" (the first {len(drawn)} of {len(cells)} {'cells' if 'level' in keys else 'panels'})"
    figure, panels = panel_grid(len(drawn), COLUMNS, (2.4, 2.6), title)
    for number, (axes, cell) in enumerate(zip(panels, drawn, strict=True)):
        lines = [line for key in keys for line in textwrap.wrap(str(cell[key]), LETTERS)][:MOST_LINES]
        outer = x if number + COLUMNS >= len(drawn) else ""
        label_axes(axes, "\n".join(lines), outer, "" if number % COLUMNS else y, style.TEXT_SIZE - 2)
    return figure, list(zip(panels, drawn, strict=True))


def roc_cells_figure(decisions: Sequence[Json]) -> Figure:
    """ROC curves on test by image and case: thin lines are folds, thick ones their average over pairs within folds."""
    title = "ROC on test: folds (thin) and their average (thick)"
    figure, panels = _cell_panels(decisions, title, "1 - specificity", "sensitivity")
    for axes, cell in panels:
        ticks = [0, 0.5, 1]
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xticks=ticks, yticks=ticks)
        axes.plot([0, 1], [0, 1], color=style.GREY, linestyle=":", linewidth=1, zorder=0, label="chance")
        for level, (colour, line) in style.LEVEL_STYLES.items():
            roc = (cell.get(level) or {}).get("roc") or {"curves": []}
            for false, true in roc["curves"]:
                axes.plot(false, true, line, color=colour, linewidth=0.5, alpha=0.3)
            if roc["curves"]:
                average = [0, *GRID], [0, *roc["mean"]]
                axes.plot(*average, line, color=colour, linewidth=1.8, label=f"by {level}")
        if len(axes.lines) == 1:
            say_empty(axes, "no fold with both classes")
    fullest = max((axes for axes, _ in panels), key=lambda axes: len(axes.get_legend_handles_labels()[1]))
    legend_below(figure, fullest, columns=3)
    return figure


def confusion_cells_figure(decisions: Sequence[Json]) -> Figure:
    """Confusion matrices of all test images together, with the cases below where they are known."""
    brackets = ", cases in brackets" if any("case" in cell for cell in decisions) else ""
    title = f"Confusion on test, all folds together: images{brackets}"
    figure, panels = _cell_panels(decisions, title, "called", "truth")
    for axes, cell in panels:
        cases = np.array(cell["case"]["confusion"]) if "case" in cell else None
        draw_matrix(axes, np.array(cell["image"]["confusion"]), CLASSES, cases)
    return figure


def curves_figure(curves: Sequence[Json], cells: Sequence[Json]) -> Figure:
    """Train and validation loss of all runs by epoch: thin lines are runs, thick ones their means as far as all go.

    A pair of panels for each magnification and setting, each loss on one scale: that of the means and 95 % of all values.
    """
    about = {cell["arm"]: cell for cell in cells}
    colours = colours_of(cells)
    pairs = dict.fromkeys((cell["stratum"], cell["magnification"]) for cell in cells)
    panels_of = [
        {"stratum": setting, "where": f"{zoom}, {words}", "magnification": zoom, "loss": loss}
        for setting, zoom in sorted(pairs, key=lambda pair: len(pair[1]))
        for loss, words in QUANTITIES.items()
    ]
    figure, panels = _cell_panels(panels_of, "Loss by epoch", "epoch", "loss", ("stratum", "where"))
    for axes, panel in panels:
        runs: dict[str, list[Any]] = {}
        for curve in curves:
            cell = about[curve["arm"]]
            if (panel["stratum"], panel["magnification"]) == (cell["stratum"], curve["magnification"]):
                runs.setdefault(cell["level"], []).append(np.array(curve[panel["loss"]], np.float64))
        for level, values in runs.items():
            _draw_runs(axes, values, colours[level])
        if not runs:
            say_empty(axes, "no finished run")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    for loss in QUANTITIES:
        drawn = [axes for axes, panel in panels if panel["loss"] == loss]
        top = _highest([line for axes in drawn for line in axes.lines])
        for axes in drawn:
            axes.set_ylim(0, 1.05 * top)  # a single run may leave it
    key_below(figure, colours, note="thick: means, as far as all runs go; thin: single runs")
    return figure


def _highest(lines: Sequence[Any]) -> float:
    """The largest mean (thick), or what 95 % of all values stay below; 1 where no value is finite."""
    thick, every = (
        np.concatenate([line.get_ydata() for line in lines if line.get_linewidth() > width] or [[]])
        for width in (1, 0)
    )
    means, values = thick[np.isfinite(thick)], every[np.isfinite(every)]
    inside = float(np.quantile(values, MOST_VALUES)) if len(values) else 1.0
    return max(inside, 1.05 * float(means.max(initial=0)))


def _draw_runs(axes: Axes, runs: Sequence[Any], colour: str) -> None:
    """Thin curves and their mean, only as far as all go: a mean over those that are left would jump."""
    shared = min(map(len, runs))
    mean = np.mean([values[:shared] for values in runs], axis=0)
    for values in runs:
        axes.plot(range(1, len(values) + 1), values, color=colour, linewidth=0.6, alpha=0.4)
    marker = "o" if shared == 1 else ""
    axes.plot(range(1, shared + 1), mean, color=colour, linewidth=1.8, marker=marker, markersize=4)
