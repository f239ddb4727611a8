"""Learning curves: loss and accuracy of the train and the validation set by epoch."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from histo_lightning.errors import UserError
from histo_lightning.report import style
from histo_lightning.report.style import label_axes, legend_below, new_figure
from histo_lightning.report.words import PART_NAMES

Floats = NDArray[np.float64]
MANY_EPOCHS = 40  # above, a marker an epoch would hide the curve


def read_history(path: Path) -> dict[str, Floats]:
    """``history.csv`` by column, float64, one value an epoch, NaN for an empty cell; UserError where it is damaged."""
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
    """Train and validation curve of ``loss`` or ``accuracy``, with that of always answering "malignant" (``baseline``).

    Drawn epochs count from 1, ``best_epoch`` from 0.
    """
    figure, (axes,) = new_figure(5.0, 4.0)
    epochs, scored = history["epoch"] + 1, history["epoch"] == best_epoch
    look: dict[str, Any] = {"marker": "" if len(epochs) > MANY_EPOCHS else "o", "markersize": 3}
    for part, colour, line in (("train", style.BLUE, "--"), ("val", style.VERMILLION, "-")):
        values = history[f"{part}_{quantity}"]
        axes.plot(epochs, values, line, color=colour, label=f"{PART_NAMES[part]} set", **look)
    name = f"epoch {best_epoch + 1} (scored)"
    axes.axvline(best_epoch + 1, color=style.GREY, linestyle=":", linewidth=1.2, zorder=0, label=name)
    ring: dict[str, Any] = {"markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.4}
    ring["markeredgecolor"] = style.VERMILLION
    axes.plot(epochs[scored], history[f"val_{quantity}"][scored], "o", **ring)
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
