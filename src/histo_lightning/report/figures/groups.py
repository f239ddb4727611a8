"""Bars with intervals: recall of each subtype, and scores at each magnification."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from histo_lightning.data.names import SUBTYPE_CLASS, SUBTYPES
from histo_lightning.evaluation import Table, binary
from histo_lightning.evaluation.intervals import case_weights, wilson
from histo_lightning.evaluation.level_intervals import Support, binary_intervals, bootstrap
from histo_lightning.evaluation.levels import Units, is_grouped, units
from histo_lightning.evaluation.resampling import mean_of
from histo_lightning.report.figures.ranking import DRAWS
from histo_lightning.report.style import (
    BLUE,
    INK,
    PALE,
    TEXT_SIZE,
    VERMILLION,
    bare,
    label_axes,
    legend_below,
    new_figure,
    say_empty,
)
from histo_lightning.report.words import counted, part_of

WIDTH = 0.38  # of a bar; two are side by side
SCORES = {"auroc": "AUROC", "balanced_accuracy": "Balanced accuracy"}
LEVEL_LOOKS = {"case": (VERMILLION, ""), "image": (BLUE, "///")}


@dataclass(frozen=True)
class Bar:
    """A value in [0, 1] (NaN where undefined), its 95 % interval where there is one, and what is counted."""

    value: float
    low: float | None
    high: float | None
    count: int


def subtype_recalls(table: Table, level: str, draws: int = DRAWS) -> dict[str, Bar]:
    """Recall of each subtype that is present: the share of its cases (or images) called right.

    Right means the true class for the binary task, the true subtype for the eight-class one. A case that holds
    two subtypes counts once for each. By case the interval is Wilson's, by image the expanded BCa over cases,
    which takes five cases of the subtype.
    """
    two_classes = table.task == "binary"
    recalls = {}
    for subtype in SUBTYPES:
        members = table.subtype == subtype
        if not members.any():
            continue
        own = units(table.rows(members), level, binary=two_classes)
        right = own.decision == own.truth
        low = high = None
        if level == "case":
            low, high = wilson(int(right.sum()), len(right))
        elif own.grouped:
            low, high = _bca(units(table, level, binary=two_classes), members, subtype, draws)
        recalls[subtype] = Bar(float(right.mean()), low, high, len(right))
    return recalls


def _bca(
    images: Units, members: NDArray[np.bool_], subtype: str, draws: int
) -> tuple[float | None, float | None]:
    """Expanded BCa interval of the share of right calls among ``members``, as ``metrics.json`` has it."""
    sizes = np.bincount(images.case[members]).astype(np.int64)
    statistic = mean_of(images, images.decision == images.truth, members)
    weights = case_weights(images.case_class, draws, 0)
    interval = bootstrap(images, statistic, weights, Support([subtype], [sizes[sizes > 0]]))
    return interval.low, interval.high


def magnification_scores(table: Table, level: str, score: str, draws: int = DRAWS) -> dict[int, Bar]:
    """AUROC or balanced accuracy (at 0.5) of malignant against benign at each magnification that is present.

    Intervals as in ``metrics.json``: by case Newcombe's and MOVER's closed forms, by image the expanded BCa.
    """
    skip = [name for name in binary.SCORES if name != score]
    bars = {}
    for magnification in np.unique(table.magnification).tolist():
        own = units(table.rows(table.magnification == magnification), level)
        values = binary.binary_values(own)
        low = high = None
        if own.grouped and np.isfinite(values[score]):
            interval = binary_intervals(own, values["auroc"], draws, 0, skip)[score]
            low, high = interval.low, interval.high
        bars[int(magnification)] = Bar(values[score], low, high, len(own))
    return bars


def subtype_figure(table: Table, draws: int = DRAWS) -> Figure:
    """Recall by subtype with intervals, by case and by image; by image alone where cases are unknown."""
    figure, (axes,) = new_figure(6.0, 4.4)
    what = "subtype named right" if table.task == "subtype" else "class called right"
    label_axes(axes, f"Recall by subtype ({what}), {part_of(table)}", "", "share called right")
    levels = ["case", "image"] if is_grouped(table) else ["image"]
    recalls = {level: subtype_recalls(table, level, draws) for level in levels}
    if not recalls["image"]:
        bare(axes)
        say_empty(axes, "Not drawn: the subtypes of these images are unknown.")
        return figure
    titles = {name: f"{name} ({SUBTYPE_CLASS[name][0]})" for name in recalls["image"]}
    _draw_bars(axes, titles, recalls)
    note = "(b) benign, (m) malignant. No interval: cases are unknown."
    if len(levels) == 2:
        note = "(b) benign, (m) malignant. 95 % intervals: by case Wilson; by image expanded BCa over\n"
        note += "cases, none below 5 cases or without spread. A case of two subtypes counts for each."
    legend_below(figure, axes, note, columns=2)
    return figure


def magnification_figure(table: Table, draws: int = DRAWS) -> Figure:
    """AUROC and balanced accuracy at each magnification, malignant against benign, with intervals."""
    figure, panels = new_figure(6.4, 4.4, 2)
    levels = ["case", "image"] if is_grouped(table) else ["image"]
    for axes, (score, name) in zip(panels, SCORES.items(), strict=True):
        label_axes(axes, f"{name}\nby magnification, {part_of(table)}")
        bars = {level: magnification_scores(table, level, score, draws) for level in levels}
        _draw_bars(axes, {m: f"{m}X" if m else "unknown" for m in bars["image"]}, bars)
        if any(np.isfinite(bar.value) for level in levels for bar in bars[level].values()):
            axes.axhline(0.5, color=INK, linestyle=":", linewidth=1.2, label="chance: 0.50")
        else:
            say_empty(axes, "Undefined: one class only.")
    note = "Malignant against benign; balanced accuracy at the threshold 0.5.\n"
    intervals = "95 % intervals: by case Newcombe and MOVER; by image expanded BCa, none below 5 cases of a class."
    note += intervals if len(levels) == 2 else "No interval: cases are unknown."
    legend_below(figure, panels[0], note, columns=3)
    return figure


def _draw_bars(axes: Axes, titles: Mapping[Any, str], bars: Mapping[str, Mapping[Any, Bar]]) -> None:
    """Bars of each level side by side, with the numbers of units below."""
    for number, (level, own) in enumerate(bars.items()):
        colour, hatch = LEVEL_LOOKS[level]
        places = np.arange(len(titles)) + (number - (len(bars) - 1) / 2) * WIDTH
        heights = np.nan_to_num([own[key].value for key in titles])
        axes.bar(
            places, heights, WIDTH * 0.94, color=colour, alpha=0.75, hatch=hatch, edgecolor="white", linewidth=0,
            label=f"by {level}",
        )  # fmt: skip
        for place, bar in zip(places, (own[key] for key in titles), strict=True):
            if not np.isfinite(bar.value):
                look: dict[str, str] = {"ha": "center", "va": "bottom"}
                axes.text(place, 0.02, "undefined", rotation=90, fontsize=TEXT_SIZE - 2.5, **look)
            elif bar.low is not None and bar.high is not None:
                axes.plot([place, place], [bar.low, bar.high], color=INK, linewidth=1.3, marker="_", markersize=5)
    counts = {key: [counted(own[key].count, level) for level, own in bars.items()] for key in titles}
    texts = ["\n".join([title, *counts[key]]) for key, title in titles.items()]
    axes.set_xticks(range(len(texts)), texts, fontsize=TEXT_SIZE - 2.5)
    axes.set(ylim=(0, 1.02), xlim=(-0.6, len(texts) - 0.4))
    axes.grid(axis="y", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)


