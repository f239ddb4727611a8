"""Families of comparisons: which levels are compared with which, and which family a sweep's plan fixed before its first job.

The main family of a protocol averages over the magnifications and all other settings that were crossed with the factor
(simultaneous intervals). An exploratory family for each of several settings accompanies it (Holm).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histo_lightning.comparison.settings import level_name, replicate_text, settings_of, value_text, varying
from histo_lightning.errors import UserError
from histo_lightning.evaluation.differences import compare_levels
from histo_lightning.evaluation.differences.methods import holm, number
from histo_lightning.evaluation.table import Json

PLANNED = ("factor", "reference", "score", "standard_error")
UNEQUAL = ["*"]  # settings that were never equal, and are compared all the same


def compare_protocol(
    described: pd.DataFrame, pools: pd.DataFrame, question: Json
) -> tuple[list[Json], list[str], list[str]]:
    """Compare every level of one protocol with the reference: ``question`` holds ``factor, reference, score, held``.

    Families, the main one first, then one for each other setting; why something is not compared; and warnings.
    """
    levels, reference = list(dict.fromkeys(described["level"])), question["reference"]
    settings, warnings = _shared_settings(described, question)
    if reference not in levels:
        return [], [f"no run of the reference {reference}; it holds {', '.join(levels)}"], warnings
    if len(levels) < 2:
        return [], [f"only {reference} was run, so there is nothing to compare it with"], warnings
    if not settings:
        return [], ["no level was run at the settings of the reference", *warnings], warnings
    families, refusals = list[Json](), list[str]()
    for own in [settings, *([[one] for one in settings] if len(settings) > 1 else [])]:
        try:
            family, reasons = _family(pools, question, own, main=own is settings)
            families, refusals = [*families, *family], [*refusals, *reasons]
        except UserError as error:
            refusals.append(str(error))
    pairs = [pair for family in families if not family["main"] for pair in family["comparison"]["pairs"]]
    for pair, p in zip(pairs, holm(np.array([pair["p"] for pair in pairs], np.float64)), strict=True):
        pair["p_holm_families"] = number(p)
    return families, list(dict.fromkeys(refusals)), warnings


def _shared_settings(described: pd.DataFrame, question: Json) -> tuple[list[str], list[str]]:
    """The settings of the reference and another level, ``UNEQUAL`` where none is; and warnings that name what differs."""
    cells = described.drop_duplicates(["level", "setting"])
    factor, is_reference = question["factor"], cells["level"] == question["reference"]
    first, others = cells[is_reference], cells[~is_reference]
    own = first["setting"].tolist()
    shared = [setting for setting in own if setting in set(others["setting"])]
    warnings = []
    for index in others.index[~others["setting"].isin(own)] if own else ():
        pair = described.loc[[index, first.index[0]]]
        settings = settings_of(pair)
        differences = ", ".join(
            f"{key} {' and '.join(map(value_text, settings[key]))}"
            for key in varying(settings)
            if key != factor and not key.startswith((f"{factor}.", "trainer.", "dataset.", "split."))
        )
        warnings.append(f"{' and '.join(pair['title'])} differ in more than {factor}: {differences}")
    never_equal = not shared and own and len(cells) > 1 and cells["level"].is_unique
    return UNEQUAL if never_equal else shared, warnings


def _family(
    pools: pd.DataFrame, question: Json, settings: Sequence[str], *, main: bool
) -> tuple[list[Json], list[str]]:
    """The largest fair comparison at ``settings``: the levels that are complete wherever the reference was run; and gaps."""
    reference = question["reference"]
    rows = pools.assign(setting="") if settings is UNEQUAL else pools[pools["setting"].isin(["", *settings])]
    rows = rows.assign(block=(rows["magnification"] + " " + rows["setting"]).str.strip())
    own, others = rows[rows["level"] == reference], rows[rows["level"] != reference]
    blocks = [block for block in own["block"].unique() if block in set(others["block"])]
    if not blocks:
        raise UserError(f"no other level was run where {reference} was")
    rows, own, others = (each[each["block"].isin(blocks)] for each in (rows, own, others))
    mine, theirs = set(own["replicate"]), set(others["replicate"])
    notes = {
        f"{reference} {_listed(mine - theirs)} has no counterpart and is left out": mine - theirs,
        f"{_listed(theirs - mine)} was not run for {reference} and is left out": theirs - mine,
    }
    if not mine & theirs:
        raise UserError(f"no replicate (seed and repeat of the split) of {reference} has a counterpart")
    at = {(row["level"], row["block"], row["replicate"]): row for row in rows.to_dict("records")}
    problems = {key: row["problem"] for key, row in at.items()}
    begun = {key[:2] for key in at}
    levels = [reference, *others["level"].unique()]

    def gaps(level: str, replicates: Sequence[Any]) -> list[str]:
        texts = []
        for block, one in product(blocks, replicates):
            name = f" {replicate_text(one)}" if (level, block) in begun else ""
            texts.append(problems.get((level, block, one), f"{level} {block}{name}: no run"))
        return list(dict.fromkeys(filter(None, texts)))

    # All replicates; those at which the reference is complete; those at which another level is too.
    wanted = sorted(mine & theirs)
    complete = [one for one in wanted if not gaps(reference, [one])]
    subsets = [[one for one in complete if not gaps(level, [one])] for level in levels[1:]]
    refusals = []
    for replicates in [wanted, complete, *sorted(subsets, key=len, reverse=True)]:
        missing = {level: gaps(level, replicates) for level in levels}
        taken: Json = {}
        for level in [level for level in levels if not missing[level]]:
            tested = {block: [at[level, block, one] for one in replicates] for block in blocks}
            if reference in taken and (problem := _mismatch(taken[reference], tested, reference, level)):
                missing[level] = [problem]
            else:
                taken[level] = tested
        reasons = [text for texts in missing.values() for text in texts]
        if reference not in taken or len(taken) < 2:
            refusals.append(missing[reference] or reasons)
        elif partitions := _other_partitions(taken[reference], replicates):
            refusals.append(partitions)
        elif replicates:
            whole = replicates is wanted
            text = f"only {_listed(replicates)} is complete, so this is not the comparison that was planned"
            family = _compared(taken, question, settings, main=main) | {
                "replicates": [replicate_text(one) for one in replicates],
                "missing": {level: texts for level, texts in missing.items() if texts},
                "notes": [note for note, holds in {**notes, text: not whole}.items() if holds],
                "whole": whole,
            }
            return [family], reasons
    return [], refusals[0]


def _listed(replicates: Iterable[Any]) -> str:
    return ", ".join(replicate_text(one) for one in sorted(replicates))


def _mismatch(mine: Json, theirs: Json, reference: str, level: str) -> str:
    for block in mine:
        for rows in zip(mine[block], theirs[block], strict=True):
            pooled = [row["pooled"][0] for row in rows]
            tested = [{*zip(one.table.image.tolist(), one.fold.tolist(), strict=True)} for one in pooled]
            if tested[0] != tested[1]:
                return f"{level} {block} was not tested on the same images in the same folds as {reference}"
            if rows[0]["fingerprint"] != rows[1]["fingerprint"]:
                return f"{level} {block} and {reference} saw different pixels under the same names (data_fingerprint)"
    return ""


def _other_partitions(blocks: Json, replicates: Sequence[Any]) -> list[str]:
    counts = [len({row["partition"] for row in own}) for own in zip(*blocks.values(), strict=True)]
    return [
        f"{replicate_text(one)}: the magnifications were split by {count} different partitions of the cases, so they "
        "cannot be averaged; train them on one copy of the data set"
        for one, count in zip(replicates, counts, strict=True)
        if count > 1
    ]


def _compared(levels: Json, question: Json, settings: Sequence[str], *, main: bool) -> Json:
    """The record of a family: ``levels`` is level -> block (magnification and setting) -> rows of the pools."""
    blocks = {
        level: {block: [row["pooled"][0] for row in rows] for block, rows in pools.items()}
        for level, pools in levels.items()
    }
    factor, reference, score, held = (question[key] for key in ("factor", "reference", "score", "held"))
    alike = settings is not UNEQUAL and factor != "epochs"
    options = {"primary": main, "equal_budget": alike, "standard_error": question["standard_error"]}
    comparison = compare_levels(blocks, reference=reference, score=score, **options)
    blocks = levels[reference]
    magnifications = list(dict.fromkeys(rows[0]["magnification"] for rows in blocks.values()))
    own = [setting for setting in settings if setting not in ("", *UNEQUAL)]
    # Two settings by name, more by their number; the report's first lines name them all.
    over = " and ".join(own) if len(own) < 3 else f"{len(own)} settings of {' and '.join(held)}"
    suffix = f" with {over}" if own else ""
    if len(own) > 1:  # each magnification appears once for each setting: say so in the sentences
        suffix = f", mean over {over}"
        several = f"{len(magnifications)} magnifications and " if len(magnifications) > 1 else ""
        average = f"mean over {len(blocks)} magnifications"
        for pair in comparison["pairs"]:
            pair["words"] = pair["words"].replace(average, f"mean over {several}{over}")
    runs = {run for each in levels.values() for rows in each.values() for row in rows for run in row["runs"]}
    title = f"{factor} against {reference}{suffix}"
    family: Json = {"main": main, "held": own, "over": over, "title": title, "magnifications": magnifications}
    return family | {"runs": sorted(runs), "places": list(blocks), "comparison": comparison}


def plan_hash(content: Mapping[str, Any]) -> str:
    """SHA-256 of a plan without what a sweep's folder adds to it, as hexadecimal text."""
    rest = {key: value for key, value in content.items() if key not in ("hash", "created", "earlier")}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def plan_record(plan: Mapping[str, Any], sweep: Path, starts: Sequence[Any]) -> Json:
    """What is known of a sweep's plan and of its age; ``starts`` are ISO times at which runs (last) started."""
    texts = [str(text) for text in (plan.get("created"), *starts)]
    created, *moments = pd.to_datetime(texts, format="ISO8601", errors="coerce", utc=True)
    known = sorted(pair for pair in zip(moments, texts[1:], strict=True) if pd.notna(pair[0]))
    comparison = plan.get("comparison") or {}
    if comparison:  # levels as the comparison names them
        factor, reference = str(comparison.get("factor")), comparison.get("reference")
        levels = [level_name(factor, str(level)) for level in comparison.get("levels") or []]
        reference = None if reference is None else level_name(factor, str(reference))
        comparison = comparison | {"reference": reference, "levels": levels}
    record = {"folder": str(sweep), "hash": str(plan.get("hash") or ""), "created": plan.get("created")}
    record["first_start"] = known[0][1] if known else None
    record["came_first"] = bool(created <= known[0][0]) if known and pd.notna(created) else None
    record |= {"untouched": plan.get("hash") == plan_hash(plan), "earlier": plan.get("earlier") or []}
    return record | {"jobs": len(plan["jobs"]), "comparison": comparison}


