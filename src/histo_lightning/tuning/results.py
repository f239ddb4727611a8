"""What a study leaves: ``study.json``, ``trials.csv``, ``curves.csv``, pictures drawn by Optuna, and the page."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas
from matplotlib import pyplot
from matplotlib.ticker import MaxNLocator
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import TrialState
from optuna.visualization import matplotlib as plots

from histo_lightning.report.pages import picture, write_page
from histo_lightning.report.style import save_picture
from histo_lightning.runs import quote_cell, versions, write_atomic, write_json
from histo_lightning.tuning.search import Studies, numbered
from histo_lightning.tuning.space import Search, edge, overrides

OPTIMISTIC = "selected on the same cases that are scored: optimistic"
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
FAR = 3.0  # values further from the median than this many times the spread of the better half are left out
ENOUGH = 10  # completed trials, below which an importance would be noise
Row = Mapping[str, Any]


def trial_rows(studies: Studies) -> list[Row]:
    """A row a trial, by depth: of several attempts the last; ``curve`` holds the monitored value of each epoch (or fold)."""
    plan, rows = studies.plan, list[Row]()
    for search in plan.searches:
        for number, attempts in enumerate(numbered(studies.trials(search))):
            last, name = attempts[-1], plan.run_name(search, number)
            seconds = sum(one.duration.total_seconds() for one in attempts if one.duration is not None)
            died = f"its process died {len(attempts)} times" if last.state == TrialState.FAIL else ""
            row = {"trial": number, "depth": search.name, "state": STATES.get(last.state, "running")}
            row["value"] = last.value if last.state == TrialState.COMPLETE else None
            row |= {"attempts": len(attempts), "seconds": round(seconds, 3)}
            row["runs"] = sorted(path.name for path in (plan.folder / "trials").glob(f"{name}_*"))
            row["values"] = {**search.fixed, **last.params}
            row["curve"] = [value for _, value in sorted(last.intermediate_values.items())]
            rows.append(row | {"error": str(last.user_attrs.get("error", died))})
    return rows


def best_row(rows: Sequence[Row], minimise: bool) -> Row | None:
    """The completed trial with the best value, the first of equals; None where none was completed."""
    complete = [row for row in rows if row["state"] == "complete"]
    return min(complete, key=lambda row: row["value"] if minimise else -row["value"], default=None)


def summarise(studies: Studies, rows: Sequence[Row], facts: Sequence[Row], final: Row | None) -> Row:
    """The content of ``study.json``; ``facts`` say what each fold's split is, ``final`` is None where the test set was left unread."""
    plan, config, several = studies.plan, studies.plan.config, len(studies.plan.folds) > 1
    by_depth: dict[str, Any] = {}
    for search in plan.searches:
        own = [row for row in rows if row["depth"] == search.name]
        epochs = None if several else sum(len(row["curve"]) for row in own)
        budget = _counts(own, search.trials) | {"epochs": epochs, "seconds": sum(r["seconds"] for r in own)}
        by_depth[search.name] = {"budget": budget, "best": _setting(best_row(own, plan.minimise), search)}
    best = best_row(rows, plan.minimise)
    protocol: dict[str, Any] = {
        "nested": not several,
        "warning": OPTIMISTIC if several else None,
        "folds": list(facts),
    }
    protocol |= {"monitor": config.monitor, "direction": "minimise" if plan.minimise else "maximise"}
    protocol["epoch"] = config.scored_weights
    protocol["test_read"] = sum(run["test_read"] for run in final["runs"]) if final else 0
    space = {key: dict(vars(d)) for key, d in plan.searches[0].space.items()}
    search_facts = asdict(config.tune) | {"space": space, "warmup_epochs": plan.warmup_epochs}
    search_facts |= {"epochs": config.epochs, "seed": config.seed}
    data = "synthetic" if config.dataset.name == "synthetic" else "real"
    state = "finished" if studies.done() >= config.tune.trials else "stopped"
    study = {"schema": 2, "name": plan.folder.name, "data": data, "state": state, "protocol": protocol}
    study |= {"search": search_facts, "counts": _counts(rows, config.tune.trials)}
    study |= {"best": by_depth[best["depth"]]["best"] if best else None, "by_depth": by_depth, "final": final}
    return study | {"identity": studies.identity, "versions": versions()}


def _counts(rows: Sequence[Row], trials: int) -> dict[str, Any]:
    states = Counter(row["state"] for row in rows)
    counts = {state: states[state] for state in STATES.values()}
    return {"trials": trials, **counts, "taken_up_again": sum(row["attempts"] - 1 for row in rows)}


def _setting(row: Row | None, search: Search) -> dict[str, Any] | None:
    """A best trial with where its values lie; ``edge`` is ``low`` or ``high`` where a range may have been too narrow."""
    if row is None:
        return None
    values = row["values"]
    edges = [{"key": k, "value": values[k], "edge": edge(d, values[k])} for k, d in search.space.items()]
    about = {key: row[key] for key in ("trial", "depth", "value", "values", "runs")}
    return about | {"overrides": overrides(values), "edges": edges}


def write_tables(folder: Path, rows: Sequence[Row], study: Row) -> None:
    """``study.json``, ``trials.csv`` (a row a trial) and ``curves.csv`` (a row a trial and epoch), each whole or not at all."""
    names, trials, curves = ("trial", "depth", "state", "value", "attempts", "seconds"), [], []
    for row in rows:
        about = {name: row[name] for name in names} | {"epochs": len(row["curve"])}
        about |= {"runs": " ".join(row["runs"]), **row["values"], "error": quote_cell(row["error"])}
        trials.append(about)
        own = {"trial": row["trial"], "depth": row["depth"]}
        curves += [own | {"epoch": epoch, "value": value} for epoch, value in enumerate(row["curve"])]
    for name, lines in (("trials", trials), ("curves", curves)):
        write_atomic(folder / f"{name}.csv", pandas.DataFrame(lines).to_csv(index=False))
    write_json(folder / "study.json", study)


def draw_study(studies: Studies, rows: Sequence[Row]) -> dict[str, str]:
    """Write ``plots/*``; what each shows, by name. Importance is PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023)."""
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
    with matplotlib.rc_context(), warnings.catch_warnings(action="ignore"):  # experimental, one value only
        history = plots.plot_optimization_history(list(studies.by_name.values()), target_name=monitor)
        save("history", "The search as it went on", history)
        for search in plan.searches:
            study, depth = studies.by_name[search.name], search.name
            slices = plots.plot_slice(study, target_name=monitor)
            save(f"values_{depth}", f"Values of the keys, {depth}", slices)
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
    low, high = sorted((sign * float(visible[0] - pad), sign * float(visible[-1] + pad)))
    return low, high


def write_study_page(folder: Path, rows: Sequence[Row], study: Row, titles: dict[str, str]) -> None:
    """Write ``report.html``, one file that opens offline; the pictures must be drawn already."""
    labels = [fact["label"] for fact in study["protocol"]["folds"]] + [study["protocol"]["warning"]]
    pictures = [picture(folder / "plots" / f"{name}.png", title) for name, title in titles.items()]
    context = {"study": study, "rows": rows, "labels": list(dict.fromkeys(filter(None, labels)))}
    write_page(folder / "report.html", "study.html", pictures=pictures, **context)
