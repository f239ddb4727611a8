"""Curves of a run: loss and accuracy by epoch, ROC and precision-recall with bands, reliability diagrams."""

import csv
import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from histo_lightning.errors import UserError
from histo_lightning.evaluation import Table
from histo_lightning.evaluation.calibration import apply_temperature
from histo_lightning.evaluation.intervals import case_weights, class_support, too_few, wilson
from histo_lightning.evaluation.levels import UNGROUPED, Units, units
from histo_lightning.evaluation.registry import named_score
from histo_lightning.evaluation.scores import bin_index, called_sums, unit_weights, why_undefined
from histo_lightning.evaluation.table import Floats
from histo_lightning.report import style
from histo_lightning.report.style import label_axes, legend_below, new_figure, say_empty
from histo_lightning.report.words import COLLAPSED, PART_NAMES, level_scores, levels_of, part_of
from histo_lightning.runs import read_bytes

DRAWS = 2000  # with seed 0, the draws of cases that the intervals in metrics.json rest on
GRID = np.linspace(0, 1, 101)
MANY_EPOCHS = 40  # above, a marker an epoch would hide the curve
# Title, axis labels, score in the legend, its name in metrics.json, how points are joined.
KINDS = {
    "roc": ("ROC", "benign ones called malignant\n(1 - specificity)", "malignant ones found (sensitivity)",
            "area", "auroc", "default"),
    "precision_recall": ("Precision and recall", "malignant ones found (recall)",
                         "right among those called malignant\n(precision)", "AUPRC", "auprc", "steps-pre"),
}  # fmt: skip


def read_history(path: Path) -> dict[str, Floats]:
    """``history.csv`` by column, float64, one value an epoch, NaN for an empty cell; UserError where it is damaged."""
    try:
        head, *rows = list(csv.reader(io.StringIO(read_bytes(path).decode(), newline=""))) or [[]]
        if not rows:
            raise UserError(f"{path}: holds no epoch; train again")
        cells = [[float(cell or "nan") for cell in row] for row in rows]
        return {name: np.array(column) for name, column in zip(head, zip(*cells, strict=True), strict=True)}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); train again") from error
    except ValueError as error:
        raise UserError(f"{path}: a row is damaged ({error}); train again") from error


