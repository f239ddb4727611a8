"""Pictures of a study: how it went on, which keys mattered, each key's values, each trial's curve."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from histo_lightning.report.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    PALE,
    TEXT_SIZE,
    VERMILLION,
    label_axes,
    legend_below,
    new_figure,
    save_picture,
    say_empty,
    shown,
)
from histo_lightning.tuning.results import TrialRow, best_row

Json = Mapping[str, Any]
# Okabe and Ito 2008 again; the markers tell depths apart without colour.
COLOURS = (BLUE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", INK)
MARKERS = ("o", "s", "^", "D", "v", "P")
FAR = 3.0  # values further above the median than this many times the spread of the better half are drawn at the rim


def draw_study(folder: Path, rows: Sequence[TrialRow], study: Json) -> list[str]:
    """Write ``plots/*``, PNG and SVG of each; their names, in the order a page shows them."""
    figures: dict[str, Figure] = {"history": history_figure(rows, study)}
    for dimension in study["search"]["space"]:
        figures[f"values_{dimension['key']}"] = values_figure(rows, study, dimension)
    figures["importance"] = importance_figure(study)
    for depth in study["search"]["depths"]:
        figures[f"curves_{depth}"] = curves_figure(rows, study, depth)
    for name, figure in figures.items():
        save_picture(figure, folder / "plots" / name)
    return list(figures)


def monitor_words(study: Json) -> str:
    """What trials are compared by, for an axis."""
    words = str(study["protocol"]["monitor"]).removeprefix("val_").replace("_", " ").replace("auroc", "AUROC")
    better = "lower" if _minimise(study) else "higher"
    return f"validation {words} ({better} is better)"


def _minimise(study: Json) -> bool:
    return bool(study["protocol"]["direction"] == "minimise")


def last_value(row: TrialRow) -> float | None:
    """A completed trial's value, else the last one that was seen."""
    seen = [value for value in row.curve if np.isfinite(value)]
    return row.value if row.value is not None else seen[-1] if seen else None


def limits(values: Sequence[float], minimise: bool) -> tuple[float, float]:
    """Ends of an axis that leave diverged values out: they would press all others into a line."""
    sign = 1.0 if minimise else -1.0
    found = np.sort(sign * np.asarray(values, dtype=np.float64))
    middle = float(np.median(found))
    far = middle + FAR * max(middle - float(found[0]), 1e-3)
    low, high = float(found[0]), float(found[found <= far][-1])
    pad = 0.06 * max(high - low, 0.2 * abs(middle), 1e-3)
    ends = sorted((sign * (low - pad), sign * (high + pad)))
    return ends[0], ends[1]


def _clip(axes: Axes, values: Sequence[float], study: Json, told: str) -> str:
    """Set the axis; what is to be said of values outside it."""
    low, high = limits(values, _minimise(study))
    axes.set_ylim(low, high)
    outside = sum(not low <= value <= high for value in values)
    return f"{outside} values lie further {'up' if _minimise(study) else 'down'}, {told}." if outside else ""


def _look(depths: Sequence[str], depth: str) -> tuple[str, str]:
    index = list(depths).index(depth)
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def _points(axes: Axes, rows: Sequence[TrialRow], study: Json, xs: Sequence[float]) -> str:
    """Trials at ``xs``: completed ones filled, pruned ones open at their last value, failed ones as a cross at the rim.

    The best one has a ring. Returns what is to be said of values outside the axes.
    """
    best = best_row(rows, _minimise(study))
    seen = {
        row.trial: value for row in rows if row.state != "failed" and (value := last_value(row)) is not None
    }
    if not seen:
        say_empty(axes, "No trial has a value.")
        return ""
    note = _clip(axes, list(seen.values()), study, "drawn at the rim")
    low, high = axes.get_ylim()
    rim = 0.012 * (high - low)
    for row, x in zip(rows, xs, strict=True):
        colour, marker = _look(study["search"]["depths"], row.depth)
        if row.trial not in seen:
            at = high - 2 * rim if _minimise(study) else low + 2 * rim
            axes.plot(x, at, "x", color=VERMILLION, markersize=5, markeredgewidth=1.4)
            continue
        at = min(max(seen[row.trial], low + rim), high - rim)
        if row.state == "complete":
            axes.plot(x, at, marker, color=colour, markersize=6, markeredgecolor="white", markeredgewidth=0.6)
        else:
            axes.plot(x, at, marker, color="none", markersize=5, markeredgecolor=GREY, markeredgewidth=1.1)
        if best is not None and row.trial == best.trial:
            axes.plot(
                x, at, "o", color="none", markersize=13, markeredgecolor=VERMILLION, markeredgewidth=1.8
            )
    return note


def _legend(figure: Figure, axes: Axes, rows: Sequence[TrialRow], study: Json, note: str = "") -> None:
    depths, states = study["search"]["depths"], {row.state for row in rows}

    def mark(label: str, face: str, edge: str, marker: str = "o", size: float = 6) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, markersize=size, label=label,
                      markerfacecolor=face, markeredgecolor=edge)  # fmt: skip

    if len(depths) > 1:
        for depth in depths:
            colour, marker = _look(depths, depth)
            axes.add_line(mark(shown(depth), colour, "white", marker))
    else:
        axes.add_line(mark("completed", BLUE, "white"))
    if "pruned" in states:
        axes.add_line(mark("pruned, at its last value", "none", GREY))
    if "failed" in states:
        axes.add_line(mark("failed, no value", "none", VERMILLION, "x"))
    if best_row(rows, _minimise(study)) is not None:
        axes.add_line(mark("best", "none", VERMILLION, size=10))
    legend_below(figure, axes, note, columns=3)


def history_figure(rows: Sequence[TrialRow], study: Json) -> Figure:
    """Every trial's value in the order they were started, and the best so far of each depth."""
    figure, (axes,) = new_figure(5.6, 4.0)
    label_axes(axes, "The search as it went on", "trial", monitor_words(study))
    note = _points(axes, rows, study, [row.trial for row in rows])
    choose = min if _minimise(study) else max
    for depth in study["search"]["depths"]:
        own = [
            row for row in rows if row.depth == depth and row.state == "complete" and row.value is not None
        ]
        if not own:
            continue
        best = [choose(float(row.value or 0.0) for row in own[: end + 1]) for end in range(len(own))]
        xs = [row.trial for row in own] + [max(row.trial for row in rows)]
        axes.step(xs, [*best, best[-1]], where="post", color=_look(study["search"]["depths"], depth)[0],
                  linewidth=1.2, alpha=0.8, zorder=0)  # fmt: skip
    axes.set_xlim(-0.6, max((row.trial for row in rows), default=0) + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure, axes, rows, study, f"Lines: the best so far. {note}".strip())
    return figure


def values_figure(rows: Sequence[TrialRow], study: Json, dimension: Json) -> Figure:
    """One key's values against what came of them; dotted lines are the ends of its range."""
    figure, (axes,) = new_figure(4.6, 4.0)
    key = str(dimension["key"])
    label_axes(axes, f"By {key}", key, monitor_words(study))
    if dimension["kind"] == "choice":
        names = [_name(choice) for choice in dimension["choices"]]
        shift = {depth: 0.12 * index for index, depth in enumerate(study["search"]["depths"])}
        middle = 0.06 * (len(shift) - 1)
        xs = [names.index(_name(row.values[key])) + shift[row.depth] - middle for row in rows]
        axes.set_xticks(range(len(names)), [shown(name) for name in names])
        axes.set_xlim(-0.6, len(names) - 0.4)
    else:
        xs = [float(row.values[key] or 0.0) for row in rows]
        low, high = float(dimension["low"]), float(dimension["high"])
        if dimension["log"]:
            axes.set_xscale("log")
            axes.set_xlim(low * (low / high) ** 0.04, high * (high / low) ** 0.04)
        else:
            axes.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))
        for end in (low, high):
            axes.axvline(end, color=GREY, linestyle=":", linewidth=1.2, zorder=0)
    note = _points(axes, rows, study, xs)
    _legend(figure, axes, rows, study, note)
    return figure


def _name(choice: Any) -> str:
    """A choice as YAML writes it."""
    return "null" if choice is None else str(choice).lower() if isinstance(choice, bool) else str(choice)


def importance_figure(study: Json) -> Figure:
    """How much each key decides whether a trial is among the best quarter, by depth."""
    found, depths = study["importances"], study["search"]["depths"]
    known = {depth: found[depth]["values"] for depth in depths if found[depth]["values"]}
    keys = [dimension["key"] for dimension in study["search"]["space"]]
    figure, (axes,) = new_figure(4.6, max(2.4, 1.5 + 0.32 * len(keys) * max(1, len(known))))
    label_axes(axes, "Which keys mattered", "importance (PED-ANOVA, best quarter)", "")
    if not known:
        reasons = dict.fromkeys(str(found[depth]["reason"]) for depth in depths)
        say_empty(axes, f"Not computed: {'; '.join(reasons)}.")
        axes.set_xticks([])
        axes.set_yticks([])
        return figure
    keys = sorted(keys, key=lambda key: sum(values.get(key, 0.0) for values in known.values()))
    height = 0.8 / len(known)
    for index, (depth, values) in enumerate(known.items()):
        at = [row - 0.4 + height * (len(known) - index - 0.5) for row in range(len(keys))]
        lengths = [values.get(key, 0.0) for key in keys]
        axes.barh(at, lengths, height * 0.9, color=_look(depths, depth)[0], label=shown(depth))
        for y, length in zip(at, lengths, strict=True):
            axes.text(length + 0.01, y, f"{length:.2f}", va="center", fontsize=TEXT_SIZE - 1.5, color=INK)
    axes.set_yticks(range(len(keys)), [shown(key) for key in keys])
    axes.set_xlim(0, 1.08)
    if len(depths) > 1:
        missing = [f"{depth}: {found[depth]['reason']}." for depth in depths if depth not in known]
        legend_below(figure, axes, "\n".join(missing), columns=3)
    return figure


def curves_figure(rows: Sequence[TrialRow], study: Json, depth: str) -> Figure:
    """The monitored value of every trial of a depth, epoch by epoch; a pruned one ends in a cross."""
    several = len(study["protocol"]["folds"]) > 1
    figure, (axes,) = new_figure(5.6, 4.0)
    own = [row for row in rows if row.depth == depth and len(row.curve)]
    title = f"Trials of {shown(depth)}, {'fold by fold' if several else 'epoch by epoch'}"
    label_axes(axes, title, "folds" if several else "epoch", monitor_words(study))
    if not own:
        say_empty(axes, "No trial finished an epoch.")
        return figure
    best = best_row(own, _minimise(study))
    values = [value for row in own for value in row.curve if np.isfinite(value)]
    outside = _clip(axes, values, study, "cut off") if values else ""
    for row in own:
        epochs = range(1, len(row.curve) + 1)
        chosen, pruned = best is not None and row.trial == best.trial, row.state == "pruned"
        colour = VERMILLION if chosen else GREY if pruned or row.state == "failed" else BLUE
        line = "--" if pruned else "-"
        axes.plot(epochs, row.curve, line, color=colour, linewidth=2.2 if chosen else 1.0,
                  alpha=1.0 if chosen else 0.55, zorder=3 if chosen else 2)  # fmt: skip
        if row.state != "complete":
            axes.plot(len(row.curve), row.curve[-1], "x", color=GREY, markersize=5, markeredgewidth=1.4)
        elif len(row.curve) == 1:
            axes.plot(1, row.curve[0], "o", color=colour, markersize=4)
    warmup = study["search"]["warmup_epochs"]
    if study["search"]["pruner"] != "none" and not several:
        axes.axvline(warmup, color=PALE, linewidth=1.4, zorder=0)
    axes.set_xlim(0.6, max(len(row.curve) for row in own) + 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    styles: dict[str, tuple[str, Literal["-", "--"], str]] = {
        "completed": (BLUE, "-", ""),
        "best": (VERMILLION, "-", ""),
        "pruned": (GREY, "--", "x"),
        "failed": (GREY, "-", "x"),
    }
    states = {"complete": "completed"}
    present = {states.get(row.state, row.state) for row in own} | ({"best"} if best else set())
    for name, (colour, line, marker) in styles.items():
        if name in present:
            axes.add_line(Line2D([], [], color=colour, linestyle=line, marker=marker, label=name))
    notes = [outside]
    if study["search"]["pruner"] != "none" and not several:
        notes.insert(0, "Grey line: the first epoch after which a trial can be pruned.")
    legend_below(figure, axes, "\n".join(note for note in notes if note), columns=4)
    return figure
