"""Pictures of a run, drawn from its tables: learning curves, ROC curves, confusion matrices."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from histo_lightning.data.names import CLASSES, SUBTYPES
from histo_lightning.errors import UserError
from histo_lightning.evaluation import Table, read_predictions
from histo_lightning.evaluation.levels import is_grouped, units
from histo_lightning.evaluation.scores import auroc, confusion, why_undefined
from histo_lightning.report.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    PALE,
    SHADES,
    TEXT_SIZE,
    VERMILLION,
    label_axes,
    new_figure,
    save_png,
    say_empty,
)
from histo_lightning.report.words import PART_NAMES
from histo_lightning.runs import read_json

Floats = NDArray[np.float64]
MANY_EPOCHS = 40  # above, a marker an epoch would hide the curve


def read_history(path: Path) -> dict[str, Floats]:
    """``history.csv`` by column, float64, one value an epoch; an empty cell (an undefined score) is NaN.

    Raises:
        UserError: no such file, no epoch in it, or a cell that is not a number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            head, *rows = list(csv.reader(file)) or [[]]
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
    """Training and validation curve of ``loss`` or ``accuracy``; epochs count from 1, the scored one is marked.

    Args:
        history: columns ``epoch`` (from 0), ``train_<quantity>``, ``val_<quantity>``, one value an epoch.
        quantity: ``loss`` or ``accuracy``.
        best_epoch: the scored epoch, from 0, as in ``metrics.json``.
        baseline: accuracy of always answering "malignant", drawn as a line.
    """
    figure, (axes,) = new_figure(5.4, 3.9)
    epochs = history["epoch"] + 1
    marker = "" if len(epochs) > MANY_EPOCHS else "o"
    for part, colour, line in (("train", BLUE, "--"), ("val", VERMILLION, "-")):
        values = history[f"{part}_{quantity}"]
        axes.plot(
            epochs,
            values,
            line,
            color=colour,
            label=PART_NAMES[part],
            marker=marker,
            markersize=3,
            linewidth=1.6,
        )
    axes.axvline(
        best_epoch + 1,
        color=GREY,
        linestyle=":",
        linewidth=1.2,
        zorder=0,
        label=f"epoch {best_epoch + 1} (scored)",
    )
    scored = history["epoch"] == best_epoch
    axes.plot(
        epochs[scored],
        history[f"val_{quantity}"][scored],
        "o",
        markersize=9,
        markerfacecolor="none",
        markeredgecolor=VERMILLION,
        markeredgewidth=1.4,
    )
    if baseline is not None:
        axes.axhline(
            baseline, color=GREEN, linestyle="-.", linewidth=1.2, label='always "malignant" (validation)'
        )
    label_axes(
        axes,
        f"{quantity.capitalize()} by epoch",
        "epoch",
        "NLL loss (nats)" if quantity == "loss" else "accuracy by image",
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlim(0.5, float(epochs.max()) + 0.5)
    axes.grid(axis="y", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=2, fontsize=TEXT_SIZE - 1, frameon=False)
    return figure


def roc_points(truth: NDArray[np.int64], p: Floats) -> tuple[Floats, Floats]:
    """False and true positive rate at every distinct threshold, from (0, 0) to (1, 1); truth holds both classes.

    Tied probabilities make one slanted piece, so the area under the points is the AUROC with ties counted half.
    """
    order = np.argsort(-p, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(p[order]) != 0, True))
    hits = np.concatenate([[0], np.cumsum(truth[order])[ends]])
    alarms = np.concatenate([[0], np.cumsum(1 - truth[order])[ends]])
    return alarms / alarms[-1], hits / hits[-1]


def _interval(scores: Mapping[str, Any], level: str) -> str:
    """``(0.62 to 0.97)`` of a level's AUROC in ``metrics.json``, or nothing."""
    found = scores.get(level) or {}
    score = (found.get("binary") or found).get("auroc") or {}
    low, high = score.get("low"), score.get("high")
    return "" if low is None or high is None else f" ({low:.2f} to {high:.2f})"


