"""ROC and precision-recall curves with bands: how well malignant is ranked above benign."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from histo_lightning.evaluation import Table
from histo_lightning.evaluation.intervals import case_weights, class_support
from histo_lightning.evaluation.levels import UNGROUPED, Units, is_grouped, units
from histo_lightning.evaluation.scores import auroc, average_precision, why_undefined
from histo_lightning.report.style import GREY, LEVEL_STYLES, label_axes, legend_below, new_figure, say_empty
from histo_lightning.report.words import part_of

Floats = NDArray[np.float64]
DRAWS = 2000  # with seed 0, the draws of cases that the intervals in metrics.json rest on
GRID = np.linspace(0, 1, 101)
_CHUNK = 250  # draws at a time, which bounds memory
COLLAPSED = "eight subtypes as malignant or benign"


def _ends(p: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The order of falling p, and where in it each run of ties ends."""
    order = np.argsort(-p, kind="stable")
    return order, np.flatnonzero(np.append(np.diff(p[order]) != 0, True))


def roc_points(truth: NDArray[np.int64], p: Floats) -> tuple[Floats, Floats]:
    """False and true positive rate at every distinct threshold, from (0, 0) to (1, 1); truth holds both classes.

    Tied probabilities make one slanted piece, so the area under the points is the AUROC with ties counted half.
    """
    order, ends = _ends(p)
    hits = np.concatenate([[0], np.cumsum(truth[order])[ends]])
    alarms = np.concatenate([[0], np.cumsum(1 - truth[order])[ends]])
    return alarms / alarms[-1], hits / hits[-1]


def precision_recall_points(truth: NDArray[np.int64], p: Floats) -> tuple[Floats, Floats]:
    """Recall and precision at every distinct threshold, after (0, 1); the steps between them sum to the AUPRC."""
    order, ends = _ends(p)
    hits = np.cumsum(truth[order])[ends]
    return np.concatenate([[0], hits / hits[-1]]), np.concatenate([[1], hits / (ends + 1)])


def band(here: Units, kind: str, draws: int = DRAWS, seed: int = 0) -> tuple[Floats, Floats] | str:
    """Pointwise 95 % band of a curve over draws of cases within each class, at ``GRID``; or why there is none.

    Args:
        here: units of both classes.
        kind: ``roc`` (sensitivity over 1 - specificity) or ``precision_recall`` (precision over recall).

    Returns:
        The 2.5 and 97.5 % points, (101,) each.
    """
    if not here.grouped:
        return UNGROUPED
    if reason := class_support(here).too_few():
        return reason
    order, ends = _ends(here.p)
    truth, case = here.truth[order][:, None], here.case[order]
    weights = case_weights(here.case_class, draws, seed)
    curves = []
    for start in range(0, draws, _CHUNK):
        each = weights[start : start + _CHUNK].T[case]
        hits = np.cumsum(each * truth, axis=0)[ends]
        alarms = np.cumsum(each * (1 - truth), axis=0)[ends]
        found = hits / hits[-1]
        if kind == "roc":
            false = alarms / alarms[-1]
            pad = np.zeros((1, found.shape[1]))
            false, found = np.concatenate([pad, false]), np.concatenate([pad, found])
            curves += [np.interp(GRID, x, y) for x, y in zip(false.T, found.T, strict=True)]
        else:
            called = hits + alarms
            precision = np.divide(hits, called, out=np.ones_like(hits), where=called > 0)
            curves += [
                y[np.searchsorted(x, np.maximum(GRID, 1e-9) - 1e-12)]
                for x, y in zip(found.T, precision.T, strict=True)
            ]
    low, high = np.quantile(np.array(curves), [0.025, 0.975], axis=0)
    return low, high


def _interval(scores: Mapping[str, Any], level: str, name: str) -> str:
    """``(0.62 to 0.97)`` of a level's score in ``metrics.json``, or nothing."""
    found = scores.get(level) or {}
    score = (found.get("binary") or found).get(name) or {}
    low, high = score.get("low"), score.get("high")
    return "" if low is None or high is None else f" ({low:.2f} to {high:.2f})"


def _draw_levels(
    axes: Axes, table: Table, kind: str, label: Callable[[Units], str], draws: int
) -> tuple[str, dict[str, Units]]:
    """A curve and its band by image and (where known) by case; what is to be said of the bands."""
    notes, found = [], {}
    for level, (colour, line) in LEVEL_STYLES.items():
        if level == "case" and not is_grouped(table):
            continue
        here = found[level] = units(table, level)
        points = roc_points if kind == "roc" else precision_recall_points
        style = "default" if kind == "roc" else "steps-pre"
        axes.plot(
            *points(here.truth, here.p),
            line,
            color=colour,
            linewidth=1.8,
            drawstyle=style,
            label=label(here),
        )
        ends = band(here, kind, draws)
        if isinstance(ends, str):
            notes.append(f"No band: {ends}.")
        else:
            axes.fill_between(GRID, *ends, color=colour, alpha=0.16, linewidth=0)
            notes.append(f"Bands: pointwise 95 %, {draws:,} draws of cases.")
    return "\n".join(dict.fromkeys(notes)), found


def _title(kind: str, table: Table) -> str:
    return f"{kind}, {part_of(table)}" + (f"\n{COLLAPSED}" if table.task == "subtype" else "")


def roc_figure(table: Table, scores: Mapping[str, Any], draws: int = DRAWS) -> Figure:
    """ROC curves of malignant against benign, by image and (where known) by case, with bands over cases.

    Args:
        table: predictions of one part; eight subtypes are collapsed to the two classes.
        scores: that part of ``metrics.json``; its intervals stand in the legend.
        draws: of the bands.
    """
    figure, (axes,) = new_figure(4.5, 5.0)
    label_axes(
        axes,
        _title("ROC", table),
        "benign ones called malignant (1 - specificity)",
        "malignant ones found (sensitivity)",
    )
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    if len(np.unique(table.malignant)) < 2:
        say_empty(axes, f"No curve: {why_undefined(table.malignant)}.")
        return figure

    def label(here: Units) -> str:
        area = auroc(here.truth, here.p, here.fold)
        return f"{len(here)} {here.level}s: area {area:.2f}{_interval(scores, here.level, 'auroc')}"

    note, _ = _draw_levels(axes, table, "roc", label, draws)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2, zorder=0, label="chance: area 0.50")
    legend_below(figure, axes, note)
    return figure


def precision_recall_figure(table: Table, scores: Mapping[str, Any], draws: int = DRAWS) -> Figure:
    """Precision-recall curves for malignant, by image and (where known) by case; arguments as ``roc_figure``."""
    figure, (axes,) = new_figure(4.5, 5.0)
    label_axes(
        axes,
        _title("Precision and recall", table),
        "malignant ones found (recall)",
        "right among those called malignant (precision)",
    )
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    if len(np.unique(table.malignant)) < 2:
        say_empty(axes, f"No curve: {why_undefined(table.malignant)}.")
        return figure

    def label(here: Units) -> str:
        area = average_precision(here.truth == 1, here.p)
        return f"{len(here)} {here.level}s: AUPRC {area:.2f}{_interval(scores, here.level, 'auprc')}"

    note, found = _draw_levels(axes, table, "precision_recall", label, draws)
    for level, here in found.items():
        share = float(here.truth.mean())
        axes.axhline(
            share,
            color=GREY,
            linestyle=":" if level == "image" else (0, (1, 4)),
            linewidth=1.2,
            zorder=0,
            label=f"chance: {share:.2f} of the {level}s are malignant",
        )
    legend_below(figure, axes, note)
    return figure
