"""Figures of a comparison: intervals of differences, mean ranks, heat map, cost; ROC, confusion, losses of every cell."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle, product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.report import style
from histo_lightning.report.comparison_words import basis_of, distinct, is_error, score_title
from histo_lightning.report.figures.cases import draw_matrix
from histo_lightning.report.figures.curves import GRID
from histo_lightning.report.style import label_axes, legend_below, new_figure, say_empty, shown
from histo_lightning.report.words import Json, fixed

REGIONS = ((0.05, "#F2F4F7"), (0.03, "#E4EAF0"), (0.01, "#CFDBE6"))
COSTS = {"parameters": "parameters", "train_seconds": "seconds of training, a run"}
MARKERS = "osD^vPX<>*hp"
SCALES = {"auroc": (0.5, 1.0), "balanced_accuracy": (0.5, 1.0), "brier": (0.0, 0.25)}  # else 0 to 1
LETTERS_PER_INCH = 12  # of a legend or title
POINT: Mapping[str, Any] = {"marker": "o", "color": "white", "markeredgecolor": style.BLUE, "markersize": 5.5}
THICK: Mapping[str, Any] = {"color": style.BLUE, "linewidth": 3.4, "solid_capstyle": "butt"}
THIN: Mapping[str, Any] = {"color": style.BLUE, "linewidth": 1.2, "marker": "|", "markersize": 7}
CELL = ("level", "stratum", "magnification")
COLUMNS = 4
MOST_PANELS = 24  # more cannot be read on one page
LETTERS, MOST_LINES = 24, 4  # of a panel's title
MOST_VALUES = 0.95  # of all runs' losses are inside the panels
QUANTITIES = {"train_loss": "train loss", "val_loss": "validation loss"}


def panel_grid(
    count: int, columns: int, size: tuple[float, float], title: str, extra: float = 0.9
) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` panels of ``size`` inches below a title, which gets ``extra`` inches with the legend."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, panels = new_figure(max(size[0] * columns, 5.5), size[1] * rows + extra, columns, rows)
    for axes in panels[count:]:
        figure.delaxes(axes)
    wrapped = textwrap.fill(title, int(LETTERS_PER_INCH * figure.get_figwidth()) - 12)
    figure.suptitle(wrapped, fontsize=style.TEXT_SIZE, color=style.INK, x=0.01, ha="left")
    return figure, panels[:count]


def forest_figure(families: Sequence[Json], score: str) -> Figure:
    """Every difference of a protocol's families with its intervals; regions of equivalence (1, 3, 5 points) are shaded."""
    scale, unit = (1.0, "") if is_error(score) else (100.0, ", points")
    pairs = [pair for family in families for pair in family["comparison"]["pairs"]]
    references = {shown(pair["reference"]) for pair in pairs}
    common = references.pop() if len(references) == 1 else ""
    rows: list[tuple[str, Json | None]] = []
    for family in families:
        if family["held"]:
            rows.append(("mean over " * (len(family["held"]) > 1) + shown(family["over"], 40), None))
        for pair in family["comparison"]["pairs"]:
            reference = "" if common else f" \N{MINUS SIGN} {shown(pair['reference'])}"
            rows.append((shown(pair["arm"]) + reference, pair))
    figure, (axes,) = new_figure(7.4, 1.9 + 0.36 * (len(pairs) + len(families)))
    for half, colour in REGIONS:
        axes.axvspan(-half * scale, half * scale, color=colour, linewidth=0, zorder=0)
    axes.axvline(0, color=style.GREY, linewidth=0.8, zorder=1)
    axes.set_yticks(range(len(rows)), [text for text, _ in rows], parse_math=False)
    axes.set_ylim(len(rows) - 0.4, -0.7)
    for y, (label, (_, row)) in enumerate(zip(axes.get_yticklabels(), rows, strict=True)):
        label.set_color(style.INK if row else style.GREY)
        if row:
            for name, look in (("simultaneous_", THIN), ("", THICK)):
                if row[f"{name}low"] is not None:
                    axes.plot([scale * row[f"{name}{end}"] for end in ("low", "high")], [y, y], **look)
            axes.plot([scale * row["difference"]], [y], **POINT)
    names = families[0]["magnifications"]
    title = f"{score_title(score)}, {'mean over ' * (len(names) > 1)}{', '.join(names)}"
    label_axes(axes, title, f"difference from {common or 'the reference'}{unit}")
    if any(pair["simultaneous_low"] is not None for pair in pairs):
        axes.plot([], [], label="simultaneous 95 % interval", **THIN)
    axes.plot([], [], label="95 % interval of one difference by itself", **THICK)
    legend_below(figure, axes, "shaded: within 1, 3 and 5 points" if unit else "", columns=2)
    return figure


