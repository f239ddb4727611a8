"""Pictures of a run, drawn from its tables: learning curves, confusion matrices, and all others by their modules."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from histo_lightning.data.breakhis.names import CLASSES, SUBTYPES
from histo_lightning.errors import UserError
from histo_lightning.evaluation import Table, read_predictions
from histo_lightning.evaluation.levels import is_grouped, units
from histo_lightning.evaluation.scores import confusion
from histo_lightning.report.case_picture import case_figure
from histo_lightning.report.group_pictures import magnification_figure, subtype_figure
from histo_lightning.report.ranking_pictures import precision_recall_figure, roc_figure
from histo_lightning.report.reliability_pictures import reliability_figure
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
    legend_below,
    new_figure,
    save_picture,
)
from histo_lightning.report.words import PART_NAMES, part_of
from histo_lightning.runs import read_json

__all__ = [
    "confusion_figure",
    "curve_figure",
    "draw_plots",
    "precision_recall_figure",
    "read_history",
    "roc_figure",
]

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
    legend_below(figure, axes, columns=2)
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
    for axes, level in zip(panels, levels, strict=True):
        here = units(table, level, binary=binary)
        counts = confusion(here.truth, here.decision, len(names))
        draw_matrix(axes, counts, names)
        label_axes(axes, f"{counts.sum()} {level}s, {part_of(table)}", "called", "truth")
    return figure


def draw_matrix(
    axes: Axes, counts: NDArray[np.int64], names: tuple[str, ...], cases: NDArray[np.int64] | None = None
) -> None:
    """Draw a confusion matrix, rows are the truth; counts of ``cases`` stand in brackets below those of images."""
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    axes.imshow(shares, cmap=SHADES, vmin=0, vmax=1)
    for row in range(len(names)):
        for column in range(len(names)):
            text = f"{counts[row, column]}\n{100 * shares[row, column]:.0f} %"
            text += "" if cases is None else f"\n({cases[row, column]})"
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


def part_figures(
    table: Table, scores: Mapping[str, Any], threshold: float | None, temperature: Mapping[str, Any] | None
) -> Iterator[tuple[str, Figure]]:
    """Name and figure of each picture of scored predictions, one at a time.

    Args:
        scores: of ``score_predictions``.
        threshold, temperature: the stored operating point and the entry of ``metrics.json``; None where there is none.
    """
    yield "roc", roc_figure(table, scores)
    yield "confusion", confusion_figure(table)
    yield "precision_recall", precision_recall_figure(table, scores)
    yield "reliability", reliability_figure(table, temperature)
    yield "cases", case_figure(table, threshold)
    yield "subtypes", subtype_figure(table)
    if len(np.unique(table.magnification)) > 1:
        yield "magnifications", magnification_figure(table)


def draw_plots(run_folder: Path) -> list[Path]:
    """Draw ``plots/*`` of a run folder from ``history.csv``, ``metrics.json`` and ``predictions/*.csv``.

    Returns:
        The files written, each whole or not at all, PNG and SVG of each: ``loss, accuracy``; for validation and,
        where it was read, test ``roc_<part>, confusion_<part>, precision_recall_<part>, reliability_<part>,
        cases_<part>, subtypes_<part>`` and, where there are several, ``magnifications_<part>``. The contact sheet
        of the worst errors needs pixels: see ``worst_picture.draw_worst``.

    Raises:
        UserError: a table is missing or damaged, or a picture cannot be written.
    """
    metrics = read_json(run_folder / "metrics.json")
    if "best_epoch" not in metrics:
        raise UserError(f"{run_folder / 'metrics.json'}: is missing or damaged; the run has not been scored")
    history, best = read_history(run_folder / "history.csv"), int(metrics["best_epoch"])
    plots = run_folder / "plots"
    image_scores = (metrics.get("val") or {}).get("image") or {}
    # Of eight subtypes there is none: "malignant" is no answer there.
    baseline = (image_scores.get("always_malignant") or {}).get("accuracy")
    written = [
        *save_picture(curve_figure(history, "loss", best), plots / "loss"),
        *save_picture(curve_figure(history, "accuracy", best, baseline), plots / "accuracy"),
    ]
    for part in ("val", "test"):
        if part == "test" and metrics.get("test") is None:
            continue
        table = read_predictions(run_folder / "predictions" / f"{part}.csv")
        threshold = (metrics.get("operating_point") or {}).get("threshold")
        for name, figure in part_figures(
            table, metrics.get(part) or {}, threshold, metrics.get("temperature")
        ):
            written += save_picture(figure, plots / f"{name}_{part}")
    return written
