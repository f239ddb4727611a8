"""Score by case: every image of every case, so that a reader sees which cases a score rests on."""

import numpy as np
from matplotlib.figure import Figure

from histo_lightning.evaluation import Table
from histo_lightning.evaluation.levels import is_grouped, units
from histo_lightning.report.ranking_pictures import COLLAPSED
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
    say_empty,
    shown,
)
from histo_lightning.report.words import part_of

LOOKS = {0: ("benign", BLUE, "o"), 1: ("malignant", VERMILLION, "^")}
NAMED = 150  # above, the rows are too thin for names
TALLEST = 14.0  # inches
_LIFTS = np.array([-0.17, 0.17, 0.0])  # rows: points of one case that would hide each other are lifted apart
_RASTER = 4000  # points, above which an SVG would be slow to open


def _row_height(cases: int) -> float:
    """Inches a case: generous for a dozen, tight for seventy."""
    return min(float(np.interp(cases, [12, 70], [0.27, 0.155])), TALLEST / max(cases, 1))


def case_order(table: Table) -> list[str]:
    """Benign cases, then malignant ones, each by rising mean probability (ties by name): from below to above."""
    here = units(table, "case")
    names = here.cases[here.case]
    return [str(names[i]) for i in np.lexsort((names, here.p, here.truth))]


def case_figure(table: Table, threshold: float | None) -> Figure:
    """A row a case: ``p_malignant`` of its images as points, their mean as a bar, in the look of its true class.

    Args:
        table: predictions of one part; of eight subtypes, P(malignant) is the sum of the four malignant ones.
        threshold: the stored operating point, drawn beside 0.5.
    """
    title = f"P(malignant) of each image by case, {part_of(table)}"
    if not is_grouped(table):
        figure, (axes,) = new_figure(6.0, 2.4)
        label_axes(axes, title, "", "")
        axes.set(xticks=[], yticks=[])
        say_empty(axes, "Not drawn: the cases of some images are unknown.")
        return figure
    here = units(table, "case")
    mean = dict(zip(here.cases[here.case].tolist(), here.p.tolist(), strict=True))
    order = case_order(table)
    height = _row_height(len(order))
    figure, (axes,) = new_figure(6.0, height * len(order) + 1.75)
    row_of = {case: row for row, case in enumerate(order)}
    rows = np.array([row_of[str(case)] for case in table.case], np.float64)
    lifts = _LIFTS[np.arange(len(table)) % len(_LIFTS)]
    for row in range(0, len(order), 2):
        axes.axhspan(row - 0.5, row + 0.5, color=PALE, alpha=0.35, linewidth=0, zorder=0)
    for truth, (name, colour, marker) in LOOKS.items():
        members = table.malignant == truth
        if members.any():
            axes.scatter(
                table.p_malignant[members],
                (rows + lifts)[members],
                s=13,
                color=colour,
                marker=marker,
                alpha=0.6,
                linewidths=0,
                label=f"{name} image",
                rasterized=len(table) > _RASTER,
            )
    axes.plot(
        [mean[case] for case in order],
        range(len(order)),
        "|",
        color=INK,
        markersize=min(11.0, 60 * height),
        markeredgewidth=2,
        label="mean of the case",
    )
    axes.axvline(0.5, color=GREY, linestyle=":", linewidth=1.3, zorder=1, label="threshold 0.5")
    if threshold is not None:
        axes.axvline(
            threshold,
            color=GREEN,
            linestyle="-.",
            linewidth=1.3,
            zorder=1,
            label=f"stored threshold {threshold:.3f}",
        )
    names, counts = np.unique(table.case, return_counts=True)
    sizes = dict(zip(names.tolist(), counts.tolist(), strict=True))
    if len(order) <= NAMED:
        axes.set_yticks(range(len(order)), [f"{shown(case)} ({sizes[case]})" for case in order])
        for label in axes.get_yticklabels():
            label.set_parse_math(False)
            label.set_fontsize(min(TEXT_SIZE - 1, 62 * height))
    else:
        axes.set_yticks([])
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.6, len(order) - 0.4))
    label_axes(
        axes, title, "predicted P(malignant)", f"{len(order)} cases" + " (images)" * (len(order) <= NAMED)
    )
    note = "Malignant cases above, benign ones below, each by their mean."
    legend_below(figure, axes, f"{note}\n{COLLAPSED}" if table.task == "subtype" else note, columns=3)
    return figure
