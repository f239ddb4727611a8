"""What a sweep meant to do before its first job (``sweep.json``), and whether a comparison is the one it fixed."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from histo_lightning.comparison.names import level_name
from histo_lightning.errors import UserError
from histo_lightning.runs import read_json

Json = dict[str, Any]


def plan_hash(content: Mapping[str, Any]) -> str:
    """SHA-256 of a plan without what a sweep's folder adds to it, as hexadecimal text."""
    rest = {key: value for key, value in content.items() if key not in ("hash", "created", "earlier")}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_plan(sweep: Path) -> Json:
    """``sweep.json`` of a sweep folder; raise UserError where it cannot be read or is no plan."""
    plan = read_json(sweep / "sweep.json")
    try:
        wrong = "it lists no jobs" if not all(isinstance(job["run"], str) for job in plan["jobs"]) else ""
        if not isinstance((plan.get("comparison") or {}).get("levels") or [], list):
            wrong = "comparison.levels is no list"
    except (AttributeError, KeyError, TypeError):
        wrong = "it lists no jobs, or its comparison is no object"
    if wrong:
        file = sweep / "sweep.json"
        raise UserError(f"{file}: is damaged ({wrong}); restore it, or delete it to compare without a plan")
    return plan


def plan_record(plan: Mapping[str, Any], sweep: Path, starts: Iterable[Any]) -> Json:
    """A plan, and what can be said of its age.

    Args:
        plan: of ``read_plan``; sweep: its folder.
        starts: ISO times at which runs started, None where unknown. A run that was started again only keeps its last one,
            so the earliest counts.
    """
    moments = {text: _moment(text) for text in map(str, starts) if pd.notna(_moment(text))}
    started = min(sorted(moments), key=lambda text: moments[text], default=None)
    created, known = _moment(plan.get("created")), str(plan.get("hash") or "")
    comparison = plan.get("comparison") or {}
    if comparison:  # levels as the comparison names them
        factor, reference = str(comparison.get("factor")), comparison.get("reference")
        levels = [level_name(factor, str(level)) for level in comparison.get("levels") or []]
        reference = None if reference is None else level_name(factor, str(reference))
        comparison = comparison | {"reference": reference, "levels": levels}
    return {
        "folder": str(sweep),
        "hash": known,
        "created": plan.get("created"),
        "first_start": started,
        "came_first": None if pd.isna(created) or started is None else bool(created <= moments[started]),
        "untouched": bool(known) and known == plan_hash(plan),
        "earlier": plan.get("earlier") or [],
        "jobs": len(plan["jobs"]),
        "comparison": comparison,
    }


def _moment(text: Any) -> Any:
    """The time of an ISO text, NaT where it is none."""
    return pd.to_datetime(str(text), format="ISO8601", errors="coerce", utc=True)


def mark_families(families: Sequence[Json], plans: Sequence[Json], planned: set[str], results: Json) -> None:
    """Say which family is primary: the main one of the first protocol, as one plan fixed it before the first job.

    Args:
        families: get the keys ``primary`` and ``exploratory_because``; plans: get ``not_this``.
        planned: the names of the plans' runs.
        results: with ``worlds``, and the ``factor``, ``reference`` and ``score`` of the comparison made here.
    """
    for plan in plans:
        fixed, made = plan["comparison"], {key: results[key] for key in ("factor", "reference", "score")}
        checks = {
            f"it fixed {key}={fixed.get(key)}, here {key}={value}": fixed.get(key) not in (None, value)
            for key, value in made.items()
        } | {
            "it names no comparison": not fixed,
            "it was written after the first run had started": plan["came_first"] is False,
            "its content does not have the hash that it was written with": not plan["untouched"],
        }
        plan["not_this"] = [reason for reason, holds in checks.items() if holds]
    levels = dict.fromkeys(level for plan in plans for level in plan["comparison"].get("levels") or [])
    for family in families:
        absent = dict.fromkeys(level for level in levels if level not in family["comparison"]["arms"])
        absent |= family["missing"]
        outside = len(set(family["runs"]) - planned)
        if family["world"] != results["worlds"][0] or not family["main"]:
            why = ["it accompanies the primary family"]
        else:
            checks = {
                "no plan was written before the first job": not plans,
                f"it joins the runs of {len(plans)} plans": len(plans) > 1,
                f"{outside} of its runs are no jobs of the plan": len(plans) == 1 and outside > 0,
                "replicates of it are incomplete": not family["whole"],
                f"{', '.join(absent)} is missing": family["whole"] and bool(absent),
            }
            why = [reason for plan in plans for reason in plan["not_this"]]
            why += [reason for reason, holds in checks.items() if holds]
        family["primary"], family["exploratory_because"] = not why, why
