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
from histo_lightning.report import style
from histo_lightning.report.style import label_axes, legend_below, new_figure, say_empty
from histo_lightning.report.words import COLLAPSED, levels_of, part_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Bins(NamedTuple):
    """At most five bins of equal mass, in order of p: (b,) mean p, share and number of malignant, size."""

    p: Floats
    share: Floats
    malignant: Integers
    size: Integers


def reliability_bins(level_units: Units) -> Bins:
    """The bins that the ECE counts (see ``evaluation.scores.bin_index``), empty ones left out."""
    index = bin_index(level_units.p)
    size = np.bincount(index)
    filled = size > 0
    malignant = np.bincount(index, weights=level_units.truth).astype(np.int64)[filled]
    p, size = np.bincount(index, weights=level_units.p)[filled], size[filled]
    return Bins(p / size, malignant / size, malignant, size.astype(np.int64))


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
    diagonal: dict[str, Any] = {"color": style.GREY, "linestyle": ":", "linewidth": 1.2, "zorder": 0}
    for axes, level in zip(panels, levels, strict=True):
        level_units = units(table, level)
        bins = reliability_bins(level_units)
        sizes = f"{bins.size.min()}" + (f" to {bins.size.max()}" if bins.size.max() > bins.size.min() else "")
        title = f"By {level}, {part_of(table)}\n{len(level_units)} {level}s in bins of {sizes}"
        y = "share that is malignant" if level == "image" else ""
        label_axes(axes, title, "mean predicted P(malignant)", y)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        axes.plot([0, 1], [0, 1], label="calibrated", **diagonal)
        if len(np.unique(table.malignant)) < 2:
            say_empty(axes, f"No diagram: {why_undefined(table.malignant)}.")
            continue
        if level == "case":
            ends = np.array([wilson(int(k), int(n)) for k, n in zip(bins.malignant, bins.size, strict=True)])
            axes.vlines(bins.p, ends[:, 0], ends[:, 1], color=style.VERMILLION, linewidth=1, alpha=0.55)
        name = "as the network says (T = 1)"
        axes.plot(
            bins.p, bins.share, "o--", color=style.VERMILLION, markerfacecolor="white", label=name, **look
        )
        if value is not None:
            after = reliability_bins(units(apply_temperature(table, float(value)), level))
            name = f"after temperature T = {value:.2f}{fitted}"
            axes.plot(after.p, after.share, "s-", color=style.BLUE, label=name, **look)
    note = "At most 5 bins of equal mass, from low to high P(malignant).\n"
    note += "Bars by case: Wilson 95 % of each bin at T = 1." if by_case else "Cases are unknown."
    note += f"\n{COLLAPSED[0].upper()}{COLLAPSED[1:]}." if table.task == "subtype" else ""
    legend_below(figure, panels[0], note, columns=len(levels))
    return figure
