"""Each level at each setting in plain values: pooled scores, the runs' means, costs, curves, decisions on test."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pandas as pd

from histo_lightning.comparison.pooling import score_out_of_fold
from histo_lightning.comparison.reading import COSTS, FINISHED
from histo_lightning.comparison.settings import CELL, replicate_text
from histo_lightning.errors import UserError
from histo_lightning.evaluation.differences import Replicate
from histo_lightning.evaluation.levels import Units, is_grouped, units
from histo_lightning.evaluation.scores import confusion
from histo_lightning.report.figures.learning import read_history
from histo_lightning.report.figures.ranking import GRID, roc_points

Json = dict[str, Any]
Curves = Mapping[Any, Mapping[str, list[float]]]

NAMES = {
    "world": "protocol",
    "arm": "title",
    "level": "level",
    "stratum": "setting",
    "magnification": "magnification",
}
"""What the record calls the columns of a placed run."""


def mean(values: Any) -> float | None:
    """Mean of the values that are there, None without one."""
    known = [float(value) for value in values if pd.notna(value)]
    return fmean(known) if known else None


def curves_of(placed: pd.DataFrame) -> Curves:
    """``train_loss`` and ``val_loss`` by epoch of each finished run that has them, by its index."""
    curves = {}
    for index, folder in placed.loc[placed["state"] == FINISHED, "folder"].items():
        try:
            history = read_history(folder / "history.csv")
            curves[index] = {name: history[name].tolist() for name in ("train_loss", "val_loss")}
        except (KeyError, UserError):
            continue
    return curves


def curve_records(placed: pd.DataFrame, curves: Curves) -> list[Json]:
    """The curves of every run that has some, with ``arm, magnification, world`` and ``run``."""
    names = {key: NAMES[key] for key in ("arm", "magnification", "world")} | {"run": "run"}
    own = ((index, run) for index, run in placed[list(names.values())].iterrows() if index in curves)
    return [{key: run[name] for key, name in names.items()} | dict(curves[index]) for index, run in own]


def summarise(placed: pd.DataFrame, pools: pd.DataFrame, score: str, curves: Curves) -> list[Json]:
    """Everything that the tables and pictures say about each cell (level, setting, magnification).

    ``value, low, high`` are means over the replicates: of the pooled scores, and of the ends of their intervals (a
    little too wide, since the mean of several trainings varies less than one).
    """
    rows = dict(list(pools.reset_index().groupby(CELL)))
    return [_cell(runs, rows[key], score, curves) for key, runs in placed.groupby(CELL, sort=False)]


def _cell(runs: pd.DataFrame, pools: pd.DataFrame, score: str, curves: Curves) -> Json:
    folds = runs.groupby("replicate")["fold"].nunique()
    replicates: list[Json] = [
        {"replicate": replicate_text(pool["replicate"]), "folds": int(folds[[pool["replicate"]]].iloc[0])}
        | _replicate(pool["pooled"], pool["problem"], score)
        for _, pool in pools.iterrows()
    ]
    pooled = [one for one in replicates if one["value"] is not None]
    finished = runs[runs["state"] == FINISHED]
    own = finished[f"test_{score}"]
    by_seed = [one["value"] for one in pooled]
    by_fold = own.groupby(finished["fold"]).mean().dropna()
    bounded = all(one["low"] is not None for one in pooled)
    names = sorted({name for one in pooled for name in one["scores"]})
    return {key: runs[name].iloc[0] for key, name in NAMES.items()} | {
        "label": next((label for label in runs["label"] if label), ""),
        "found": len(runs),
        "finished": len(finished),
        "test_read": sum(int(status.get("test_read") or 0) for status in runs["status"]),
        "value": mean(by_seed),
        "low": mean(one["low"] for one in pooled) if bounded else None,
        "high": mean(one["high"] for one in pooled) if bounded else None,
        "method": next((one["method"] for one in pooled), None),
        "reason": next((one["reason"] for one in replicates if one.get("reason")), None),
        "pooled_pairs": mean(one["pooled"] for one in pooled),
        "seed_sd": stdev(by_seed) if len(by_seed) > 1 else None,
        "fold_sd": stdev(by_fold) if len(by_fold) > 1 else None,
        "replicates": replicates,
        "mean_of_runs": mean(own),
        "scored_runs": int(own.notna().sum()),
        "val": mean(finished[f"val_{score}"]),
        "scores": {name: mean(one["scores"][name] for one in pooled) for name in names},
        "train_loss": mean(curves[index]["train_loss"][-1] for index in finished.index if index in curves),
        "train_accuracy": mean(finished["train_image_accuracy"]),
        **{name: mean(finished[name]) for name in COSTS},
        "problems": [problem for problem in pools["problem"] if problem],
    }


def _replicate(pooled: Sequence[Replicate], problem: str | None, score: str) -> Json:
    if problem:
        nothing = dict.fromkeys(("value", "low", "high", "method", "pooled", "warning"))
        return nothing | {"scores": {}, "problem": problem}
    entries, values = zip(*(score_out_of_fold(one, score) for one in pooled), strict=True)
    first = {key: entries[0].get(key) for key in ("method", "warning", "reason", "cases")}
    means = {key: mean(entry.get(key) for entry in entries) for key in ("value", "low", "high", "pooled")}
    scores = {name: mean(each[name] for each in values) for name in values[0]}
    return first | means | {"problem": None, "scores": scores}


def decisions_of(pools: pd.DataFrame) -> list[Json]:
    """What each cell's networks decided on test, by image and (where known) by case.

    Returns:
        For each cell with pooled predictions the keys of ``NAMES``, ``trainings`` and for each of ``image, case``:
        ``confusion``, 2 x 2 counts (rows are the truth) summed over the replicates, and ``roc``, see ``mean_roc``.
    """
    records = []
    for _, cell in pools[pools["problem"].isna()].reset_index().groupby(CELL, sort=False):
        replicates = [pooled[0] for pooled in cell["pooled"]]
        record = {key: cell[name].iloc[0] for key, name in NAMES.items()} | {"trainings": len(replicates)}
        for level in ("image", "case") if all(is_grouped(one.table) for one in replicates) else ("image",):
            here = [units(one.table, level, fold=one.fold) for one in replicates]
            counts = np.sum([confusion(each.truth, each.decision, 2) for each in here], axis=0)
            folds = [each.chosen(each.fold == k) for each in here for k in np.unique(each.fold)]
            record[level] = {"confusion": counts.tolist(), "roc": mean_roc(folds)}
        records.append(record)
    return records


def mean_roc(folds: Sequence[Units]) -> Json | None:
    """The folds' ROC curves and their vertical average (Fawcett 2006, section 7).

    Folds hold different networks, so probabilities are compared within a fold only. Each fold weighs as many pairs of a benign
    and a malignant unit as it has; the area under the average then is the pooled AUROC of ``evaluation.score_pooled``.

    Returns:
        ``curves``, false and true positive rates of each fold that holds both classes, and ``mean``, the average true
        positive rate at the false positive rates ``ranking_pictures.GRID``; None where no fold holds both classes.
    """
    both = [fold for fold in folds if 0 < int(fold.truth.sum()) < len(fold)]
    if not both:
        return None
    curves = [roc_points(fold.truth, fold.p) for fold in both]
    pairs = [int(fold.truth.sum()) * (len(fold) - int(fold.truth.sum())) for fold in both]
    heights = np.array([np.interp(GRID, false, true) for false, true in curves])
    average = np.average(heights, axis=0, weights=pairs)
    return {"curves": [[false.tolist(), true.tolist()] for false, true in curves], "mean": average.tolist()}