def curve_figure(
    history: Mapping[str, Floats], quantity: str, best_epoch: int, baseline: float | None = None
) -> Figure:
    """Train and validation curve of ``loss`` or ``accuracy``, with that of always answering "malignant" (``baseline``).

    Drawn epochs count from 1, ``best_epoch`` from 0.
    """
    figure, (axes,) = new_figure(5.0, 4.0)
    epochs, scored = history["epoch"] + 1, history["epoch"] == best_epoch
    marker = "" if len(epochs) > MANY_EPOCHS else "o"
    for part, colour, line in (("train", style.BLUE, "--"), ("val", style.VERMILLION, "-")):
        values, name = history[f"{part}_{quantity}"], f"{PART_NAMES[part]} set"
        axes.plot(epochs, values, line, color=colour, label=name, marker=marker, markersize=3)
    name = f"epoch {best_epoch + 1} (scored)"
    axes.axvline(best_epoch + 1, color=style.GREY, linestyle=":", linewidth=1.2, zorder=0, label=name)
    best = epochs[scored], history[f"val_{quantity}"][scored]
    axes.plot(*best, "o", ms=9, mfc="none", mew=1.4, mec=style.VERMILLION)
    if baseline is not None:
        axes.axhline(baseline, color=style.GREEN, linestyle="-.", linewidth=1.2, label='always "malignant"')
    unit = "loss (nats)" if quantity == "loss" else "accuracy by image"
    label_axes(axes, f"{quantity.capitalize()} by epoch", "epoch", unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlim(0.5, float(epochs.max()) + 0.5)
    axes.grid(axis="y", color=style.PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    legend_below(figure, axes, columns=2)
    return figure


def roc_points(truth: NDArray[np.int64], p: Floats) -> tuple[Floats, Floats]:
    """False and true positive rate at every distinct threshold, from (0, 0) to (1, 1); truth holds both classes.

    Tied probabilities make one slanted piece, so the area under the points is the AUROC with ties counted half.
    """
    hits, alarms = (np.append(0, sums) for sums in called_sums(truth == 1, p, np.ones((len(p), 1))))
    return alarms / alarms[-1], hits / hits[-1]


def precision_recall_points(truth: NDArray[np.int64], p: Floats) -> tuple[Floats, Floats]:
    """Recall and precision at every distinct threshold, after (0, 1); the steps between them sum to the AUPRC."""
    hits, alarms = called_sums(truth == 1, p, np.ones((len(p), 1)))
    return np.append(0, hits / hits[-1]), np.append(1, hits / (hits + alarms))


def band(level_units: Units, kind: str, draws: int = DRAWS, seed: int = 0) -> tuple[Floats, Floats] | str:
    """The pointwise 95 % band at ``GRID``, (101,) each end, of a curve over draws of cases by class; or why there is none."""
    if not level_units.grouped:
        return UNGROUPED
    if reason := too_few(class_support(level_units)):
        return reason
    curves: list[Floats] = []
    for weights in unit_weights(level_units, case_weights(level_units.case_class, draws, seed)):
        hits, alarms = called_sums(level_units.truth == 1, level_units.p, weights)
        if kind == "roc":
            false, true = (np.pad(sums / sums[-1], ((1, 0), (0, 0))).T for sums in (alarms, hits))
            curves += [np.interp(GRID, x, y) for x, y in zip(false, true, strict=True)]
        else:
            called = hits + alarms
            precision = np.divide(hits, called, out=np.ones_like(hits), where=called > 0).T
            grid, recall = np.maximum(GRID, 1e-9) - 1e-12, (hits / hits[-1]).T
            curves += [y[np.searchsorted(x, grid)] for x, y in zip(recall, precision, strict=True)]
    low, high = np.quantile(np.array(curves), [0.025, 0.975], axis=0)
    return low, high


def ranking_figure(kind: str, table: Table, scores: Mapping[str, Any], draws: int = DRAWS) -> Figure:
    """``roc`` or ``precision_recall`` of a part by image and (where known) case, with bands over draws of cases.

    Eight subtypes are collapsed to the two classes. Intervals of ``scores`` (as in ``metrics.json``) are in the legend.
    """
    figure, (axes,) = new_figure(5.0, 5.6)
    title, x, y, area, score, drawstyle = KINDS[kind]
    collapsed = f"\n{COLLAPSED}" if table.task == "subtype" else ""
    label_axes(axes, f"{title}, {part_of(table)}{collapsed}", x, y)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    if len(np.unique(table.malignant)) < 2:
        say_empty(axes, f"No curve: {why_undefined(table.malignant)}.")
        return figure
    notes: list[str] = []
    chance: dict[str, tuple[list[float], Any]] = {}  # heights and dots of each line
    for level in levels_of(table):
        level_units, (colour, line) = units(table, level), style.LEVEL_STYLES[level]
        truth, p = level_units.truth, level_units.p
        value = named_score(f"{level}_{score}")[1].value(level_units)
        if kind == "roc":
            points = roc_points(truth, p)
            chance["chance: area 0.50"] = ([0, 1], ":")
        else:
            points = precision_recall_points(truth, p)
            share, dots = float(truth.mean()), ":" if level == "image" else (0, (1, 4))
            chance[f"chance: {share:.2f} of the {level}s are malignant"] = ([share, share], dots)
        entry = level_scores({"part": scores}, "part", level).get(score) or {}
        low, high = entry.get("low"), entry.get("high")
        interval = "" if low is None or high is None else f" ({low:.2f} to {high:.2f})"
        name = f"{len(level_units)} {level}s: {area} {value:.2f}{interval}"
        axes.plot(*points, line, color=colour, linewidth=1.8, drawstyle=drawstyle, label=name)
        limits = band(level_units, kind, draws)
        if isinstance(limits, str):
            notes.append(f"No band: {limits}.")
        else:
            axes.fill_between(GRID, *limits, color=colour, alpha=0.16, linewidth=0)
            notes.append(f"Bands: pointwise 95 %, {draws:,} draws of cases.")
    for name, (heights, dots) in chance.items():
        axes.plot([0, 1], heights, color=style.GREY, linestyle=dots, linewidth=1.2, zorder=0, label=name)
    legend_below(figure, axes, "\n".join(dict.fromkeys(notes)))
    return figure


roc_figure = partial(ranking_figure, "roc")
precision_recall_figure = partial(ranking_figure, "precision_recall")


def reliability_bins(level_units: Units) -> pd.DataFrame:
    """The bins that the ECE counts, in order of p: mean ``p``, ``share`` and number of ``malignant``, number of ``units``."""
    bins = pd.DataFrame({"p": level_units.p, "truth": level_units.truth}).groupby(bin_index(level_units.p))
    named = {"share": ("truth", "mean"), "malignant": ("truth", "sum"), "units": ("truth", "size")}
    return bins.agg(p=("p", "mean"), **named)


def reliability_figure(table: Table, temperature: Mapping[str, Any] | None) -> Figure:
    """Share of malignant over the mean predicted P(malignant) by image and case; ``temperature`` as in ``metrics.json``."""
    levels = levels_of(table)
    by_case = "case" in levels
    figure, panels = new_figure(6.0 if by_case else 4.0, 4.6, len(levels))
    value = (temperature or {}).get("temperature")
    fitted = " (fitted here)" if str(table.part[0]) == "val" else ""
    look: dict[str, Any] = {"markersize": 5.5, "linewidth": 1.4}
    for axes, level in zip(panels, levels, strict=True):
        level_units = units(table, level)
        bins = reliability_bins(level_units)
        sizes = " to ".join(map(str, sorted({bins.units.min(), bins.units.max()})))
        title = f"By {level}, {part_of(table)}\n{len(level_units)} {level}s in bins of {sizes}"
        y = "share that is malignant" if level == "image" else ""
        label_axes(axes, title, "mean predicted P(malignant)", y)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        axes.plot([0, 1], [0, 1], ":", color=style.GREY, linewidth=1.2, zorder=0, label="calibrated")
        if len(np.unique(table.malignant)) < 2:
            say_empty(axes, f"No diagram: {why_undefined(table.malignant)}.")
            continue
        if level == "case":
            intervals = np.transpose([wilson(k, n) for k, n in zip(bins.malignant, bins.units, strict=True)])
            axes.vlines(bins.p, *intervals, color=style.VERMILLION, linewidth=1, alpha=0.55)
        hollow = look | {"color": style.VERMILLION, "markerfacecolor": "white"}
        axes.plot(bins.p, bins.share, "o--", label="as the network says (T = 1)", **hollow)
        if value is not None:
            after = reliability_bins(units(apply_temperature(table, float(value)), level))
            name = f"after temperature T = {value:.2f}{fitted}"
            axes.plot(after.p, after.share, "s-", color=style.BLUE, label=name, **look)
    note = "At most 5 bins of equal mass, from low to high P(malignant).\n"
    note += "Bars by case: Wilson 95 % of each bin at T = 1." if by_case else "Cases are unknown."
    note += f"\n{COLLAPSED.capitalize()}." if table.task == "subtype" else ""
    legend_below(figure, panels[0], note, columns=len(levels))
    return figure