def ranks_figure(friedman: Json) -> Figure | None:
    """Mean ranks over the folds with the critical difference (Demsar 2006); descriptive. None where it is undefined."""
    ranks, critical = friedman.get("mean_ranks"), friedman.get("critical_difference")
    if not ranks or critical is None:
        return None
    names = sorted(ranks, key=lambda name: ranks[name], reverse=True)
    figure, (axes,) = new_figure(6.0, 1.9 + 0.34 * len(names))
    for row, name in enumerate(names):
        axes.plot([ranks[name] - critical / 2, ranks[name] + critical / 2], [row, row], **THICK)
        axes.plot([ranks[name]], [row], **POINT)
    texts = [f"{shown(name)} ({ranks[name]:.2f})" for name in names]
    axes.set_yticks(range(len(names)), texts, parse_math=False)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(axis="x", color=style.PALE, linewidth=0.6)
    label_axes(axes, "Mean ranks (descriptive)", f"mean rank over {friedman['blocks']} folds, 1 is best")
    length = f"Bars are as long as the critical difference, {critical:.2f}"
    legend_below(figure, axes, f"{length}:\nthose that overlap cannot be distinguished.")
    return figure


def heat_figure(cells: Sequence[Json], score: str) -> Figure:
    """The ``score`` of every level of one protocol by magnification, a panel for each other setting, on one fixed scale."""
    basis = basis_of(cells)
    levels, settings, names = (distinct(cells, key) for key in ("level", "stratum", "magnification"))
    values = {(cell["level"], cell["stratum"], cell["magnification"]): cell[basis.key] for cell in cells}
    scale = Normalize(*SCALES.get(score.partition("_")[2], (0.0, 1.0)))
    title = f"{score_title(score)}, {basis.words}; colours from {scale.vmin:g} to {scale.vmax:g}"
    size = max(3.2, 1.6 + 0.85 * len(names)), 1.1 + 0.5 * len(levels)
    figure, panels = panel_grid(len(settings), 3, size, title, extra=0.6)
    middle: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": style.TEXT_SIZE}
    for number, (axes, setting) in enumerate(zip(panels, settings, strict=True)):
        rows = [[values.get((level, setting, name)) for name in names] for level in levels]
        grid = np.ma.masked_invalid(np.array(rows, np.float64))
        axes.imshow(grid, cmap=style.SHADES, norm=scale, aspect="auto")
        for (row, column), value in np.ndenumerate(grid.filled(np.nan)):
            known = float(value) if np.isfinite(value) else None
            colour = style.GREY if known is None else "white" if scale(known) > 0.55 else style.INK
            axes.text(column, row, fixed(known), color=colour, **middle)
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(levels)), [shown(level) if number % 3 == 0 else "" for level in levels])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        label_axes(axes, shown(setting))
    return figure


