"""Reliability diagrams: how often "70 % malignant" is malignant, before and after the stored temperature."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from histo_lightning.evaluation import Table, apply_temperature
from histo_lightning.evaluation.intervals import wilson
from histo_lightning.evaluation.levels import Units, units
from histo_lightning.evaluation.scores import bin_index, why_undefined
from histo_lightning.report.style import (
    BLUE,
    GREY,
    VERMILLION,
    label_axes,
    legend_below,
    new_figure,
    say_empty,
)
from histo_lightning.report.words import COLLAPSED, levels_of, part_of


class Bins(NamedTuple):
    """At most five bins of equal mass, in order of p: (b,) mean p, share and number of malignant, size."""

    p: NDArray[np.float64]
    share: NDArray[np.float64]
    malignant: NDArray[np.int64]
    size: NDArray[np.int64]


def reliability_bins(level_units: Units) -> Bins:
    """The bins that the ECE counts (see ``evaluation.scores.bin_index``), empty ones left out."""
    _, index, size = np.unique(bin_index(level_units.p), return_inverse=True, return_counts=True)
    malignant = np.bincount(index, weights=level_units.truth).astype(np.int64)
    return Bins(np.bincount(index, weights=level_units.p) / size, malignant / size, malignant, size)


def reliability_figure(table: Table, temperature: Mapping[str, Any] | None) -> Figure:
    """Share of malignant over the mean predicted probability, by image and (where known) by case.

    Args:
        table: predictions of one part, untempered; eight subtypes are collapsed to the two classes.
        temperature: the entry of ``metrics.json``; without one only the untempered points are drawn.
    """
    levels = levels_of(table)
    by_case = "case" in levels
    figure, panels = new_figure(6.0 if by_case else 4.0, 4.6, len(levels))
    value = (temperature or {}).get("temperature")
    fitted = " (fitted here)" if str(table.part[0]) == "val" else ""
    look: dict[str, Any] = {"markersize": 5.5, "linewidth": 1.4}
    for axes, level in zip(panels, levels, strict=True):
        level_units = units(table, level)
        bins = reliability_bins(level_units)
        sizes = " to ".join(map(str, sorted({bins.size.min(), bins.size.max()})))
        title = f"By {level}, {part_of(table)}\n{len(level_units)} {level}s in bins of {sizes}"
        y = "share that is malignant" if level == "image" else ""
        label_axes(axes, title, "mean predicted P(malignant)", y)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2, zorder=0, label="calibrated")
        if len(np.unique(table.malignant)) < 2:
            say_empty(axes, f"No diagram: {why_undefined(table.malignant)}.")
            continue
        if level == "case":
            ends = [wilson(int(k), int(n)) for k, n in zip(bins.malignant, bins.size, strict=True)]
            axes.vlines(bins.p, *np.transpose(ends), color=VERMILLION, linewidth=1, alpha=0.55)
        name = "as the network says (T = 1)"
        axes.plot(bins.p, bins.share, "o--", color=VERMILLION, markerfacecolor="white", label=name, **look)
        if value is not None:
            after = reliability_bins(units(apply_temperature(table, float(value)), level))
            name = f"after temperature T = {value:.2f}{fitted}"
            axes.plot(after.p, after.share, "s-", color=BLUE, label=name, **look)
    note = "At most 5 bins of equal mass, from low to high P(malignant).\n"
    note += "Bars by case: Wilson 95 % of each bin at T = 1." if by_case else "Cases are unknown."
    note += f"\n{COLLAPSED.capitalize()}." if table.task == "subtype" else ""
    legend_below(figure, panels[0], note, columns=len(levels))
    return figure
