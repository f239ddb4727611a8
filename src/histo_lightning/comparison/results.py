"""``compare``: any mix of runs in; a table, the statistics, pictures and a report out."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from histo_lightning.comparison import reading, settings
from histo_lightning.comparison.cells import NAMES, decisions_of, pool_runs, summarise
from histo_lightning.comparison.families import compare_protocol, mark_families, plan_record
from histo_lightning.comparison.folders import STUDY, is_run
from histo_lightning.comparison.selection import checked_selection, select_cells
from histo_lightning.config.checks import nearest
from histo_lightning.errors import UserError
from histo_lightning.evaluation.registry import named_score
from histo_lightning.evaluation.table import Json
from histo_lightning.report.comparison_page import write_results
from histo_lightning.runs import read_json, write_csv

REFERENCE = "resnet18"  # the protocol's: depths are compared against it
ONLY_DRAWN = ("curves", "decisions")  # long lists that the pictures need
NOT_COMPARED = ("split", "dataset", "task", "magnification", "seed")
FIRST = {"model.name": "model", "optimizer.name": "optimizer", "magnification": "magnification",
         "split.name": "split", "split.fold": "fold", "seed": "seed"}  # fmt: skip


def compare_runs(
    folders: Sequence[Path], out: Path, *, formats: Sequence[str] = ("png",), **asked: str | None
) -> Json:
    """Compare every run at or below ``folders`` and write ``out/{results.csv,results.md,report.html,plots/*}``.

    ``formats`` are those of the pictures, ``asked`` the other arguments of :func:`analyse`.
    """
    if is_run(out):
        raise UserError(f"output_dir={out}: is a run folder, whose report would be lost; choose another")
    results, runs = analyse(folders, **asked)
    table = results_table(runs)
    rows = table.itertuples(index=False, name=None)
    write_csv(out / "results.csv", [table.columns, *(map(_cell, row) for row in rows)])
    write_results(out, results, formats)
    return {key: value for key, value in results.items() if key not in ONLY_DRAWN}


def analyse(
    folders: Sequence[Path],
    factor: str | None = None,
    reference: str | None = None,
    score: str | None = None,
    select: str | None = None,
    standard_error: str | None = None,
) -> tuple[Json, pd.DataFrame]:
    """The results of a comparison, ready for JSON, and the table of its runs (see ``reading``); nothing is written.

    Args: None means what the plan says, else for the default.
        factor: a group (``model``, the default where it differs, else the first setting that does) or a key.
        reference: a level of the factor, ``resnet18`` or the first; score: ``<level>_<score>``, ``case_auroc``.
        standard_error: of differences, ``jackknife`` or ``pairs`` (see ``compare_levels``).
        select: ``best``, a validation score or a run; see ``selection.select_cells``.

    UserError: no run, a damaged file, an unknown factor, reference or score, or a selection by test scores.
    """
    runs, sweeps, studies = reading.read_runs(folders)
    plans = [plan_record(*sweep) for sweep in sweeps]
    if runs.empty:
        nothing = "holds no run; give a run folder, a sweep folder or what holds them"
        raise UserError(f"runs={', '.join(map(str, folders))}: {nothing}")
    configs = settings.settings_of(runs)
    planned = _planned_comparison(plans, configs)
    score = score or str(planned.get("score") or "case_auroc")
    named_score(score)
    if select is not None:
        checked_selection(select, score, runs["run"].tolist())  # refused before any work
    factor = _factor(factor, planned.get("factor"), configs)
    described, held = settings.describe_runs(runs, factor)
    named = str(planned.get("reference") or "") if planned.get("factor") == factor else ""
    reference = _reference(reference, named, factor, list(dict.fromkeys(described["level"])))
    pools, notes = pool_runs(described)
    cells, pooled = (rows.groupby(settings.CELL, sort=False) for rows in (described, pools))
    states, drawn = runs["state"].tolist(), any(settings.is_synthetic(run) for _, run in described.iterrows())
    columns = ["title", "magnification", "protocol", "run", *reading.LOSSES]
    curves = described.loc[described["train_loss"].notna(), columns].rename(columns=NAMES)
    results: Json = {"schema": 1, "data": settings.SYNTHETIC if drawn else None, "factor": factor}
    results |= {"reference": reference, "score": score}
    results["standard_error"] = standard_error or str(planned.get("standard_error") or "jackknife")
    results |= {"levels": sorted(set(described["level"]), key=settings.natural), "held": held}
    results["runs"] = {"found": len(runs)} | {state: states.count(state) for state in reading.STATES}
    results |= {"worlds": [], "plans": plans, "warnings": _warnings(runs, factor), "notes": notes}
    results["cells"] = [summarise(own, pooled.get_group(cell), score) for cell, own in cells]
    results |= {"families": [], "refusals": []}
    finished = (described["state"] == reading.FINISHED).groupby(described["protocol"]).sum()
    for protocol in sorted(finished.index, key=lambda protocol: (-finished[protocol], protocol)):
        results["worlds"].append(protocol)
        own, own_pools = (rows[rows["protocol"] == protocol] for rows in (described, pools))
        families, reasons, warnings = compare_protocol(own, own_pools, results)
        results["families"] += [{"world": protocol} | family for family in families]
        results["refusals"] += [{"world": protocol, "reasons": reasons}] if reasons else []
        results["warnings"] += [text for text in warnings if text not in results["warnings"]]
    mark_families(results["families"], plans, set(runs.loc[runs["planned"].map(bool), "run"]), results)
    about = ["run", "state", "error", "folder"]
    unfinished = runs.loc[runs["state"] != reading.FINISHED, about].to_dict("records")
    reads = [int(status.get("test_read") or 0) for status in runs["status"]]
    return results | {
        "unfinished": [row | {"folder": row["folder"] and str(row["folder"])} for row in unfinished],
        "test_read": {"times": sum(reads), "most": max(reads)},
        "environment": _environment(runs),
        "curves": curves.to_dict("records"),
        "decisions": decisions_of(pools),
        "tuning": [_study(folder, read_json(folder / STUDY)) for folder in studies],
        "selection": None if select is None else select_cells(described, runs, select, score),
    }, runs


def _planned_comparison(plans: Sequence[Json], configs: pd.DataFrame) -> Json:
    """The comparison that the plans ask for, where they agree; else what all runs' configs say under ``study``."""
    keys = ["factor", "reference", "score"]
    asked: Any = [plan["comparison"] for plan in plans if plan["comparison"]]
    alike = keys[:2] if asked else keys
    asked = asked or configs[[f"study.{key}" for key in keys]].set_axis(keys, axis=1).to_dict("records")
    same = len({tuple(str(one.get(key)) for key in alike) for one in asked}) == 1
    return dict(asked[0]) if same else {}


def _factor(wanted: str | None, planned: Any, configs: pd.DataFrame) -> str:
    """Check the factor; where nobody asked for one, or only for ``model`` by default, find what differs."""
    if wanted is None and planned in (None, "", "model"):
        return settings.default_factor(configs)
    factor = str(wanted or planned)
    if factor.split(".")[0] in NOT_COMPARED:
        raise UserError(
            f"factor={factor}: runs of different splits, data, tasks or magnifications are never compared in one family; "
            "give a setting such as model or optimizer"
        )
    keys = {*configs.columns, *reading.defaults()}
    known = keys | {key.split(".")[0] for key in keys if "." in key}
    if factor not in known:
        raise UserError(f"factor={factor}: no such setting{nearest(factor, sorted(known))}")
    return factor


def _reference(wanted: str | None, planned: str, factor: str, levels: Sequence[str]) -> str:
    named = None if wanted is None else settings.level_name(factor, wanted)
    if wanted is not None and named not in levels:
        values = [level.rpartition("=")[2] if factor in reading.defaults() else level for level in levels]
        raise UserError(
            f"reference={wanted}: is not among the levels of {factor}: {', '.join(values)}{nearest(wanted, values)}"
        )
    candidates = (named or "", settings.level_name(factor, planned), REFERENCE, *levels)
    return next((name for name in candidates if name in levels), "")


def _warnings(runs: pd.DataFrame, factor: str) -> list[str]:
    """Runs that are left out because they were shortened, and trainers that differ, which no cell holds equal."""
    shortened = runs.loc[runs["state"] == reading.SHORTENED, ["run", "error"]].to_numpy().tolist()
    names = "; ".join(f"{run} ({why})" for run, why in shortened)
    configs = settings.settings_of(runs)
    warnings = [f"shortened runs are never pooled or compared, left out: {names}"] if names else []
    for key in settings.varying(configs):
        if key.startswith(settings.ENVIRONMENT) and not settings.is_of(key, factor):
            values = sorted(set(configs[key].map(settings.value_text)))
            warnings.append(f"the runs differ in {key}: {', '.join(values)}")
    return warnings


def _environment(runs: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Versions, device and commit: name to how many runs say which value; only what differs has several."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for status, metrics in zip(runs["status"], runs["metrics"], strict=True):
        facts = dict(status.get("versions") or {}) | {"device": (metrics.get("cost") or {}).get("device")}
        facts["git commit"] = (status.get("git_commit") or "not in a checkout") if status else None
        for name, value in facts.items():
            if value is not None:
                counts[str(name)][str(value)] += 1
    return {name: dict(count) for name, count in counts.items()}


def _study(folder: Path, study: Mapping[str, Any]) -> Json:
    """A hyper-parameter search: its budget by depth, and where its best settings lie in their ranges."""
    records = []
    for depth, about in (study.get("by_depth") or {}).items():
        budget, best = about.get("budget") or {}, about.get("best") or {}
        record = {key: budget.get(key) for key in ("trials", "complete", "pruned", "failed", "epochs")}
        edges = [
            f"{at['key']}={at['value']} ({at['edge']})" for at in best.get("edges") or [] if at.get("edge")
        ]
        records.append({"depth": depth, **record, "value": best.get("value"), "edges": edges})
    return {"folder": str(folder), "warning": (study.get("protocol") or {}).get("warning"), "depths": records}


def results_table(runs: pd.DataFrame) -> pd.DataFrame:
    """The columns of ``results.csv``; NaN or None is an empty cell."""
    configs = settings.settings_of(runs)
    varied = [key for key in settings.REPETITION_KEYS if configs[key].map(settings.value_text).nunique() > 1]
    own = [key for key in [*varied, *settings.varying(configs)] if key not in FIRST]
    names = [f"{part}_{name}" for part in ("test", "val") for name in reading.SHOWN_SCORES]
    scores = [f"{name}{suffix}" for name in names for suffix in ("", "_low", "_high")]
    reads = pd.Series([status.get("test_read") for status in runs["status"]], runs.index, dtype=object)
    table = runs.drop(columns="split").rename(columns=FIRST).assign(test_read=reads)
    last = ["label", "test_read", "folder", "error"]
    return table[["run", "state", *FIRST.values(), *own, *reading.COSTS, *scores, *last]]


def _cell(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) >= 1e3:
        return int(value)  # counts of parameters, FLOPs and bytes
    return settings.value_text(value) if isinstance(value, bool) else value
