"""What a study found, as plain tables: ``study.json``, ``trials.csv``, ``curves.csv``. Needs neither Optuna nor torch."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histo_lightning.config import RANGES
from histo_lightning.evaluation.table_csv import quote_cell
from histo_lightning.runs import versions, write_atomic, write_json
from histo_lightning.tuning.plan import Plan
from histo_lightning.tuning.space import Arm, Dimension, Scalar

OPTIMISTIC = "selected on the same cases that are scored: optimistic"


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trial. ``state`` is complete, pruned, failed or running; ``curve`` the monitored value of each epoch (or fold)."""

    trial: int
    depth: str
    state: str
    value: float | None
    values: Mapping[str, Scalar]
    curve: tuple[float, ...]
    attempts: int
    seconds: float | None
    runs: tuple[str, ...]
    error: str


def best_row(rows: Sequence[TrialRow], minimise: bool) -> TrialRow | None:
    """The completed trial with the best value, the first of equals; None where none was completed."""
    sign = 1 if minimise else -1
    found = [
        (sign * row.value, row.trial, row)
        for row in rows
        if row.state == "complete" and row.value is not None
    ]
    return min(found, key=lambda item: item[:2])[2] if found else None


def edges(dimensions: Sequence[Dimension], values: Mapping[str, Scalar]) -> list[dict[str, Any]]:
    """Where the best setting lies in each range or grid, and whether that is its edge.

    ``limit`` says that the range ends where the key does, so it cannot be widened there.
    """
    found = []
    for dimension in dimensions:
        value, edge = values[dimension.key], dimension.edge(values[dimension.key])
        allowed = RANGES.get(dimension.key)
        bound = {"low": dimension.low, "high": dimension.high}.get(edge or "")
        limit = bool(edge and dimension.kind != "choice" and allowed and bound in allowed)
        found.append(
            {
                "key": dimension.key,
                "value": value,
                "position": dimension.position(value),
                "edge": edge,
                "limit": limit,
            }
        )
    return found


def overrides(values: Mapping[str, Scalar]) -> list[str]:
    """The setting as a command line takes it."""
    plain = {True: "true", False: "false", None: "null"}
    return [f"{key}={plain[v] if v is None or isinstance(v, bool) else v}" for key, v in values.items()]


def setting(row: TrialRow | None, dimensions: Sequence[Dimension]) -> dict[str, Any] | None:
    """A best trial as ``study.json`` shows it."""
    if row is None:
        return None
    return {
        "trial": row.trial,
        "depth": row.depth,
        "value": row.value,
        "values": dict(row.values),
        "overrides": overrides(row.values),
        "runs": list(row.runs),
        "edges": edges(dimensions, row.values),
    }


def _budget(arm: Arm, rows: Sequence[TrialRow], several: bool) -> dict[str, Any]:
    """What a depth was given and what it used; epochs are not counted where a curve goes fold by fold."""
    own = [row for row in rows if row.depth == arm.name]
    counts = {state: sum(row.state == state for row in own) for state in ("complete", "pruned", "failed")}
    return {
        "trials": arm.trials,
        **counts,
        "taken_up_again": sum(row.attempts - 1 for row in own),
        "epochs": None if several else sum(len(row.curve) for row in own),
        "seconds": round(sum(row.seconds or 0.0 for row in own), 1),
    }


def summarise(
    plan: Plan,
    rows: Sequence[TrialRow],
    facts: Sequence[Mapping[str, Any]],
    importances: Mapping[str, Any],
    final: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The content of ``study.json``: protocol, search, budget by depth, the best settings and their edges, the final score.

    Args:
        facts: what each fold's split is (see ``study.prepare``).
        importances: by depth.
        final: what the test part said of the best setting, None where it was left unread.
    """
    config = plan.config
    by_depth = {}
    for arm in plan.arms:
        best = best_row([row for row in rows if row.depth == arm.name], plan.minimise)
        by_depth[arm.name] = {
            "budget": _budget(arm, rows, len(plan.folds) > 1),
            "best": setting(best, arm.dimensions),
        }
    best = best_row(rows, plan.minimise)
    dimensions = next((arm.dimensions for arm in plan.arms if best and arm.name == best.depth), ())
    done = sum(row.state in ("complete", "pruned") for row in rows)
    asked = sum(arm.trials for arm in plan.arms)
    return {
        "schema": 1,
        "name": plan.folder.name,
        "state": "finished" if done >= asked else "stopped",
        "protocol": {
            "nested": len(plan.folds) == 1,
            "warning": None if len(plan.folds) == 1 else OPTIMISTIC,
            "folds": list(facts),
            "monitor": config.monitor,
            "direction": "minimise" if plan.minimise else "maximise",
            "epoch": config.scored_weights,
            "test_read": sum(run["test_read"] for run in final["runs"]) if final else 0,
        },
        "search": {
            "space": [dimension.as_dict() for arm in plan.arms[:1] for dimension in arm.dimensions],
            "depths": [arm.name for arm in plan.arms],
            "sampler": config.tune.sampler,
            "random_trials": config.tune.random_trials,
            "pruner": config.tune.pruner,
            "pruner_trials": config.tune.pruner_trials,
            "warmup_epochs": plan.warmup_epochs,
            "epochs": config.epochs,
            "seed": config.seed,
        },
        "counts": {
            "trials": asked,
            **{state: sum(row.state == state for row in rows) for state in ("complete", "pruned", "failed")},
            "taken_up_again": sum(row.attempts - 1 for row in rows),
        },
        "best": setting(best, dimensions),
        "by_depth": by_depth,
        "importances": dict(importances),
        "final": final,
        "identity": dict(plan.identity),
        "versions": versions(),
    }


def write_tables(folder: Path, rows: Sequence[TrialRow], study: Mapping[str, Any]) -> None:
    """``study.json``, ``trials.csv`` (a row a trial) and ``curves.csv`` (a row a trial and epoch), each whole or not at all."""
    keys = sorted({key for row in rows for key in row.values})
    head = ["trial", "depth", "state", "value", "epochs", "attempts", "seconds", "runs", *keys, "error"]
    lines = [
        [
            str(row.trial),
            row.depth,
            row.state,
            *(_cell(value) for value in (row.value, len(row.curve), row.attempts, row.seconds)),
            " ".join(row.runs),
            *(_cell(row.values.get(key)) for key in keys),
            quote_cell(row.error),
        ]
        for row in rows
    ]
    write_atomic(folder / "trials.csv", _csv([head, *lines]))
    curves = [
        [str(row.trial), str(epoch), repr(value)] for row in rows for epoch, value in enumerate(row.curve)
    ]
    write_atomic(folder / "curves.csv", _csv([["trial", "epoch", "value"], *curves]))
    write_json(folder / "study.json", study)


def _cell(value: Scalar) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def _csv(lines: Sequence[Sequence[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    return buffer.getvalue()
