"""Bars with intervals: recall of each subtype, and scores at each magnification."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from histo_lightning.data.breakhis.names import SUBTYPE_CLASS, SUBTYPES
from histo_lightning.evaluation import Table
from histo_lightning.evaluation.intervals import Support, bootstrap, case_weights, wilson
from histo_lightning.evaluation.levels import Units, is_grouped, units
from histo_lightning.evaluation.resampling import mean_of
from histo_lightning.evaluation.summary import score_units
from histo_lightning.report.ranking_pictures import DRAWS
from histo_lightning.report.style import (
    BLUE,
    INK,
    PALE,
    TEXT_SIZE,
    VERMILLION,
    label_axes,
    legend_below,
    new_figure,
    say_empty,
)
from histo_lightning.report.words import part_of

WIDTH = 0.38  # of a bar; two stand side by side
SCORES = {"auroc": "AUROC", "balanced_accuracy": "Balanced accuracy"}
LEVEL_LOOKS = {"case": (VERMILLION, ""), "image": (BLUE, "///")}


@dataclass(frozen=True)
class Bar:
    """A value in [0, 1] (NaN where undefined), its 95 % interval where there is one, and what stands below it."""

    value: float
    low: float | None
    high: float | None
    count: int


def subtype_recalls(table: Table, level: str, draws: int = DRAWS) -> dict[str, Bar]:
    """Recall of each subtype here: the share of its cases (or images) called right.

    Right means the true class for the binary task, the true subtype for the eight-class one. A case that holds
    two subtypes counts once for each. By case the interval is Wilson's, by image the expanded BCa over cases,
    which takes five cases of the subtype.
    """
    eight = table.task == "subtype"
    found = {}
    for subtype in SUBTYPES:
        members = table.subtype == subtype
        if not members.any():
            continue
        here = units(table.rows(members), level, binary=not eight)
        right = here.decision == here.truth
        low = high = None
        if level == "case":
            low, high = wilson(int(right.sum()), len(right))
        elif here.grouped:
            low, high = _ends(units(table, level, binary=not eight), members, subtype, draws)
        found[subtype] = Bar(float(right.mean()), low, high, len(right))
    return found


def _ends(
    images: Units, members: NDArray[np.bool_], subtype: str, draws: int
) -> tuple[float | None, float | None]:
    """Expanded BCa interval of the share of right calls among ``members``, as ``metrics.json`` has it."""
    sizes = np.bincount(images.case[members]).astype(np.int64)
    interval = bootstrap(
        images,
        mean_of(images, images.decision == images.truth, members),
        case_weights(images.case_class, draws, 0),
        Support([subtype], [sizes[sizes > 0]]),
    )
    return interval.low, interval.high


def magnification_scores(table: Table, level: str, score: str, draws: int = DRAWS) -> dict[int, Bar]:
    """AUROC or balanced accuracy (at 0.5) of malignant against benign at each magnification here.

    Intervals as in ``metrics.json``: by case Newcombe's and MOVER's closed forms, by image the expanded BCa.
    """
    found = {}
    for magnification in np.unique(table.magnification).tolist():
        here = units(table.rows(table.magnification == magnification), level)
        entry = score_units(here, draws=draws, names=[score])[score]
        value = float("nan") if entry["value"] is None else entry["value"]
        found[int(magnification)] = Bar(value, entry["low"], entry["high"], len(here))
    return found


def subtype_figure(table: Table, draws: int = DRAWS) -> Figure:
    """Recall by subtype with intervals, by case and by image; by image alone where cases are unknown."""
    figure, (axes,) = new_figure(6.2, 4.2)
    what = "subtype named right" if table.task == "subtype" else "class called right"
    label_axes(axes, f"Recall by subtype ({what}), {part_of(table)}", "", "share called right")
    present = [name for name in SUBTYPES if (table.subtype == name).any()]
    if not present:
        axes.set(xticks=[], yticks=[])
        say_empty(axes, "Not drawn: the subtypes of these images are unknown.")
        return figure
    levels = ["case", "image"] if is_grouped(table) else ["image"]
    recalls = {level: subtype_recalls(table, level, draws) for level in levels}
    for level in levels:
        _draw_bars(axes, [recalls[level][name] for name in present], level, levels)
    texts = [
        "\n".join(
            [
                f"{name} ({SUBTYPE_CLASS[name][0]})",
                *(_counted(recalls[level][name].count, level) for level in levels),
            ]
        )
        for name in present
    ]
    axes.set_xticks(range(len(present)), texts, fontsize=TEXT_SIZE - 1.5)
    note = "(b) benign, (m) malignant. "
    if len(levels) == 2:
        note += "Intervals 95 %: by case Wilson; by image expanded BCa\nover cases, none below 5 cases or without spread."
        note += " A case of two subtypes counts for each."
    else:
        note += "No interval: cases are unknown."
    legend_below(figure, axes, note, columns=2)
    return figure


def magnification_figure(table: Table, draws: int = DRAWS) -> Figure:
    """AUROC and balanced accuracy at each magnification, malignant against benign, with intervals."""
    figure, panels = new_figure(6.6, 4.2, 2)
    levels = ["case", "image"] if is_grouped(table) else ["image"]
    for axes, (score, name) in zip(panels, SCORES.items(), strict=True):
        label_axes(axes, f"{name} by magnification\n{part_of(table)}", "", "")
        bars = {level: magnification_scores(table, level, score, draws) for level in levels}
        present = list(next(iter(bars.values())))
        for level in levels:
            _draw_bars(axes, [bars[level][m] for m in present], level, levels)
        texts = [
            "\n".join(
                [f"{m}X" if m else "unknown", *(_counted(bars[level][m].count, level) for level in levels)]
            )
            for m in present
        ]
        axes.set_xticks(range(len(present)), texts, fontsize=TEXT_SIZE - 2)
        if any(np.isfinite(bar.value) for found in bars.values() for bar in found.values()):
            axes.axhline(0.5, color=INK, linestyle=":", linewidth=1.2, label="chance: 0.50")
        else:
            say_empty(axes, "Undefined: one class only.")
    note = "Malignant against benign; balanced accuracy at the threshold 0.5.\n"
    if len(levels) == 2:
        note += "Intervals 95 %: by case Newcombe and MOVER; by image expanded BCa over cases, none below 5 of a class."
    else:
        note += "No interval: cases are unknown."
    legend_below(figure, panels[0], note, columns=3)
    return figure


def _counted(count: int, level: str) -> str:
    return f"{count} {level}" + "s" * (count != 1)


def _draw_bars(axes: Axes, bars: Sequence[Bar], level: str, levels: Sequence[str]) -> None:
    colour, hatch = LEVEL_LOOKS[level]
    shift = (levels.index(level) - (len(levels) - 1) / 2) * WIDTH
    places = np.arange(len(bars)) + shift
    heights = np.array([bar.value for bar in bars])
    axes.bar(
        places,
        np.nan_to_num(heights),
        WIDTH * 0.94,
        color=colour,
        alpha=0.75,
        hatch=hatch,
        edgecolor="white",
        linewidth=0,
        label=f"by {level}",
    )
    for place, bar in zip(places, bars, strict=True):
        if not np.isfinite(bar.value):
            axes.text(
                place, 0.02, "undefined", rotation=90, ha="center", va="bottom", fontsize=TEXT_SIZE - 2.5
            )
        elif bar.low is not None and bar.high is not None:
            axes.plot([place, place], [bar.low, bar.high], color=INK, linewidth=1.3, marker="_", markersize=5)
    axes.set(ylim=(0, 1.02), xlim=(-0.6, len(bars) - 0.4))
    axes.grid(axis="y", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
