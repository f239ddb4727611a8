"""``compare``: any mix of runs in; a table, the statistics, pictures and a report out. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from histo_lightning.cell_decisions import decisions_of
from histo_lightning.cell_summaries import curves_of, summarise
from histo_lightning.cells import (
    Design,
    build_design,
    default_factor,
    environment_keys,
    level_name,
    natural,
    value_text,
)
from histo_lightning.config.checks import nearest
from histo_lightning.errors import UserError
from histo_lightning.families import worlds_of
from histo_lightning.family_results import compare_world
from histo_lightning.pooled_cells import PooledCell, pool_cell, split_score
from histo_lightning.report.comparison_page import write_results
from histo_lightning.results_table import results_csv
from histo_lightning.run_folders import STUDY, find_folders, is_run
from histo_lightning.run_reading import STATES, Run, defaults
from histo_lightning.runs import read_json, write_atomic
from histo_lightning.selecting import checked_selection, select_cells
from histo_lightning.sweep_plans import Plan, read_runs

Json = dict[str, Any]

REFERENCE = "resnet18"  # the protocol's: depths are compared against it
ONLY_DRAWN = ("curves", "decisions")  # long lists that the pictures need
NOT_COMPARED = ("split", "dataset", "task", "magnification", "seed")


def compare_runs(
    folders: Sequence[Path],
    out: Path,
    plan: Mapping[str, Any] | None = None,
    *,
    factor: str | None = None,
    reference: str | None = None,
    score: str | None = None,
    select: str | None = None,
) -> Json:
    """Compare every run at or below ``folders`` and write ``out/{results.csv,results.md,report.html,plots/*}``.

    Args:
        folders: run folders, sweep folders, or folders that hold them, at any depth.
        out: made where it is missing.
        plan: content of a ``sweep.json``; None: that of the sweep folders among ``folders``.
        factor: what is compared, a group (``model``) or a key (``optimizer.lr``); None: the plan's, else ``model`` where
            it differs, else the first setting that does.
        reference: a level of the factor; None: the plan's, else ``resnet18``, else the first.
        score: ``<level>_<score>``; None: the plan's, else ``case_auroc``.
        select: ``best``, a validation score or a run; see ``selecting.select_cells``.

    Returns:
        What the files say, as values that JSON can hold.

    Raises:
        UserError: no run, an unknown factor, reference or score, a selection by test scores, or ``out`` cannot be written.
    """
    if is_run(out):
        raise UserError(f"output_dir={out}: is a run folder, whose report would be lost; choose another")
    results, runs = analyse(folders, plan, factor=factor, reference=reference, score=score, select=select)
    write_atomic(out / "results.csv", results_csv(runs))
    write_results(out, results)
    return {key: value for key, value in results.items() if key not in ONLY_DRAWN}


def analyse(
    folders: Sequence[Path],
    plan: Mapping[str, Any] | None = None,
    *,
    factor: str | None = None,
    reference: str | None = None,
    score: str | None = None,
    select: str | None = None,
) -> tuple[Json, list[Run]]:
    """The results and the runs of ``compare_runs``, which see, without writing anything."""
    found = find_folders(folders)
    runs, plans = read_runs(found)
    if not runs:
        raise UserError(
            f"runs={', '.join(str(folder) for folder in folders)}: holds no run; give a run folder, a sweep folder or "
            "what holds them"
        )
    if plan is not None:
        first = min((run.started for run in runs if run.started), default="")
        plans = [Plan(None, plan, first)]
    asked = _asked(runs, plans)
    score = score or str(asked.get("score") or "case_auroc")
    split_score(score)
    if select is not None:
        checked_selection(select, score, runs)  # refused before any work
    factor = _factor(factor, asked.get("factor"), runs)
    design = build_design(runs, factor)
    reference = _reference(reference, asked, design)
    results = _results(design, runs, plans, reference, score)
    results["tuning"] = [_about_study(folder, read_json(folder / STUDY)) for folder in found.studies]
    results["selection"] = None if select is None else select_cells(design, select, score, runs)
    return results, runs


def _asked(runs: Sequence[Run], plans: Sequence[Plan]) -> Mapping[str, Any]:
    """The comparison that the plans ask for, where they agree; else what all runs' configs say under ``study``."""
    comparisons = [plan.comparison for plan in plans if plan.comparison]
    if comparisons:
        alike = all(
            one.get(key) == comparisons[0].get(key) for one in comparisons for key in ("factor", "reference")
        )
        return comparisons[0] if alike else {}
    studies = [
        {key: run.config.get(f"study.{key}") for key in ("factor", "reference", "score")}
        for run in runs
        if run.config
    ]
    return studies[0] if studies and all(study == studies[0] for study in studies) else {}


def _factor(wanted: str | None, planned: Any, runs: Sequence[Run]) -> str:
    """Check the factor; where nobody asked for one, or only for ``model`` by default, find what differs."""
    found = default_factor(runs)
    if wanted is None and planned in (None, "", "model"):
        return found
    factor = str(wanted or planned)
    known = {key for run in runs for key in run.config} | set(defaults())
    groups = {key.split(".")[0] for key in known if "." in key}
    if factor.split(".")[0] in NOT_COMPARED:
        raise UserError(
            f"factor={factor}: runs of different splits, data, tasks or magnifications are never compared in one family; "
            "give a setting such as model or optimizer"
        )
    if factor not in known | groups:
        raise UserError(f"factor={factor}: no such setting{nearest(factor, sorted(known | groups))}")
    return factor


def _reference(wanted: str | None, asked: Mapping[str, Any], design: Design) -> str:
    levels = design.levels()
    factor = design.factor
    named = None if wanted is None else level_name(factor, wanted)
    if wanted is not None and named not in levels:
        values = [level.rpartition("=")[2] if factor in defaults() else level for level in levels]
        raise UserError(
            f"reference={wanted}: is not among the levels of {factor}: {', '.join(values)}{nearest(wanted, values)}"
        )
    planned = level_name(factor, str(asked.get("reference") or "")) if asked.get("factor") == factor else ""
    candidates = (named, planned, REFERENCE)
    return next((name for name in candidates if name and name in levels), levels[0] if levels else "")


def _results(design: Design, runs: Sequence[Run], plans: Sequence[Plan], reference: str, score: str) -> Json:
    pooled = [pool_cell(cell) for cell in design.cells]
    curves = {id(run): curves_of(run) for run in runs if run.finished}
    families: list[Json] = []
    refusals: list[Json] = []
    warnings = _unlike(runs, design.factor)
    for world in worlds_of(design.cells):
        found, refused, told = compare_world(design, pooled, world, reference, score)
        families += found
        refusals.append({"world": world, "reasons": refused})
        warnings += [text for text in told if text not in warnings]
    about = [_about_plan(plan, design.factor, reference, score) for plan in plans]
    planned = {str(job.get("run")) for plan in plans for job in plan.content.get("jobs") or []}
    planned |= {run.name for run in runs if run.overrides}
    _mark(families, about, planned, worlds_of(design.cells))
    reads = [int(run.status.get("test_read") or 0) for run in runs]
    states = {state: sum(run.state == state for run in runs) for state in STATES}
    return {
        "schema": 1,
        "factor": design.factor,
        "reference": reference,
        "score": score,
        "levels": sorted(design.levels(), key=natural),
        "held": {key: list(values) for key, values in design.held.items()},
        "runs": {"found": len(runs)} | states,
        "worlds": worlds_of(design.cells),
        "plans": about,
        "warnings": warnings,
        "notes": [note for found in pooled for note in found.notes],
        "cells": [summarise(found, score, curves) for found in pooled],
        "families": families,
        "refusals": [refusal for refusal in refusals if refusal["reasons"]],
        "unfinished": [_row(run) for run in runs if not run.finished],
        "test_read": {"times": sum(reads), "most": max(reads)},
        "environment": _environment(runs),
        "curves": _curves(pooled, curves),
        "decisions": [about for about in map(decisions_of, pooled) if about is not None],
    }


def _row(run: Run) -> Json:
    return {
        "run": run.name,
        "state": run.state,
        "error": run.error,
        "folder": None if run.folder is None else str(run.folder),
    }


def _curves(pooled: Sequence[PooledCell], curves: Mapping[int, Mapping[str, list[float]]]) -> list[Json]:
    found = []
    for one in pooled:
        for run in one.cell.all_runs:
            if curves.get(id(run)):
                place = {"arm": str(one.cell.arm), "magnification": one.cell.magnification}
                found.append(place | {"world": one.cell.world, "run": run.name} | dict(curves[id(run)]))
    return found


def _about_plan(plan: Plan, factor: str, reference: str, score: str) -> Json:
    """A plan, and why the comparison made here is not the one that it fixed, if so."""
    asked = plan.comparison
    reasons = [
        f"it fixed {key}={asked.get(key)}, here {key}={given}"
        for key, given in (("factor", factor), ("reference", reference), ("score", score))
        if asked.get(key) not in (None, given)
    ]
    if not asked:
        reasons.append("it names no comparison")
    if plan.came_first is False:
        reasons.append("it was written after the first run had started")
    if not plan.untouched:
        reasons.append("its content does not have the hash that it was written with")
    return {
        "folder": None if plan.folder is None else str(plan.folder),
        "hash": plan.hash,
        "created": plan.content.get("created"),
        "first_start": plan.first_start or None,
        "came_first": plan.came_first,
        "untouched": plan.untouched,
        "earlier": [dict(one) for one in plan.content.get("earlier") or []],
        "jobs": len(plan.content.get("jobs") or []),
        "comparison": dict(asked),
        "not_this": reasons,
    }


def _about_study(folder: Path, study: Mapping[str, Any]) -> Json:
    """A hyper-parameter search: its budget by depth, and where its best settings lie in their ranges."""
    depths = study.get("by_depth") if isinstance(study.get("by_depth"), dict) else {}
    return {
        "folder": str(folder),
        "warning": (study.get("protocol") or {}).get("warning"),
        "depths": [
            {
                "depth": depth,
                **{
                    key: (about.get("budget") or {}).get(key)
                    for key in ("trials", "complete", "pruned", "failed", "epochs")
                },
                "value": (about.get("best") or {}).get("value"),
                "edges": [
                    f"{edge['key']}={edge['value']} ({edge['edge']})"
                    for edge in (about.get("best") or {}).get("edges") or []
                    if edge.get("edge")
                ],
            }
            for depth, about in (depths or {}).items()
        ],
    }


def _mark(families: Sequence[Json], plans: Sequence[Json], planned: set[str], worlds: Sequence[str]) -> None:
    """Only one family is primary: the main one of the first world, as one plan fixed it before the first job.

    ``planned`` are the names of the plans' runs.
    """
    for family in families:
        why = [reason for plan in plans for reason in plan["not_this"]]
        if not plans:
            why = ["no plan was written before the first job"]
        elif len(plans) > 1:
            why.append(f"it joins the runs of {len(plans)} plans")
        elif outside := [name for name in family["runs"] if name not in planned]:
            why.append(f"{len(outside)} of its runs are no jobs of the plan")
        levels = [str(level) for plan in plans for level in plan["comparison"].get("levels") or []]
        absent = [level for level in dict.fromkeys(levels) if level not in family["comparison"]["arms"]]
        absent += [level for level in family["missing"] if level not in absent]
        if family["world"] != worlds[0] or not family["main"]:
            why = ["it stands beside the primary family"]
        elif not family["whole"]:
            why.append("replicates of it are incomplete")
        elif absent:
            why.append(f"{', '.join(absent)} is missing")
        family["primary"], family["exploratory_because"] = not why, why


def _unlike(runs: Sequence[Run], factor: str) -> list[str]:
    """Warnings about the trainers of the runs, which no cell holds equal."""
    configs = [run.config for run in runs if run.config]
    return [
        f"the runs differ in {key}: " + ", ".join(sorted({value_text(config.get(key)) for config in configs}))
        for key in environment_keys(configs, factor)
    ]


def _environment(runs: Sequence[Run]) -> dict[str, dict[str, int]]:
    """Versions, device and commit: name to how many runs say which value; only what differs has several."""
    found: dict[str, dict[str, int]] = {}
    for run in runs:
        facts = dict(run.status.get("versions") or {})
        facts |= {"git commit": run.status.get("git_commit") or "not in a checkout"} if run.status else {}
        device = (run.metrics.get("cost") or {}).get("device")
        facts |= {"device": device} if device else {}
        for name, value in facts.items():
            count = found.setdefault(str(name), {})
            count[str(value)] = count.get(str(value), 0) + 1
    return found
