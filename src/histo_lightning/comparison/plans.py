"""What a sweep meant to do before its first job (``sweep.json``), and whether a comparison is the one it fixed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from histo_lightning.comparison.names import level_name

Json = dict[str, Any]


def plan_hash(content: Mapping[str, Any]) -> str:
    """SHA-256 of a plan without what a sweep's folder adds to it, as hexadecimal text."""
    rest = {key: value for key, value in content.items() if key not in ("hash", "created", "earlier")}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def plan_record(content: Mapping[str, Any], sweep: Path | None, started: str) -> Json:
    """A plan, and what can be said of its age.

    Args:
        content: of ``sweep.json``.
        sweep: its folder; None for a plan given from Python.
        started: ISO time at which the first of its runs started, empty where none has.

    Returns:
        Beside the record's own keys ``planned``, the names of its jobs.
    """
    jobs = content.get("jobs") or []
    created, first = _moment(str(content.get("created") or "")), _moment(started)
    known = str(content.get("hash") or "")
    return {
        "folder": None if sweep is None else str(sweep),
        "hash": known,
        "created": content.get("created"),
        "first_start": started or None,
        "came_first": None if created is None or first is None else created <= first,
        "untouched": bool(known) and known == plan_hash(content),
        "earlier": [dict(one) for one in content.get("earlier") or []],
        "jobs": len(jobs),
        "comparison": _comparison(content.get("comparison")),
        "planned": [str(job.get("run")) for job in jobs],
    }


def _comparison(planned: Any) -> Json:
    """What the plan compares, with levels as the comparison names them; a person may have changed the file."""
    if not isinstance(planned, dict) or not planned:
        return {}
    factor, reference, levels = (planned.get(key) for key in ("factor", "reference", "levels"))
    named = [level_name(str(factor), str(one)) for one in (levels if isinstance(levels, list) else [])]
    reference = None if reference is None else level_name(str(factor), str(reference))
    return planned | {"reference": reference, "levels": named}


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.astimezone() if moment.tzinfo is None else moment


def first_start(times: Sequence[Any]) -> str:
    """The earliest of some ISO times: a run that was started again only keeps its last one, its job file too."""
    moments = {str(text): moment for text in times if (moment := _moment(str(text or ""))) is not None}
    return min(sorted(moments), key=lambda text: moments[text], default="")


def planned_comparison(plans: Sequence[Json], settings: Any) -> Json:
    """The comparison that the plans ask for, where they agree; else what all runs' configs say under ``study``.

    Args:
        settings: data frame of the runs' settings, a column a key.
    """
    keys = ("factor", "reference")
    comparisons = [plan["comparison"] for plan in plans if plan["comparison"]]
    if comparisons:
        alike = all(one.get(key) == comparisons[0].get(key) for one in comparisons for key in keys)
        return dict(comparisons[0]) if alike else {}
    studies = [
        {key: row.get(f"study.{key}") for key in (*keys, "score")} for row in settings.to_dict("records")
    ]
    return studies[0] if studies and all(study == studies[0] for study in studies) else {}


def differences_from_plan(plan: Json, factor: str, reference: str, score: str) -> list[str]:
    """Why the comparison made here is not the one that a plan fixed, if so."""
    asked = plan["comparison"]
    reasons = [
        f"it fixed {key}={asked.get(key)}, here {key}={given}"
        for key, given in (("factor", factor), ("reference", reference), ("score", score))
        if asked.get(key) not in (None, given)
    ]
    if not asked:
        reasons.append("it names no comparison")
    if plan["came_first"] is False:
        reasons.append("it was written after the first run had started")
    if not plan["untouched"]:
        reasons.append("its content does not have the hash that it was written with")
    return reasons


def mark_families(
    families: Sequence[Json], plans: Sequence[Json], planned: set[str], worlds: Sequence[str]
) -> None:
    """Only one family is primary: the main one of the first world, as one plan fixed it before the first job.

    Args:
        families: get the keys ``primary`` and ``exploratory_because``.
        planned: the names of the plans' runs.
        worlds: in the order of the record.
    """
    levels = dict.fromkeys(level for plan in plans for level in plan["comparison"].get("levels") or [])
    for family in families:
        why = [reason for plan in plans for reason in plan["not_this"]]
        if not plans:
            why = ["no plan was written before the first job"]
        elif len(plans) > 1:
            why.append(f"it joins the runs of {len(plans)} plans")
        elif outside := set(family["runs"]) - planned:
            why.append(f"{len(outside)} of its runs are no jobs of the plan")
        absent = [level for level in levels if level not in family["comparison"]["arms"]]
        absent += [level for level in family["missing"] if level not in absent]
        if family["world"] != worlds[0] or not family["main"]:
            why = ["it accompanies the primary family"]
        elif not family["whole"]:
            why.append("replicates of it are incomplete")
        elif absent:
            why.append(f"{', '.join(absent)} is missing")
        family["primary"], family["exploratory_because"] = not why, why