def mark_families(families: Sequence[Json], plans: Sequence[Json], planned: set[str], results: Json) -> None:
    """Say which family is ``primary``: the main one of the first protocol, as one plan fixed it before the first job.

    The others get ``exploratory_because``, plans ``not_this``; ``planned`` are the names of the plans' runs.
    """
    for plan in plans:
        fixed, made = plan["comparison"], {key: results[key] for key in PLANNED}
        changed = [key for key, value in made.items() if fixed.get(key) not in (None, value)]
        checks = {
            "it names no comparison": not fixed,
            "it was written after the first run had started": plan["came_first"] is False,
            "its content does not have the hash that it was written with": not plan["untouched"],
        }
        plan["not_this"] = [f"it fixed {key}={fixed[key]}, here {key}={made[key]}" for key in changed]
        plan["not_this"] += [reason for reason, holds in checks.items() if holds]
    levels = dict.fromkeys(level for plan in plans for level in plan["comparison"].get("levels") or [])
    for family in families:
        absent = [level for level in levels if level not in family["comparison"]["arms"]]
        absent += [level for level in family["missing"] if level not in absent]
        outside = len(set(family["runs"]) - planned)
        checks = {
            "no plan was written before the first job": not plans,
            f"it joins the runs of {len(plans)} plans": len(plans) > 1,
            f"{outside} of its runs are no jobs of the plan": len(plans) == 1 and outside > 0,
            "replicates of it are incomplete": not family["whole"],
            f"{', '.join(absent)} is missing": family["whole"] and bool(absent),
        }
        why = [reason for plan in plans for reason in plan["not_this"]]
        why += [reason for reason, holds in checks.items() if holds]
        if family["world"] != results["worlds"][0] or not family["main"]:
            why = ["it accompanies the primary family"]
        family["primary"], family["exploratory_because"] = not why, why
