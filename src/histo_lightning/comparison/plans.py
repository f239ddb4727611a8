"""What a sweep meant to do before its first job (``sweep.json``), and whether a comparison is the one it fixed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from histo_lightning.comparison.settings import level_name

Json = dict[str, Any]

PLANNED = ("factor", "reference", "score", "standard_error")


def plan_hash(content: Mapping[str, Any]) -> str:
    """SHA-256 of a plan without what a sweep's folder adds to it, as hexadecimal text."""
    rest = {key: value for key, value in content.items() if key not in ("hash", "created", "earlier")}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def plan_record(plan: Mapping[str, Any], sweep: Path, starts: Sequence[Any]) -> Json:
    """What can be said of a sweep's plan and of its age; ``starts`` are ISO times at which runs (last) started."""
    texts = [str(text) for text in (plan.get("created"), *starts)]
    created, *moments = pd.to_datetime(texts, format="ISO8601", errors="coerce", utc=True)
    known = sorted(pair for pair in zip(moments, texts[1:], strict=True) if pd.notna(pair[0]))
    comparison = plan.get("comparison") or {}
    if comparison:  # levels as the comparison names them
        factor, reference = str(comparison.get("factor")), comparison.get("reference")
        levels = [level_name(factor, str(level)) for level in comparison.get("levels") or []]
        reference = None if reference is None else level_name(factor, str(reference))
        comparison = comparison | {"reference": reference, "levels": levels}
    return {
        "folder": str(sweep),
        "hash": str(plan.get("hash") or ""),
        "created": plan.get("created"),
        "first_start": known[0][1] if known else None,
        "came_first": bool(created <= known[0][0]) if known and pd.notna(created) else None,
        "untouched": plan.get("hash") == plan_hash(plan),
        "earlier": plan.get("earlier") or [],
        "jobs": len(plan["jobs"]),
        "comparison": comparison,
    }


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
