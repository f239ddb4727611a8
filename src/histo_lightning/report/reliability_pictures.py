"""Reliability diagrams: how often "70 % malignant" is malignant, before and after the stored temperature."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from histo_lightning.evaluation import Table, apply_temperature
from histo_lightning.evaluation.intervals import wilson
from histo_lightning.evaluation.levels import Units, is_grouped, units
from histo_lightning.evaluation.scores import bin_index, why_undefined
from histo_lightning.report.ranking_pictures import COLLAPSED
from histo_lightning.report.style import (
    BLUE,
    GREY,
    VERMILLION,
    label_axes,
    legend_below,
    new_figure,
    say_empty,
)
from histo_lightning.report.words import part_of

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bins:
    """At most five bins of equal mass, in order of p: (b,) mean p, share and number of malignant, size."""

    p: Floats
    share: Floats
    malignant: NDArray[np.int64]
    size: NDArray[np.int64]


def reliability_bins(here: Units) -> Bins:
    """The bins that the ECE counts (see ``evaluation.scores.bin_index``), empty ones left out."""
    index = bin_index(here.p)
    size = np.bincount(index)
    malignant = np.bincount(index, weights=here.truth).astype(np.int64)
    p = np.bincount(index, weights=here.p)
    filled = size > 0
    size, malignant, p = size[filled], malignant[filled], p[filled]
    return Bins(p / size, malignant / size, malignant, size.astype(np.int64))


def reliability_figure(table: Table, temperature: Mapping[str, Any] | None) -> Figure:
    """Share of malignant over the mean predicted probability, by image and (where known) by case.

    Args:
        table: predictions of one part, untempered; eight subtypes are collapsed to the two classes.
        temperature: the entry of ``metrics.json``; without one only the untempered points are drawn.
    """
    levels = ["image", "case"] if is_grouped(table) else ["image"]
    figure, panels = new_figure(6.6 if len(levels) == 2 else 3.6, 4.3, len(levels))
    value = (temperature or {}).get("temperature")
    fitted = " (fitted here)" if value is not None and str(table.part[0]) == "val" else ""
    part = part_of(table)
    for axes, level in zip(panels, levels, strict=True):
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        title = f"By {level}, {part}\n{_sizes(units(table, level))}"
        label_axes(
            axes, title, "mean predicted P(malignant)", "share that is malignant" if level == "image" else ""
        )
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2, zorder=0, label="calibrated")
        if len(np.unique(table.malignant)) < 2:
            say_empty(axes, f"No diagram: {why_undefined(table.malignant)}.")
            continue
        before = reliability_bins(units(table, level))
        if level == "case":
            _draw_spread(axes, before)
        _draw_bins(axes, before, VERMILLION, "o", "--", "as the network says (T = 1)")
        if value is not None:
            after = reliability_bins(units(apply_temperature(table, float(value)), level))
            _draw_bins(axes, after, BLUE, "s", "-", f"after temperature T = {value:.2f}{fitted}")
    note = "Reliability: at most 5 bins of equal mass, from low to high P(malignant)."
    if len(levels) == 2:
        note += "\nBars by case: Wilson 95 % of each bin at T = 1; none by image, images of a case are alike."
    if table.task == "subtype":
        note += f"\n{COLLAPSED[0].upper()}{COLLAPSED[1:]}."
    if len(levels) == 1:
        note = note.replace("mass, ", "mass,\n") + "\nNo diagram by case: cases are unknown."
    legend_below(figure, panels[0], note, columns=3 if len(levels) == 2 else 1)
    return figure


def _sizes(here: Units) -> str:
    """``68 images in bins of 13 to 14``."""
    sizes = reliability_bins(here).size
    low, high = int(sizes.min()), int(sizes.max())
    return f"{len(here)} {here.level}s in bins of {low}" + (f" to {high}" if high > low else "")


def _draw_bins(axes: Axes, bins: Bins, colour: str, marker: str, line: str, label: str) -> None:
    axes.plot(
        bins.p,
        bins.share,
        line,
        color=colour,
        marker=marker,
        markersize=5.5,
        linewidth=1.4,
        markerfacecolor="white" if line == "--" else colour,
        label=label,
    )


def _draw_spread(axes: Axes, bins: Bins) -> None:
    ends = np.array([wilson(int(k), int(n)) for k, n in zip(bins.malignant, bins.size, strict=True)])
    axes.vlines(bins.p, ends[:, 0], ends[:, 1], color=VERMILLION, linewidth=1, alpha=0.55)
