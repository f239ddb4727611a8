"""A cell in plain values: its pooled scores, its runs' means, what it cost, how far its training loss fell."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from histo_lightning.cells import Replicate
from histo_lightning.errors import UserError
from histo_lightning.pooled_cells import PooledCell, run_score, score_out_of_fold
from histo_lightning.report.figures.learning import read_history
from histo_lightning.run_reading import Run

Json = dict[str, Any]
COSTS = ("parameters", "flops", "train_seconds", "peak_memory_bytes")


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are there, None without one."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def cost_of(run: Run, name: str) -> float | None:
    """One of ``COSTS`` from ``metrics.json``; runs of older versions only say their seconds of training."""
    cost = run.metrics.get("cost") or {}
    value = cost.get(name, run.metrics.get(name) if name == "train_seconds" else None)
    return float(value) if isinstance(value, int | float) else None


def curves_of(run: Run) -> Mapping[str, list[float]]:
    """``train_loss`` and ``val_loss`` by epoch; empty where ``history.csv`` is missing or damaged."""
    if run.folder is None or not (run.folder / "history.csv").is_file():
        return {}
    try:
        history = read_history(run.folder / "history.csv")
        return {name: [float(value) for value in history[name]] for name in ("train_loss", "val_loss")}
    except (KeyError, UserError):
        return {}


def summarise(found: PooledCell, score: str, curves: Mapping[int, Mapping[str, list[float]]]) -> Json:
    """Everything the tables and pictures say about a cell.

    ``value, low, high`` are means over the replicates: of the pooled scores, and of the ends of their intervals (a
    little too wide, since the mean of several trainings varies less than one).

    Args:
        found: pooled as far as possible.
        score: ``<level>_<score>``.
        curves: of each run, by ``id``.
    """
    cell = found.cell
    replicates = [_replicate(found, replicate, score) for replicate in cell.runs]
    pooled = [one for one in replicates if one["value"] is not None]
    finished = [run for run in cell.all_runs if run.finished]
    reached = [curves[id(run)]["train_loss"][-1] for run in finished if curves[id(run)].get("train_loss")]
    by_seed = [float(one["value"]) for one in pooled]
    names = sorted({name for one in pooled for name in one["scores"]})
    bounded = all(one["low"] is not None for one in pooled)
    return {
        "world": cell.world,
        "arm": str(cell.arm),
        "level": cell.arm.level,
        "stratum": cell.arm.stratum,
        "magnification": cell.magnification,
        "label": next((run.label for run in cell.all_runs if run.label), ""),
        "found": len(cell.all_runs),
        "finished": len(finished),
        "test_read": sum(int(run.status.get("test_read") or 0) for run in cell.all_runs),
        "value": mean(by_seed),
        "low": mean([one["low"] for one in pooled]) if bounded else None,
        "high": mean([one["high"] for one in pooled]) if bounded else None,
        "method": next((one["method"] for one in pooled), None),
        "reason": next((one["reason"] for one in replicates if one.get("reason")), None),
        "pooled_pairs": mean([one["pooled"] for one in pooled]),
        "seed_sd": stdev(by_seed) if len(by_seed) > 1 else None,
        "fold_sd": _fold_sd(finished, score),
        "replicates": replicates,
        "mean_of_runs": mean([run_score(run, "test", score) for run in finished]),
        "scored_runs": sum(run_score(run, "test", score) is not None for run in finished),
        "val": mean([run_score(run, "val", score) for run in finished]),
        "scores": {name: mean([one["scores"][name] for one in pooled]) for name in names},
        "train_loss": mean(reached),
        "train_accuracy": mean([run_score(run, "train", "image_accuracy") for run in finished]),
        **{name: mean([cost_of(run, name) for run in finished]) for name in COSTS},
        "problems": list(found.problems.values()),
    }


def _replicate(found: PooledCell, replicate: Replicate, score: str) -> Json:
    poolings = found.pooled.get(replicate)
    about: Json = {"replicate": str(replicate), "folds": len(found.cell.runs[replicate])}
    if not poolings:
        nothing = dict.fromkeys(("value", "low", "high", "method", "pooled", "warning"))
        return about | nothing | {"scores": {}, "problem": found.problems[replicate]}
    scored = [score_out_of_fold(one, score) for one in poolings]
    entries = [entry for entry, _ in scored]
    first = {key: entries[0].get(key) for key in ("method", "warning", "reason", "cases")}
    ends = {key: mean([entry.get(key) for entry in entries]) for key in ("value", "low", "high", "pooled")}
    names = scored[0][1]
    return (
        about
        | first
        | ends
        | {"problem": None}
        | {"scores": {name: mean([values[name] for _, values in scored]) for name in names}}
    )


def _fold_sd(runs: Sequence[Run], score: str) -> float | None:
    """Standard deviation over the folds of the mean over the seeds of the runs' own scores."""
    by_fold: dict[int, list[float]] = {}
    for run in runs:
        value = run_score(run, "test", score)
        if value is not None:
            by_fold.setdefault(int(run.config["split.fold"]), []).append(value)
    return stdev(fmean(values) for values in by_fold.values()) if len(by_fold) > 1 else None
