"""A study's pictures, drawn by Optuna, and its page."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.ticker import MaxNLocator
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import TrialState
from optuna.visualization import matplotlib as plots

from histo_lightning.report.pages import picture, write_page
from histo_lightning.report.style import save_picture
from histo_lightning.tuning.results import Row
from histo_lightning.tuning.search import Studies

FAR = 3.0  # values further from the median than this many times the spread of the better half are left out
ENOUGH = 10  # completed trials, below which an importance would be noise


def draw_study(studies: Studies, rows: Sequence[Row]) -> dict[str, str]:
    """Write ``plots/*``; what each shows, by name. What Optuna changes in pyplot's settings is put back.

    Importance is PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023) of being in the best quarter of the completed trials.
    """
    plan, titles = studies.plan, dict[str, str]()
    monitor, values = plan.config.monitor, [value for row in rows for value in row["curve"]]

    def save(name: str, title: str, drawn: Any, clipped: bool = True) -> None:
        axes = np.ravel(drawn)
        if clipped and values:
            axes[0].set_ylim(*visible_range(values, plan.minimise))
        if not name.startswith("values"):  # it cannot lay out the colour bar of a single key
            axes[0].figure.set_layout_engine("constrained")
        save_picture(axes[0].figure, plan.folder / "plots" / name)
        pyplot.close(axes[0].figure)
        titles[name] = title

    matplotlib.use("Agg")  # no window, whatever the machine has
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental, one value only, nothing to put in a legend
        history = plots.plot_optimization_history(list(studies.by_name.values()), target_name=monitor)
        save("history", "The search as it went on", history)
        for search in plan.searches:
            study, depth = studies.by_name[search.name], search.name
            values_by_key = plots.plot_slice(study, target_name=monitor)
            save(f"values_{depth}", f"Values of the keys, {depth}", values_by_key)
            curves = plots.plot_intermediate_values(study)
            curves.set(ylabel=monitor, xlabel="fold" if len(plan.folds) > 1 else "epoch")
            curves.xaxis.set_major_locator(MaxNLocator(integer=True))
            curves.xaxis.set_major_formatter(lambda step, position: f"{step + 1:.0f}")
            if legend := curves.get_legend():
                legend.remove()  # an entry a trial
            save(f"curves_{depth}", f"Trials of {depth}", curves)
            if len(search.space) > 1 and len(studies.trials(search, TrialState.COMPLETE)) >= ENOUGH:
                evaluator = PedAnovaImportanceEvaluator(target_quantile=0.25)
                shares = plots.plot_param_importances(study, evaluator=evaluator)
                save(f"importance_{depth}", f"Importance of the keys, {depth}", shares, clipped=False)
    return titles


def visible_range(values: Sequence[float], minimise: bool) -> tuple[float, float]:
    """Ends of an axis that leave diverged values out: they would press all others into a line."""
    sign = 1.0 if minimise else -1.0
    losses = np.sort(sign * np.asarray(values, dtype=np.float64))
    median = np.median(losses)
    visible = losses[losses <= median + FAR * max(median - losses[0], 1e-3)]
    pad = 0.06 * max(visible[-1] - visible[0], 1e-3)
    low, high = sorted((sign * (visible[0] - pad), sign * (visible[-1] + pad)))
    return float(low), float(high)


def write_study_page(folder: Path, rows: Sequence[Row], study: Row, titles: dict[str, str]) -> None:
    """Write ``report.html``, one file that opens offline; the pictures must be drawn already."""
    labels = [fact["label"] for fact in study["protocol"]["folds"]] + [study["protocol"]["warning"]]
    pictures = [picture(folder / "plots" / f"{name}.png", title) for name, title in titles.items()]
    context = {"study": study, "rows": rows, "labels": list(dict.fromkeys(filter(None, labels)))}
    write_page(folder / "report.html", "study.html", pictures=pictures, **context)