def roc_figure(table: Table, scores: Mapping[str, Any]) -> Figure:
    """ROC curves of malignant against benign, by image and (where known) by case.

    Args:
        table: predictions of one part.
        scores: that part of ``metrics.json``; its intervals stand in the legend.
    """
    figure, (axes,) = new_figure(4.5, 4.4)
    part = PART_NAMES.get(str(table.part[0]), str(table.part[0]))
    label_axes(
        axes,
        f"ROC, {part} part",
        "benign ones called malignant (1 - specificity)",
        "malignant ones found (sensitivity)",
    )
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    if len(np.unique(table.malignant)) < 2:
        say_empty(axes, f"No curve: {why_undefined(table.malignant)}.")
        return figure
    levels = (
        {"image": (BLUE, "-"), "case": (VERMILLION, "--")} if is_grouped(table) else {"image": (BLUE, "-")}
    )
    for level, (colour, line) in levels.items():
        here = units(table, level)
        area = auroc(here.truth, here.p, here.fold)
        axes.plot(
            *roc_points(here.truth, here.p),
            line,
            color=colour,
            linewidth=1.8,
            label=f"{len(here)} {level}s: area {area:.2f}{_interval(scores, level)}",
        )
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2, zorder=0, label="chance: area 0.50")
    axes.legend(fontsize=TEXT_SIZE - 1, frameon=False, loc="lower right")
    return figure


def confusion_figure(table: Table) -> Figure:
    """Confusion matrices, counts and percentages of each row: by image and case, or of the eight subtypes by image.

    Decisions are those of the table (largest logit) by image and mean probability at 0.5 by case.
    """
    binary = table.task == "binary"
    levels = ["image", "case"] if binary and is_grouped(table) else ["image"]
    figure, panels = (
        new_figure(5.6 if len(levels) == 2 else 3.2, 2.9, len(levels)) if binary else new_figure(6.2, 5.6)
    )
    names = CLASSES if binary else SUBTYPES
    part = PART_NAMES.get(str(table.part[0]), str(table.part[0]))
    for axes, level in zip(panels, levels, strict=True):
        here = units(table, level, binary=binary)
        counts = confusion(here.truth, here.decision, len(names))
        _draw_matrix(axes, counts, names)
        label_axes(axes, f"{counts.sum()} {level}s, {part} part", "called", "truth")
    return figure


def _draw_matrix(axes: Axes, counts: NDArray[np.int64], names: tuple[str, ...]) -> None:
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    axes.imshow(shares, cmap=SHADES, vmin=0, vmax=1)
    for row in range(len(names)):
        for column in range(len(names)):
            text = f"{counts[row, column]}\n{100 * shares[row, column]:.0f} %"
            dark = shares[row, column] > 0.55
            size = TEXT_SIZE + 2 if len(names) == 2 else TEXT_SIZE - 2
            axes.text(
                column,
                row,
                text if totals[row] else "none here",
                ha="center",
                va="center",
                color="white" if dark else INK if totals[row] else GREY,
                fontsize=size if totals[row] else size - 2,
            )
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names, rotation=90 if len(names) == 2 else 0, va="center")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    # White lines between the cells keep neighbours of one shade apart.
    axes.set_xticks(np.arange(len(names) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)


def draw_plots(run_folder: Path) -> list[Path]:
    """Draw ``plots/*.png`` of a run folder from ``history.csv``, ``metrics.json`` and ``predictions/*.csv``.

    Returns:
        The files written, each whole or not at all: ``loss, accuracy, roc_val, confusion_val`` and, where the
        test part was read, ``roc_test, confusion_test``.

    Raises:
        UserError: a table is missing or damaged, or a picture cannot be written.
    """
    metrics = read_json(run_folder / "metrics.json")
    if "best_epoch" not in metrics:
        raise UserError(f"{run_folder / 'metrics.json'}: is missing or damaged; the run has not been scored")
    history, best = read_history(run_folder / "history.csv"), int(metrics["best_epoch"])
    plots = run_folder / "plots"
    image_scores = (metrics.get("val") or {}).get("image") or {}
    baseline = (image_scores.get("always_malignant") or {}).get("accuracy")
    written = [
        save_png(curve_figure(history, "loss", best), plots / "loss.png"),
        save_png(curve_figure(history, "accuracy", best, baseline), plots / "accuracy.png"),
    ]
    for part in ("val", "test"):
        if part == "test" and metrics.get("test") is None:
            continue
        table = read_predictions(run_folder / "predictions" / f"{part}.csv")
        written.append(save_png(roc_figure(table, metrics.get(part) or {}), plots / f"roc_{part}.png"))
        written.append(save_png(confusion_figure(table), plots / f"confusion_{part}.png"))
    return written
