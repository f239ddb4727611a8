"""What a study found: ``study.json``, ``trials.csv`` and ``curves.csv``, from Optuna's records."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas
from optuna.trial import TrialState

from histo_lightning.evaluation.table_csv import quote_cell
from histo_lightning.runs import versions, write_atomic, write_json
from histo_lightning.tuning.search import Studies, numbered
from histo_lightning.tuning.space import Search, attributes, edge, overrides

OPTIMISTIC = "selected on the same cases that are scored: optimistic"
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
Row = Mapping[str, Any]


def trial_rows(studies: Studies) -> list[Row]:
    """A row a trial, by depth: of several attempts the last; ``curve`` holds the monitored value of each epoch (or fold)."""
    plan, rows = studies.plan, list[Row]()
    for search in plan.searches:
        for number, attempts in enumerate(numbered(studies.trials(search))):
            last, name = attempts[-1], plan.run_name(search, number)
            seconds = sum(one.duration.total_seconds() for one in attempts if one.duration is not None)
            died = f"its process died {len(attempts)} times" if last.state == TrialState.FAIL else ""
            row = {
                "trial": number,
                "depth": search.name,
                "state": STATES.get(last.state, "running"),
                "value": last.value if last.state == TrialState.COMPLETE else None,
                "attempts": len(attempts),
                "seconds": round(seconds, 3),
                "runs": sorted(path.name for path in (plan.folder / "trials").glob(f"{name}_*")),
                "values": {**search.fixed, **last.params},
                "curve": [value for _, value in sorted(last.intermediate_values.items())],
                "error": str(last.user_attrs.get("error", died)),
            }
            rows.append(row)
    return rows


def best_row(rows: Sequence[Row], minimise: bool) -> Row | None:
    """The completed trial with the best value, the first of equals; None where none was completed."""
    complete = [row for row in rows if row["state"] == "complete"]
    return min(complete, key=lambda row: row["value"] if minimise else -row["value"], default=None)


def summarise(
    studies: Studies, rows: Sequence[Row], facts: Sequence[Row], final: Row | None
) -> dict[str, Any]:
    """The content of ``study.json``: protocol, search, budget and best setting by depth, test scores.

    Args:
        facts: what each fold's split is (see ``study.prepare``).
        final: the scores of the best setting on the test set, None where it was left unread.
    """
    plan, config, several = studies.plan, studies.plan.config, len(studies.plan.folds) > 1
    space = {key: attributes(d) for key, d in plan.searches[0].space.items()}
    by_depth = {}
    for search in plan.searches:
        own = [row for row in rows if row["depth"] == search.name]
        epochs = None if several else sum(len(row["curve"]) for row in own)
        budget = _counts(own, search.trials) | {
            "epochs": epochs,
            "seconds": sum(row["seconds"] for row in own),
        }
        by_depth[search.name] = {"budget": budget, "best": _setting(best_row(own, plan.minimise), search)}
    best = best_row(rows, plan.minimise)
    return {
        "schema": 2,
        "name": plan.folder.name,
        "data": "synthetic" if config.dataset.name == "synthetic" else "real",
        "state": "finished" if studies.done() >= config.tune.trials else "stopped",
        "protocol": {
            "nested": not several,
            "warning": OPTIMISTIC if several else None,
            "folds": list(facts),
            "monitor": config.monitor,
            "direction": "minimise" if plan.minimise else "maximise",
            "epoch": config.scored_weights,
            "test_read": sum(run["test_read"] for run in final["runs"]) if final else 0,
        },
        "search": asdict(config.tune)
        | {"space": space, "warmup_epochs": plan.warmup_epochs, "epochs": config.epochs, "seed": config.seed},
        "counts": _counts(rows, config.tune.trials),
        "best": by_depth[best["depth"]]["best"] if best else None,
        "by_depth": by_depth,
        "final": final,
        "identity": studies.identity,
        "versions": versions(),
    }


def _counts(rows: Sequence[Row], trials: int) -> dict[str, int]:
    states = Counter(row["state"] for row in rows)
    counts = {state: states[state] for state in STATES.values()}
    return {"trials": trials, **counts, "taken_up_again": sum(row["attempts"] - 1 for row in rows)}


def _setting(row: Row | None, search: Search) -> dict[str, Any] | None:
    """A best trial with where its values lie; ``edge`` is ``low`` or ``high`` where a range may have been too narrow."""
    if row is None:
        return None
    values = row["values"]
    edges = [
        {"key": key, "value": values[key], "edge": edge(d, values[key])} for key, d in search.space.items()
    ]
    kept = {key: row[key] for key in ("trial", "depth", "value", "values", "runs")}
    return kept | {"overrides": overrides(values), "edges": edges}


def write_tables(folder: Path, rows: Sequence[Row], study: Row) -> None:
    """``study.json``, ``trials.csv`` (a row a trial) and ``curves.csv`` (a row a trial and epoch), each whole or not at all."""
    names = ("trial", "depth", "state", "value", "attempts", "seconds")
    trials = [
        {name: row[name] for name in names}
        | {"epochs": len(row["curve"]), "runs": " ".join(row["runs"])}
        | {**row["values"], "error": quote_cell(row["error"])}
        for row in rows
    ]
    curves = [
        {"trial": row["trial"], "depth": row["depth"], "epoch": epoch, "value": value}
        for row in rows
        for epoch, value in enumerate(row["curve"])
    ]
    for name, lines in (("trials", trials), ("curves", curves)):
        write_atomic(folder / f"{name}.csv", pandas.DataFrame(lines).to_csv(index=False))
    write_json(folder / "study.json", study)