def cost_figure(cells: Sequence[Json], score: str) -> Figure:
    """The score with its interval against parameters (above) and seconds (below), a column for each magnification."""
    basis, colours = basis_of(cells), dict(zip(distinct(cells, "level"), cycle(style.COLOURS), strict=False))
    settings, names = distinct(cells, "stratum"), distinct(cells, "magnification")
    figure, panels = new_figure(max(2.6 * len(names), 5.0), 6.0, len(names), 2)
    look: dict[str, Any] = {"markersize": 5, "elinewidth": 1, "capsize": 2, "alpha": 0.8}
    for axes, (cost, name) in zip(panels, product(COSTS, names), strict=True):
        for cell in cells:
            value = cell[basis.key]
            if cell["magnification"] == name and value is not None and cell[cost]:
                known = basis.has_interval and cell["low"] is not None
                ends = (value - cell["low"], cell["high"] - value) if known else ()
                marker = MARKERS[settings.index(cell["stratum"]) % len(MARKERS)]
                spread = [[max(0.0, end)] for end in ends] or None
                axes.errorbar([cell[cost]], [value], spread, fmt=marker, color=colours[cell["level"]], **look)
        title = name if cost == next(iter(COSTS)) else ""
        label_axes(axes, title, COSTS[cost], score_title(score) if name == names[0] else "")
        if not axes.has_data():
            say_empty(axes, f"no {cost.replace('_', ' ')}\nstored by these runs")
            continue
        axes.margins(x=0.15)
        axes.locator_params(axis="x", nbins=3)
        axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4), useMathText=True)
        axes.grid(color=style.PALE, linewidth=0.5)
    drawn = [axes for axes in panels if axes.has_data()]
    for axes in drawn:
        axes.set_ylim(min(a.get_ylim()[0] for a in drawn), max(a.get_ylim()[1] for a in drawn))
    key_below(figure, colours, settings)
    return figure


def key_below(figure: Figure, colours: Json, settings: Sequence[str] = (), note: str = "") -> None:
    """Colours say the level, markers the other settings; without ``settings`` the key has lines."""
    axes = figure.axes[0]
    look: dict[str, Any] = {"marker": "o", "linestyle": ""} if settings else {"linewidth": 2}
    for level, colour in colours.items():
        axes.plot([], [], color=colour, label=shown(level), **look)
    for number, setting in enumerate(settings if len(settings) > 1 else []):
        axes.plot([], [], MARKERS[number % len(MARKERS)], color=style.GREY, label=shown(setting))
    letters = [len(str(name)) + 6 for name in axes.get_legend_handles_labels()[1]]  # with a key and a gap
    columns = min(len(letters), 6, int(LETTERS_PER_INCH * figure.get_figwidth() / max(letters)))
    legend_below(figure, axes, note, columns=max(1, columns))


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
            if not (roc := (cell.get(level) or {}).get("roc")):
                continue
            for false, true in roc["curves"]:
                axes.plot(false, true, line, color=colour, linewidth=0.5, alpha=0.3)
            mean = [0, *GRID], [0, *roc["mean"]]
            axes.plot(*mean, line, color=colour, linewidth=1.8, label=f"by {level}")
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
    colours = dict(zip(distinct(cells, "level"), cycle(style.COLOURS), strict=False))
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
        for level, own in runs.items():
            # Only as far as all go: a mean over those that are left would jump.
            mean = np.mean([values[: min(map(len, own))] for values in own], axis=0)
            for values in own:
                axes.plot(range(1, len(values) + 1), values, color=colours[level], linewidth=0.6, alpha=0.4)
            look: dict[str, Any] = {"color": colours[level], "marker": "o" if len(mean) == 1 else ""}
            axes.plot(range(1, len(mean) + 1), mean, linewidth=1.8, markersize=4, **look)
        if not runs:
            say_empty(axes, "no finished run")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    for loss in QUANTITIES:
        drawn = [axes for axes, panel in panels if panel["loss"] == loss]
        lines = [(line.get_linewidth() > 1, line.get_ydata()) for axes in drawn for line in axes.lines]
        thick = np.concatenate([losses for is_mean, losses in lines if is_mean] or [[]])
        every = np.concatenate([losses for _, losses in lines] or [[]])
        values, means = every[np.isfinite(every)], thick[np.isfinite(thick)]
        inside = float(np.quantile(values, MOST_VALUES)) if len(values) else 1.0
        for axes in drawn:  # a single run may leave it
            axes.set_ylim(0, 1.05 * max(inside, 1.05 * float(means.max(initial=0))))
    key_below(figure, colours, note="thick: means, as far as all runs go; thin: single runs")
    return figure
