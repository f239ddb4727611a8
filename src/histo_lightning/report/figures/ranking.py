"""ROC and precision-recall curves with bands: how well malignant is ranked above benign."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from histo_lightning.evaluation import Table
from histo_lightning.evaluation.intervals import case_weights, class_support
from histo_lightning.evaluation.levels import UNGROUPED, Units, is_grouped, units
from histo_lightning.evaluation.registry import named_score
from histo_lightning.evaluation.scores import why_undefined
from histo_lightning.report.style import GREY, LEVEL_STYLES, label_axes, legend_below, new_figure, say_empty
from histo_lightning.report.words import level_scores, part_of

Floats = NDArray[np.float64]
DRAWS = 2000  # with seed 0, the draws of cases that the intervals in metrics.json rest on
GRID = np.linspace(0, 1, 101)
_CHUNK = 250  # draws at a time, which bounds memory
COLLAPSED = "eight subtypes as malignant or benign"


def _ranking(p: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The order of falling p, and where in it each run of ties ends."""
    order = np.argsort(-p, kind="stable")
    return order, np.flatnonzero(np.append(np.diff(p[order]) != 0, True))


def roc_points(truth: NDArray[np.int64], p: Floats) -> tuple[Floats, Floats]:
    """False and true positive rate at every distinct threshold, from (0, 0) to (1, 1); truth holds both classes.

    Tied probabilities make one slanted piece, so the area under the points is the AUROC with ties counted half.
    """
    order, ends = _ranking(p)
    hits = np.concatenate([[0], np.cumsum(truth[order])[ends]])
    alarms = np.concatenate([[0], np.cumsum(1 - truth[order])[ends]])
    return alarms / alarms[-1], hits / hits[-1]


def precision_recall_points(truth: NDArray[np.int64], p: Floats) -> tuple[Floats, Floats]:
    """Recall and precision at every distinct threshold, after (0, 1); the steps between them sum to the AUPRC."""
    order, ends = _ranking(p)
    hits = np.cumsum(truth[order])[ends]
    return np.concatenate([[0], hits / hits[-1]]), np.concatenate([[1], hits / (ends + 1)])


def band(level_units: Units, kind: str, draws: int = DRAWS, seed: int = 0) -> tuple[Floats, Floats] | str:
    """Pointwise 95 % band of a curve over draws of cases within each class, at ``GRID``; or why there is none.

    Args:
        level_units: units of both classes.
        kind: ``roc`` (sensitivity over 1 - specificity) or ``precision_recall`` (precision over recall).

    Returns:
        The 2.5 and 97.5 % points, (101,) each.
    """
    if not level_units.grouped:
        return UNGROUPED
    if reason := class_support(level_units).too_few():
        return reason
    order, ends = _ranking(level_units.p)
    truth, case = level_units.truth[order][:, None], level_units.case[order]
    weights = case_weights(level_units.case_class, draws, seed)
    curves = []
    for start in range(0, draws, _CHUNK):
        weight = weights[start : start + _CHUNK].T[case]
        hits = np.cumsum(weight * truth, axis=0)[ends]
        alarms = np.cumsum(weight * (1 - truth), axis=0)[ends]
        recall = hits / hits[-1]
        if kind == "roc":
            start_at = np.zeros((1, recall.shape[1]))
            false = np.concatenate([start_at, alarms / alarms[-1]])
            recall = np.concatenate([start_at, recall])
            curves += [np.interp(GRID, x, y) for x, y in zip(false.T, recall.T, strict=True)]
        else:
            called = hits + alarms
            precision = np.divide(hits, called, out=np.ones_like(hits), where=called > 0)
            wanted = np.maximum(GRID, 1e-9) - 1e-12
            curves += [y[np.searchsorted(x, wanted)] for x, y in zip(recall.T, precision.T, strict=True)]
    low, high = np.quantile(np.array(curves), [0.025, 0.975], axis=0)
    return low, high


def roc_figure(table: Table, scores: Mapping[str, Any], draws: int = DRAWS) -> Figure:
    """ROC curves of malignant against benign, by image and (where known) by case, with bands over cases.

    Args:
        table: predictions of one part; eight subtypes are collapsed to the two classes.
        scores: that part of ``metrics.json``; its intervals are in the legend.
        draws: of the bands.
    """
    axis_labels = ("benign ones called malignant\n(1 - specificity)", "malignant ones found (sensitivity)")
    return _ranking_figure(table, scores, draws, "roc", "ROC", axis_labels)


def precision_recall_figure(table: Table, scores: Mapping[str, Any], draws: int = DRAWS) -> Figure:
    """Precision-recall curves for malignant, by image and (where known) by case; arguments as ``roc_figure``."""
    axis_labels = ("malignant ones found (recall)", "right among those called malignant\n(precision)")
    return _ranking_figure(table, scores, draws, "precision_recall", "Precision and recall", axis_labels)


def _ranking_figure(
    table: Table, scores: Mapping[str, Any], draws: int, kind: str, title: str, axis_labels: tuple[str, str]
) -> Figure:
    figure, (axes,) = new_figure(5.0, 5.6)
    collapsed = f"\n{COLLAPSED}" if table.task == "subtype" else ""
    label_axes(axes, f"{title}, {part_of(table)}{collapsed}", *axis_labels)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    if len(np.unique(table.malignant)) < 2:
        say_empty(axes, f"No curve: {why_undefined(table.malignant)}.")
        return figure
    notes, chance = [], []
    for level, (colour, line) in LEVEL_STYLES.items():
        if level == "case" and not is_grouped(table):
            continue
        level_units = units(table, level)
        truth, p, count = level_units.truth, level_units.p, f"{len(level_units)} {level}s"
        key = "auroc" if kind == "roc" else "auprc"
        area = named_score(f"{level}_{key}").about.value(level_units)
        if kind == "roc":
            points, drawstyle = roc_points(truth, p), "default"
            name = f"{count}: area {area:.2f}{_ends(scores, level, key)}"
            chance = [(0.5, "chance: area 0.50", ":")]
        else:
            points, drawstyle = precision_recall_points(truth, p), "steps-pre"
            name = f"{count}: AUPRC {area:.2f}{_ends(scores, level, key)}"
            style: Any = ":" if level == "image" else (0, (1, 4))
            chance.append(
                (float(truth.mean()), f"chance: {truth.mean():.2f} of the {level}s are malignant", style)
            )
        axes.plot(*points, line, color=colour, linewidth=1.8, drawstyle=drawstyle, label=name)
        limits = band(level_units, kind, draws)
        if isinstance(limits, str):
            notes.append(f"No band: {limits}.")
        else:
            axes.fill_between(GRID, *limits, color=colour, alpha=0.16, linewidth=0)
            notes.append(f"Bands: pointwise 95 %, {draws:,} draws of cases.")
    for height, name, style in chance:
        ends = [0, 1] if kind == "roc" else [height, height]
        axes.plot([0, 1], ends, color=GREY, linestyle=style, linewidth=1.2, zorder=0, label=name)
    legend_below(figure, axes, "\n".join(dict.fromkeys(notes)))
    return figure


def _ends(scores: Mapping[str, Any], level: str, name: str) -> str:
    """``(0.62 to 0.97)`` of a level's score in ``metrics.json``, or nothing."""
    score = level_scores({"part": scores}, "part", level).get(name) or {}
    low, high = score.get("low"), score.get("high")
    return "" if low is None or high is None else f" ({low:.2f} to {high:.2f})"
