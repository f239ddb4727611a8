"""A study's pictures, drawn by Optuna, and its page."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot
from optuna.exceptions import ExperimentalWarning
from optuna.visualization import matplotlib as plots

from histo_lightning.report.pages import picture, write_page
from histo_lightning.report.style import save_picture
from histo_lightning.tuning.results import Row, importance_evaluator
from histo_lightning.tuning.search import Studies

FAR = 3.0  # values further from the median than this many times the spread of the better half are left out


def draw_study(studies: Studies, rows: Sequence[Row], study: Row) -> dict[str, str]:
    """Write ``plots/*``; what each shows, by name. What Optuna changes in pyplot's settings is put back."""
    monitor, titles = study["protocol"]["monitor"], {}
    values = [value for row in rows for value in row["curve"]]

    def save(name: str, title: str, drawn: Any, clipped: bool = True) -> None:
        axes = np.ravel(drawn)
        if clipped and values:
            axes[0].set_ylim(*visible_range(values, studies.plan.minimise))
        axes[0].figure.set_layout_engine("constrained")
        save_picture(axes[0].figure, studies.plan.folder / "plots" / name)
        pyplot.close(axes[0].figure)
        titles[name] = title

    matplotlib.use("Agg")  # no window, whatever the machine has
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        several = list(studies.by_name.values())
        save(
            "history",
            "The search as it went on",
            plots.plot_optimization_history(several, target_name=monitor),
        )
        for depth, one in studies.by_name.items():
            save(
                f"values_{depth}", f"Values of the keys, {depth}", plots.plot_slice(one, target_name=monitor)
            )
            curves = plots.plot_intermediate_values(one)
            curves.set(ylabel=monitor, xlabel="fold" if len(studies.plan.folds) > 1 else "epoch")
            if legend := curves.get_legend():
                legend.remove()  # an entry a trial
            save(f"curves_{depth}", f"Trials of {depth}", curves)
            if study["importances"][depth]["values"]:
                bars = plots.plot_param_importances(one, evaluator=importance_evaluator())
                save(f"importance_{depth}", f"Importance of the keys, {depth}", bars, clipped=False)
    return titles


def visible_range(values: Sequence[float], minimise: bool) -> tuple[float, float]:
    """Ends of an axis that leave diverged values out: they would press all others into a line."""
    sign = 1.0 if minimise else -1.0
    losses = np.sort(sign * np.asarray(values, dtype=np.float64))
    far = np.median(losses) + FAR * max(np.median(losses) - losses[0], 1e-3)
    low, high = losses[0], losses[losses <= far][-1]
    pad = 0.06 * max(high - low, 1e-3)
    ends = sorted((sign * (low - pad), sign * (high + pad)))
    return float(ends[0]), float(ends[1])


def write_study_page(folder: Path, rows: Sequence[Row], study: Row, titles: dict[str, str]) -> None:
    """Write ``report.html``, one file that opens offline; the pictures must be drawn already."""
    protocol = study["protocol"]
    labels = [fact["label"] for fact in protocol["folds"] if fact["label"]]
    labels += [protocol["warning"]] if protocol["warning"] else []
    pictures = [picture(folder / "plots" / f"{name}.png", title) for name, title in titles.items()]
    context = {"study": study, "rows": rows, "labels": list(dict.fromkeys(labels)), "pictures": pictures}
    write_page(folder / "report.html", "study.html", **context)
