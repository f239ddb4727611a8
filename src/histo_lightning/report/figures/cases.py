"""Scores by case: every image of every case, so that a reader sees which cases a score rests on."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from histo_lightning.evaluation import Table
from histo_lightning.evaluation.levels import is_grouped, units
from histo_lightning.report import style
from histo_lightning.report.figures.ranking import COLLAPSED
from histo_lightning.report.style import bare, label_axes, legend_below, new_figure, say_empty, shown
from histo_lightning.report.words import part_of

LOOKS = (("benign", style.BLUE, "o"), ("malignant", style.VERMILLION, "^"))
NAMED = 150  # cases, above which the rows are too thin for names
TALLEST = 14.0  # inches
_LIFTS = np.array([-0.17, 0.17, 0.0])  # rows: points of one case that would hide each other are lifted apart
_RASTER = 4000  # points, above which an SVG would be slow to open


def case_order(table: Table) -> list[str]:
    """Benign cases, then malignant ones, each by rising mean probability (ties by name): from below to above."""
    cases = units(table, "case")
    names = cases.cases[cases.case]
    return [str(names[i]) for i in np.lexsort((names, cases.p, cases.truth))]


def case_figure(table: Table, threshold: float | None) -> Figure:
    """A row a case: ``p_malignant`` of its images as points, their mean as a bar, in the look of its true class.

    Args:
        table: predictions of one part; of eight subtypes, P(malignant) is the sum of the four malignant ones.
        threshold: the stored operating point, drawn beside 0.5.
    """
    title = f"P(malignant) of each image\nby case, {part_of(table)}"
    if not is_grouped(table):
        figure, (axes,) = new_figure(5.0, 2.4)
        label_axes(axes, title)
        bare(axes)
        say_empty(axes, "Not drawn: the cases of some images are unknown.")
        return figure
    cases = units(table, "case")
    mean = dict(zip(cases.cases[cases.case].tolist(), cases.p.tolist(), strict=True))
    order = case_order(table)
    height = min(float(np.interp(len(order), [12, 70], [0.27, 0.17])), TALLEST / max(len(order), 1))
    figure, (axes,) = new_figure(5.0, height * len(order) + 2.2)
    row_of = {case: row for row, case in enumerate(order)}
    rows = (
        np.array([row_of[str(case)] for case in table.case], np.float64) + _LIFTS[np.arange(len(table)) % 3]
    )
    for row in range(0, len(order), 2):
        axes.axhspan(row - 0.5, row + 0.5, color=style.PALE, alpha=0.35, linewidth=0, zorder=0)
    for truth, (name, colour, marker) in enumerate(LOOKS):
        members = table.malignant == truth
        if members.any():
            axes.scatter(
                table.p_malignant[members], rows[members], s=13, color=colour, marker=marker, alpha=0.6,
                linewidths=0, label=f"{name} image", rasterized=len(table) > _RASTER,
            )  # fmt: skip
    bar: dict[str, Any] = {"color": style.INK, "markersize": min(11.0, 60 * height), "markeredgewidth": 2}
    axes.plot([mean[case] for case in order], range(len(order)), "|", label="mean of the case", **bar)
    axes.axvline(0.5, color=style.GREY, linestyle=":", linewidth=1.3, zorder=1, label="threshold 0.5")
    if threshold is not None:
        name = f"stored threshold {threshold:.3f}"
        axes.axvline(threshold, color=style.GREEN, linestyle="-.", linewidth=1.3, zorder=1, label=name)
    names, counts = np.unique(table.case, return_counts=True)
    sizes = dict(zip(names.tolist(), counts.tolist(), strict=True))
    named = len(order) <= NAMED
    ticks = [f"{shown(case)} ({sizes[case]})" for case in order] if named else []
    axes.set_yticks(range(len(ticks)), ticks)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
        label.set_fontsize(min(style.TEXT_SIZE - 1, 62 * height))
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.6, len(order) - 0.4))
    label_axes(axes, title, "predicted P(malignant)", f"{len(order)} cases" + " (images)" * named)
    note = "Malignant cases above, benign ones below, each by their mean."
    legend_below(figure, axes, f"{note}\n{COLLAPSED}" if table.task == "subtype" else note, columns=2)
    return figure
