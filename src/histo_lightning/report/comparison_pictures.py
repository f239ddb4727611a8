"""Pictures of comparisons: differences with their intervals, and mean ranks."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from histo_lightning.report.results_words import is_error, score_title
from histo_lightning.report.style import (
    BLUE,
    GREY,
    INK,
    TEXT_SIZE,
    label_axes,
    legend_below,
    new_figure,
    shown,
)

Json = Mapping[str, Any]
LONGEST_LABEL = 40  # characters
REGIONS = ((0.05, "#F2F4F7"), (0.03, "#E4EAF0"), (0.01, "#CFDBE6"))


def forest_figure(families: Sequence[Json], score: str) -> Figure:
    """Every difference with its intervals; the regions of equivalence (1, 3 and 5 points) are shaded.

    Args:
        families: of one world, the main one first; its pairs show the simultaneous interval too.
        score: ``<level>_<score>``; differences of scores are in points.
    """
    scale = 1.0 if is_error(score) else 100.0
    lines = [(family, pair) for family in families for pair in family["comparison"]["pairs"]]
    references = {str(pair["reference"]) for _, pair in lines}
    common = shown(references.pop()) if len(references) == 1 else None
    figure, (axes,) = new_figure(8.0, 1.7 + 0.36 * (len(lines) + len(families)))
    for half, colour in REGIONS:
        axes.axvspan(-half * scale, half * scale, color=colour, linewidth=0, zorder=0)
    axes.axvline(0, color=GREY, linewidth=0.8, zorder=1)
    ticks: list[tuple[float, str, bool]] = []
    y = 0.0
    for family in families:
        if family["held"]:
            title = shown(family["over"], LONGEST_LABEL)
            ticks.append((y, f"mean over {title}" if len(family["held"]) > 1 else title, True))
            y -= 1
        for pair in family["comparison"]["pairs"]:
            _difference(axes, pair, y, scale)
            arm = shown(pair["arm"])
            ticks.append((y, arm if common else f"{arm} \N{MINUS SIGN} {shown(pair['reference'])}", False))
            y -= 1
    axes.set_yticks([place for place, _, _ in ticks], [text for _, text, _ in ticks])
    for tick, (_, _, is_title) in zip(axes.yaxis.get_major_ticks(), ticks, strict=True):
        tick.label1.set_fontsize(TEXT_SIZE - 0.5)
        tick.label1.set_parse_math(False)
        tick.label1.set_color(GREY if is_title else INK)
        tick.tick1line.set_visible(not is_title)
    axes.set_ylim(y + 0.4, 0.7)
    unit = "" if is_error(score) else ", points"
    magnifications = families[0]["magnifications"]
    over = f", mean over {', '.join(magnifications)}" if len(magnifications) > 1 else f", {magnifications[0]}"
    label_axes(axes, f"{score_title(score)}{over}", f"difference from {common or 'the reference'}{unit}", "")
    _forest_key(axes, any(pair["simultaneous_low"] is not None for _, pair in lines))
    note = "shaded: within 1, 3 and 5 points" if not is_error(score) else ""
    legend_below(figure, axes, note, columns=2)
    return figure


def _difference(axes: Axes, pair: Json, y: float, scale: float) -> None:
    if pair["simultaneous_low"] is not None:
        ends = [scale * pair["simultaneous_low"], scale * pair["simultaneous_high"]]
        axes.plot(ends, [y, y], color=BLUE, linewidth=1.2, marker="|", markersize=7)
    if pair["low"] is not None:
        axes.plot(
            [scale * pair["low"], scale * pair["high"]],
            [y, y],
            color=BLUE,
            linewidth=3.4,
            solid_capstyle="butt",
        )
    axes.plot(
        [scale * pair["difference"]], [y], marker="o", color="white", markeredgecolor=BLUE, markersize=5.5
    )


def _forest_key(axes: Axes, simultaneous: bool) -> None:
    empty: list[float] = []
    if simultaneous:
        axes.plot(empty, empty, color=BLUE, linewidth=1.2, marker="|", label="simultaneous 95 % interval")
    axes.plot(empty, empty, color=BLUE, linewidth=3.4, label="95 % interval of one difference by itself")


def ranks_figure(friedman: Json, blocks: int) -> Figure | None:
    """Mean ranks over the folds with the critical difference (Demsar 2006); descriptive. None where it is undefined."""
    ranks, critical = friedman.get("mean_ranks"), friedman.get("critical_difference")
    if not ranks or critical is None:
        return None
    names = sorted(ranks, key=lambda name: ranks[name])
    groups = _alike([float(ranks[name]) for name in names], float(critical))
    figure, (axes,) = new_figure(7.0, 1.9 + 0.28 * len(names) + 0.12 * len(groups))
    top = len(names)
    axes.set_xlim(0.7, top + 0.3)
    depth = -0.55 - 0.22 * len(groups)
    for number, name in enumerate(names):
        rank, left = float(ranks[name]), number < (top + 1) // 2
        y = depth - 0.45 * (number if left else top - 1 - number)
        end = 0.75 if left else top + 0.25
        axes.plot([rank, rank, end], [0, y, y], color=INK, linewidth=0.9)
        axes.text(
            end,
            y,
            f"{shown(name)} ({rank:.2f}) " if left else f" {shown(name)} ({rank:.2f})",
            ha="right" if left else "left",
            va="center",
            fontsize=TEXT_SIZE - 0.5,
            color=INK,
            parse_math=False,
        )
    for line, (first, last) in enumerate(groups):
        y = -0.25 - 0.22 * line
        axes.plot(
            [float(ranks[names[first]]) - 0.04, float(ranks[names[last]]) + 0.04],
            [y, y],
            color=BLUE,
            linewidth=3.2,
        )
    axes.plot([1, 1 + critical], [0.75, 0.75], color=INK, linewidth=1.2, marker="|", clip_on=False)
    small: dict[str, Any] = {"fontsize": TEXT_SIZE - 1, "color": INK, "va": "bottom"}
    axes.text(1 + critical / 2, 0.82, f"critical difference {critical:.2f}", ha="center", **small)
    for rank in range(1, top + 1):
        axes.text(rank, 0.08, str(rank), ha="center", **small)
        axes.plot([rank, rank], [-0.06, 0.06], color=GREY, linewidth=0.8)
    axes.set_ylim(depth - 0.45 * ((top + 1) // 2) - 0.1, 1.2)
    axes.set_yticks([])
    axes.set_xticks([])
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.plot([1, top], [0, 0], color=GREY, linewidth=0.8)
    axes.text(
        0.5,
        -0.04,
        f"Mean rank over {blocks} folds, 1 is best; bars join what is closer than the critical difference. Descriptive.",
        transform=axes.transAxes,
        ha="center",
        va="top",
        fontsize=TEXT_SIZE - 1,
        color=GREY,
    )
    return figure


def _alike(ranks: Sequence[float], critical: float) -> list[tuple[int, int]]:
    """First and last index of the longest runs of sorted ranks that lie within the critical difference."""
    found: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = max(index for index in range(len(ranks)) if ranks[index] - ranks[first] <= critical)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found
