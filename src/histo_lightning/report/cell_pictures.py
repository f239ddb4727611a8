"""Pictures of all cells together: heat maps, score against cost, learning curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from histo_lightning.report.results_words import basis_of, basis_value, score_title
from histo_lightning.report.style import (
    COLOURS,
    GREY,
    INK,
    PALE,
    SHADES,
    TEXT_SIZE,
    label_axes,
    legend_below,
    new_figure,
    say_empty,
    shown,
)
from histo_lightning.report.words import fixed

Json = Mapping[str, Any]
MARKERS = "osD^vPX<>*hp"
MOST_CURVES = 12  # pairs of panels
MOST_VALUES = 0.95  # of all runs' losses stand inside the panels
COSTS = {"parameters": "parameters", "train_seconds": "seconds of training, a run"}
QUANTITIES = {"train_loss": "training loss", "val_loss": "validation loss"}
LETTERS_PER_INCH = 13  # of a legend
MOST_LEVELS = 7  # that keep a colour of their own


def _distinct(cells: Sequence[Json], key: str) -> list[str]:
    return list(dict.fromkeys(str(cell[key]) for cell in cells))


def colours_of(levels: Sequence[str]) -> dict[str, str]:
    """A colour for each level; beyond seven they come again."""
    return {level: COLOURS[number % MOST_LEVELS] for number, level in enumerate(levels)}


def heat_figure(cells: Sequence[Json], score: str) -> Figure:
    """The score of every level by magnification, a panel for each level of the other factors.

    Args:
        cells: of one world, as ``cell_summaries.summarise`` makes them.
        score: ``<level>_<score>``.
    """
    basis = basis_of(cells)
    levels, strata = _distinct(cells, "level"), _distinct(cells, "stratum")
    magnifications = _distinct(sorted(cells, key=lambda cell: len(cell["magnification"])), "magnification")
    values = {
        (cell["level"], cell["stratum"], cell["magnification"]): basis_value(cell, basis) for cell in cells
    }
    known = [value for value in values.values() if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    columns, rows = min(len(strata), 3), -(-len(strata) // 3)
    width = max(columns * max(3.4, 1.6 + 0.85 * len(magnifications)), 6.0)  # the title needs so much
    figure, panels = new_figure(width, (1.3 + 0.55 * len(levels)) * rows, 1)
    figure.delaxes(panels[0])
    for number, stratum in enumerate(strata):
        axes = figure.add_subplot(rows, columns, number + 1)
        grid = np.array(
            [[_or_nan(values.get((level, stratum, name))) for name in magnifications] for level in levels]
        )
        room = 0.25 * max(high - low, 1e-6)
        scale = Normalize(low - room, high + room)
        axes.imshow(np.ma.masked_invalid(grid), cmap=SHADES, norm=scale, aspect="auto")
        _heat_axes(axes, levels, magnifications, grid, scale)
        if number % columns:
            axes.set_yticklabels([])
        axes.set_title(
            shown(stratum) if stratum else "", fontsize=TEXT_SIZE, loc="left", color=INK, parse_math=False
        )
    figure.suptitle(f"{score_title(score)}, {basis.words}", fontsize=TEXT_SIZE, color=INK, x=0.01, ha="left")
    return figure


def _heat_axes(
    axes: Axes, levels: Sequence[str], magnifications: Sequence[str], grid: Any, scale: Normalize
) -> None:
    axes.set_xticks(range(len(magnifications)), magnifications, fontsize=TEXT_SIZE - 0.5)
    axes.set_yticks(range(len(levels)), [shown(level) for level in levels], fontsize=TEXT_SIZE - 0.5)
    axes.tick_params(length=0, colors=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for (row, column), value in np.ndenumerate(grid):
        text = "\N{EN DASH}" if np.isnan(value) else fixed(value)
        colour = GREY if np.isnan(value) else "white" if _is_dark(SHADES(scale(value))) else INK
        axes.text(column, row, text, ha="center", va="center", fontsize=TEXT_SIZE, color=colour)


def _is_dark(colour: tuple[float, ...]) -> bool:
    """Whether white stands out better than black on a colour (relative luminance of WCAG 2.1)."""
    red, green, blue = (((c + 0.055) / 1.055) ** 2.4 if c > 0.04045 else c / 12.92 for c in colour[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.2


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def cost_figure(cells: Sequence[Json], score: str) -> Figure:
    """The score with its interval against parameters (above) and seconds (below), a column for each magnification."""
    basis = basis_of(cells)
    levels, strata = _distinct(cells, "level"), _distinct(cells, "stratum")
    magnifications = _distinct(sorted(cells, key=lambda cell: len(cell["magnification"])), "magnification")
    colours = colours_of(levels)
    columns = len(magnifications)
    figure, panels = new_figure(max(2.6 * columns, 5.5), 5.6, 1)
    figure.delaxes(panels[0])
    for line, (cost, told) in enumerate(COSTS.items()):
        known = [float(cell[cost]) for cell in cells if cell[cost]]
        apart = min(0.02, 0.05 / max(1, len(strata) - 1))  # so that intervals do not hide each other
        step = apart * (max(known) - min(known)) if known else 0.0
        for column, magnification in enumerate(magnifications):
            axes = figure.add_subplot(2, columns, line * columns + column + 1)
            _plain(axes)
            drawn = 0
            for cell in cells:
                value = basis_value(cell, basis)
                if cell["magnification"] != magnification or value is None or not cell[cost]:
                    continue
                drawn += 1
                place = strata.index(cell["stratum"])
                x = float(cell[cost]) + step * (place - (len(strata) - 1) / 2)
                ends = (cell["low"], cell["high"]) if basis.has_interval else (None, None)
                _point(axes, x, value, ends, colours[cell["level"]], MARKERS[place % len(MARKERS)])
            label_axes(
                axes, magnification if line == 0 else "", told, score_title(score) if not column else ""
            )
            if drawn:
                _number_axis(axes)
            else:
                say_empty(axes, f"no {cost.replace('_', ' ')}\nstored by these runs")
    if figure.axes:
        _same_heights(figure)
        _key(figure, levels, strata, colours, lines=False)
    return figure


def _point(
    axes: Axes, x: float, value: float, ends: tuple[float | None, float | None], colour: str, marker: str
) -> None:
    low, high = ends
    spread = None
    if low is not None and high is not None:
        spread = np.array([[max(0.0, value - low)], [max(0.0, high - value)]])
    axes.errorbar([x], [value], yerr=spread, fmt=marker, color=colour, markersize=5, elinewidth=1, capsize=2)


def _number_axis(axes: Axes) -> None:
    """Room beside the outermost points, and few enough ticks to be read."""
    low, high = axes.get_xlim()
    axes.set_xlim(max(0.0, low - 0.12 * (high - low)), high + 0.12 * (high - low))
    axes.locator_params(axis="x", nbins=4)
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4), useMathText=True)
    axes.xaxis.get_offset_text().set_fontsize(TEXT_SIZE - 1)
    axes.grid(color=PALE, linewidth=0.5)
    axes.set_axisbelow(True)


def _same_heights(figure: Figure) -> None:
    used = [axes for axes in figure.axes if axes.has_data()]
    if used:
        low, high = min(a.get_ylim()[0] for a in used), max(a.get_ylim()[1] for a in used)
        for axes in used:
            axes.set_ylim(low, high)


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=TEXT_SIZE - 1, colors=INK, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)


def _key(
    figure: Figure, levels: Sequence[str], strata: Sequence[str], colours: Mapping[str, str], *, lines: bool
) -> None:
    """Colours say the level; markers say the level of the other factors (``strata``)."""
    axes = figure.axes[0]
    empty: list[float] = []
    for level in levels:
        axes.plot(
            empty, empty, color=colours[level], marker="" if lines else "o", linewidth=2 if lines else 0,
            label=shown(level),
        )  # fmt: skip
    for number, stratum in enumerate(strata if len(strata) > 1 else []):
        axes.plot(
            empty,
            empty,
            color=GREY,
            marker=MARKERS[number % len(MARKERS)],
            linestyle="",
            label=shown(stratum),
        )
    longest = max(len(str(text)) for text in axes.get_legend_handles_labels()[1])
    room = longest + 6  # six letters for a key and a gap
    fitting = int(LETTERS_PER_INCH * figure.get_figwidth() / room)
    note = "thick: means, as far as all runs go; thin: single runs, which may leave a panel" if lines else ""
    legend_below(figure, axes, note, columns=max(1, min(len(levels) + len(strata), 6, fitting)))


def curves_figure(curves: Sequence[Json], cells: Sequence[Json]) -> Figure:
    """Training and validation loss of all runs by epoch: thin lines are runs, thick ones their means as far as all go.

    A pair of panels for each magnification and level of the other factors, 12 pairs at most, on one scale: that of the
    means and of 95 % of all values.

    Args:
        curves: of one world: ``arm``, ``magnification``, ``train_loss``, ``val_loss``.
        cells: of the same world, which say an arm's level and stratum.
    """
    levels = _distinct(cells, "level")
    place = {cell["arm"]: (cell["level"], cell["stratum"]) for cell in cells}
    ordered = sorted(cells, key=lambda cell: len(cell["magnification"]))
    all_pairs = list(dict.fromkeys((str(cell["stratum"]), str(cell["magnification"])) for cell in ordered))
    pairs = all_pairs[:MOST_CURVES]
    colours = colours_of(levels)
    columns = min(len(pairs), 4)
    figure, panels = new_figure(max(2.6 * columns, 5.5), 0.6 + 4.6 * -(-len(pairs) // columns), 1)
    figure.delaxes(panels[0])
    rows = 2 * -(-len(pairs) // columns)
    for line, (quantity, told) in enumerate(QUANTITIES.items()):
        drawn = []
        for number, (stratum, magnification) in enumerate(pairs):
            row, column = 2 * (number // columns) + line, number % columns
            axes = figure.add_subplot(rows, columns, row * columns + column + 1)
            drawn.append(axes)
            _plain(axes)
            here = [
                curve
                for curve in curves
                if curve["magnification"] == magnification and place[curve["arm"]][1] == stratum
            ]
            if not here:
                say_empty(axes, "no finished run")
            for arm in dict.fromkeys(curve["arm"] for curve in here):
                own = [np.array(curve[quantity]) for curve in here if curve["arm"] == arm]
                _bundle(axes, own, colours[place[arm][0]])
            label_axes(axes, "", "epoch" if line else "", "" if column else told)
            name = f"{shown(stratum)}\n{magnification}".strip() if line == 0 else ""
            axes.set_title(name, fontsize=TEXT_SIZE - 0.5, loc="left", color=INK, parse_math=False)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        highest = _highest([curve for axes in drawn for curve in axes.lines])
        for axes in drawn:
            axes.set_ylim(0, 1.05 * highest)  # a single run may leave it
    if len(pairs) < len(all_pairs):
        told = f"the first {len(pairs)} of {len(all_pairs)} pairs of panels"
        figure.suptitle(told, fontsize=TEXT_SIZE, color=INK, x=0.01, ha="left")
    _key(figure, levels, [], colours, lines=True)
    return figure


def _highest(lines: Sequence[Line2D]) -> float:
    """The largest mean (thick), or what 95 % of all values stay below; 1 where no value is finite."""
    values, means = (
        np.concatenate([np.asarray(line.get_ydata(), np.float64) for line in chosen] or [np.empty(0)])
        for chosen in (lines, [line for line in lines if line.get_linewidth() > 1])
    )
    values, means = values[np.isfinite(values)], means[np.isfinite(means)]
    inside = float(np.quantile(values, MOST_VALUES)) if len(values) else 1.0
    return max(inside, 1.05 * float(means.max(initial=0)))


def _bundle(axes: Axes, curves: Sequence[Any], colour: str) -> None:
    for values in curves:
        axes.plot(range(1, len(values) + 1), values, color=colour, linewidth=0.6, alpha=0.4)
    # Only as far as all runs go: a mean over those that were not stopped yet would jump.
    shared = min(len(values) for values in curves)
    mean = np.mean([values[:shared] for values in curves], axis=0)
    marker = "o" if shared == 1 else ""
    axes.plot(range(1, shared + 1), mean, color=colour, linewidth=1.8, marker=marker, markersize=4)
