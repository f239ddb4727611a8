"""``compare``: any mix of runs in; a table, the statistics, pictures and a report out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from histo_lightning.comparison.families import compare_protocol
from histo_lightning.comparison.folders import STUDY, find_folders, is_run
from histo_lightning.comparison.names import defaults, level_name, natural, value_text
from histo_lightning.comparison.plans import mark_families
from histo_lightning.comparison.pooling import pool_runs
from histo_lightning.comparison.reading import FINISHED, SHORTENED, STATES, read_runs
from histo_lightning.comparison.results_csv import results_csv
from histo_lightning.comparison.selection import checked_selection, select_cells
from histo_lightning.comparison.settings import (
    ENVIRONMENT,
    SYNTHETIC,
    default_factor,
    is_of,
    is_synthetic,
    place_runs,
    settings_of,
    varying,
)
from histo_lightning.comparison.summaries import curve_records, curves_of, decisions_of, summarise
from histo_lightning.config.checks import nearest
from histo_lightning.errors import UserError
from histo_lightning.evaluation.registry import named_score
from histo_lightning.report.comparison_page import write_results
from histo_lightning.runs import read_json, write_atomic

Json = dict[str, Any]

REFERENCE = "resnet18"  # the protocol's: depths are compared against it
ONLY_DRAWN = ("curves", "decisions")  # long lists that the pictures need
NOT_COMPARED = ("split", "dataset", "task", "magnification", "seed")


def compare_runs(
    folders: Sequence[Path],
    out: Path,
    *,
    factor: str | None = None,
    reference: str | None = None,
    score: str | None = None,
    select: str | None = None,
    formats: Sequence[str] = ("png",),
) -> Json:
    """Compare every run at or below ``folders`` and write ``out/{results.csv,results.md,report.html,plots/*}``.

    Args:
        folders: run folders, sweep folders, or folders that hold them, at any depth.
        out: made where it is missing.
        factor: what is compared, a group (``model``) or a key (``optimizer.lr``); None: the plan's, else ``model`` where
            it differs, else the first setting that does.
        reference: a level of the factor; None: the plan's, else ``resnet18``, else the first.
        score: ``<level>_<score>``; None: the plan's, else ``case_auroc``.
        select: ``best``, a validation score or a run; see ``selection.select_cells``.
        formats: of the pictures.

    Returns:
        What the files say, as values that JSON can hold.

    Raises:
        UserError: no run, an unknown factor, reference or score, a selection by test scores, or ``out`` cannot be written.
    """
    if is_run(out):
        raise UserError(f"output_dir={out}: is a run folder, whose report would be lost; choose another")
    results, runs = analyse(folders, factor, reference, score, select)
    write_atomic(out / "results.csv", results_csv(runs))
    write_results(out, results, formats)
    return {key: value for key, value in results.items() if key not in ONLY_DRAWN}


def analyse(
    folders: Sequence[Path],
    factor: str | None = None,
    reference: str | None = None,
    score: str | None = None,
    select: str | None = None,
) -> tuple[Json, pd.DataFrame]:
    """The results and the runs (see ``reading``) of ``compare_runs``, without writing anything."""
    found = find_folders(folders)
    runs, plans = read_runs(found)
    if runs.empty:
        raise UserError(
            f"runs={', '.join(str(folder) for folder in folders)}: holds no run; give a run folder, a sweep folder or "
            "what holds them"
        )
    settings = settings_of(runs)
    asked = _planned_comparison(plans, settings)
    score = score or str(asked.get("score") or "case_auroc")
    named_score(score)
    if select is not None:
        checked_selection(select, score, runs["run"].tolist())  # refused before any work
    factor = _factor(factor, asked.get("factor"), settings)
    placed, held = place_runs(runs, factor)
    planned = str(asked.get("reference") or "") if asked.get("factor") == factor else ""
    reference = _reference(reference, planned, factor, list(dict.fromkeys(placed["level"])))
    results = _results(runs, placed, held, plans, factor, reference, score)
    results["tuning"] = [_study(folder, read_json(folder / STUDY)) for folder in found.studies]
    results["selection"] = None if select is None else select_cells(placed, runs, select, score)
    return results, runs


def _planned_comparison(plans: Sequence[Json], settings: pd.DataFrame) -> Json:
    """The comparison that the plans ask for, where they agree; else what all runs' configs say under ``study``."""
    planned = [plan["comparison"] for plan in plans if plan["comparison"]]
    keys = ["factor", "reference", "score"]
    studies = settings[[f"study.{key}" for key in keys]].to_numpy().tolist()
    asked = planned or [dict(zip(keys, study, strict=True)) for study in studies]
    alike = all(one.get(key) == asked[0].get(key) for one in asked for key in keys[: 2 if planned else 3])
    return dict(asked[0]) if asked and alike else {}


def _factor(wanted: str | None, planned: Any, settings: pd.DataFrame) -> str:
    """Check the factor; where nobody asked for one, or only for ``model`` by default, find what differs."""
    if wanted is None and planned in (None, "", "model"):
        return default_factor(settings)
    factor = str(wanted or planned)
    keys = {*settings.columns, *defaults()}
    known = keys | {key.split(".")[0] for key in keys if "." in key}
    if factor.split(".")[0] in NOT_COMPARED:
        raise UserError(
            f"factor={factor}: runs of different splits, data, tasks or magnifications are never compared in one family; "
            "give a setting such as model or optimizer"
        )
    if factor not in known:
        raise UserError(f"factor={factor}: no such setting{nearest(factor, sorted(known))}")
    return factor


def _reference(wanted: str | None, planned: str, factor: str, levels: Sequence[str]) -> str:
    named = None if wanted is None else level_name(factor, wanted)
    if wanted is not None and named not in levels:
        values = [level.rpartition("=")[2] if factor in defaults() else level for level in levels]
        raise UserError(
            f"reference={wanted}: is not among the levels of {factor}: {', '.join(values)}{nearest(wanted, values)}"
        )
    candidates = (named, level_name(factor, planned), REFERENCE, *levels)
    return next((name for name in candidates if name and name in levels), "")


def _results(
    runs: pd.DataFrame,
    placed: pd.DataFrame,
    held: Mapping[str, Sequence[str]],
    plans: Sequence[Json],
    factor: str,
    reference: str,
    score: str,
) -> Json:
    pools, notes = pool_runs(placed)
    curves = curves_of(placed)
    families: list[Json] = []
    refusals: list[Json] = []
    warnings = _warnings(runs, factor)
    finished = (placed["state"] == FINISHED).groupby(placed["protocol"]).sum()
    protocols = sorted(finished.index, key=lambda protocol: (-finished[protocol], protocol))
    for protocol in protocols:
        own = placed[placed["protocol"] == protocol], pools[pools.index.get_level_values(0) == protocol]
        found, reasons, cautions = compare_protocol(*own, factor, held, reference, score)
        families += [{"world": protocol} | family for family in found]
        refusals += [{"world": protocol, "reasons": reasons}] if reasons else []
        warnings += [text for text in cautions if text not in warnings]
    planned = set(runs.loc[runs["overrides"].map(bool), "run"])
    reads = [int(status.get("test_read") or 0) for status in runs["status"]]
    unfinished = runs.loc[runs["state"] != FINISHED, ["run", "state", "error", "folder"]]
    results = {
        "schema": 1,
        "data": SYNTHETIC if any(is_synthetic(run) for _, run in placed.iterrows()) else None,
        "factor": factor,
        "reference": reference,
        "score": score,
        "levels": sorted(set(placed["level"]), key=natural),
        "held": held,
        "runs": {"found": len(runs)} | {state: int((runs["state"] == state).sum()) for state in STATES},
        "worlds": protocols,
        "plans": list(plans),
        "warnings": warnings,
        "notes": notes,
        "cells": summarise(placed, pools, score, curves),
        "families": families,
        "refusals": refusals,
        "unfinished": [
            row | {"folder": row["folder"] and str(row["folder"])} for row in unfinished.to_dict("records")
        ],
        "test_read": {"times": sum(reads), "most": max(reads)},
        "environment": _environment(runs),
        "curves": curve_records(placed, curves),
        "decisions": decisions_of(pools),
    }
    mark_families(families, plans, planned, results)
    return results


def _warnings(runs: pd.DataFrame, factor: str) -> list[str]:
    """Runs that are left out because they were shortened, and trainers that differ, which no cell holds equal."""
    shortened = runs.loc[runs["state"] == SHORTENED, ["run", "error"]].to_numpy().tolist()
    names = "; ".join(f"{run} ({why})" for run, why in shortened)
    warnings = [f"shortened runs are never pooled or compared, left out: {names}"] if names else []
    settings = settings_of(runs)
    differing = [key for key in varying(settings) if key.startswith(ENVIRONMENT) and not is_of(key, factor)]
    values = {key: ", ".join(sorted(set(settings[key].map(value_text)))) for key in differing}
    return warnings + [f"the runs differ in {key}: {found}" for key, found in values.items()]


def _environment(runs: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Versions, device and commit: name to how many runs say which value; only what differs has several."""
    counts: dict[str, dict[str, int]] = {}
    for status, metrics in zip(runs["status"], runs["metrics"], strict=True):
        facts = dict(status.get("versions") or {}) | {"device": (metrics.get("cost") or {}).get("device")}
        facts["git commit"] = (status.get("git_commit") or "not in a checkout") if status else None
        for name, value in facts.items():
            if value is not None:
                count = counts.setdefault(str(name), {})
                count[str(value)] = count.get(str(value), 0) + 1
    return counts


def _study(folder: Path, study: Mapping[str, Any]) -> Json:
    """A hyper-parameter search: its budget by depth, and where its best settings lie in their ranges."""
    budget = ("trials", "complete", "pruned", "failed", "epochs")
    depths = study.get("by_depth")
    records = []
    for depth, about in (depths if isinstance(depths, dict) else {}).items():
        record = {"depth": depth} | {key: (about.get("budget") or {}).get(key) for key in budget}
        best = about.get("best") or {}
        edges = [
            f"{one['key']}={one['value']} ({one['edge']})"
            for one in best.get("edges") or []
            if one.get("edge")
        ]
        records.append(record | {"value": best.get("value"), "edges": edges})
    return {"folder": str(folder), "warning": (study.get("protocol") or {}).get("warning"), "depths": records}
