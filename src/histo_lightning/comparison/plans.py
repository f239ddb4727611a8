"""What a sweep meant to do before its first job (``sweep.json``), and whether a comparison is the one it fixed."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from histo_lightning.comparison.names import level_name

Json = dict[str, Any]


def plan_hash(content: Mapping[str, Any]) -> str:
    """SHA-256 of a plan without what a sweep's folder adds to it, as hexadecimal text."""
    rest = {key: value for key, value in content.items() if key not in ("hash", "created", "earlier")}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def plan_record(content: Mapping[str, Any], sweep: Path, starts: Iterable[Any]) -> Json:
    """A plan, and what can be said of its age.

    Args:
        content: of ``sweep.json``; sweep: its folder.
        starts: ISO times at which runs started, None where unknown. A run that was started again only keeps its last one,
            its job file too, so the earliest counts.
    """
    moments = {str(text): moment for text in starts if (moment := _moment(text)) is not None}
    started = min(sorted(moments), key=lambda text: moments[text], default=None)
    created, known = _moment(content.get("created")), str(content.get("hash") or "")
    return {
        "folder": str(sweep),
        "hash": known,
        "created": content.get("created"),
        "first_start": started,
        "came_first": None if created is None or started is None else created <= moments[started],
        "untouched": bool(known) and known == plan_hash(content),
        "earlier": [dict(one) for one in content.get("earlier") or []],
        "jobs": len(content.get("jobs") or []),
        "comparison": _comparison(content.get("comparison")),
    }


def _moment(text: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment.astimezone() if moment.tzinfo is None else moment


def _comparison(planned: Any) -> Json:
    """What the plan compares, with levels as the comparison names them; a person may have changed the file."""
    if not isinstance(planned, dict) or not planned:
        return {}
    factor, reference, levels = (planned.get(key) for key in ("factor", "reference", "levels"))
    named = [level_name(str(factor), str(one)) for one in (levels if isinstance(levels, list) else [])]
    reference = None if reference is None else level_name(str(factor), str(reference))
    return planned | {"reference": reference, "levels": named}


def mark_families(families: Sequence[Json], plans: Sequence[Json], planned: set[str], results: Json) -> None:
    """Say which family is primary: the main one of the first protocol, as one plan fixed it before the first job.

    Args:
        families: get the keys ``primary`` and ``exploratory_because``; plans: get ``not_this``.
        planned: the names of the plans' runs.
        results: with ``worlds``, and the ``factor``, ``reference`` and ``score`` of the comparison made here.
    """
    for plan in plans:
        asked, given = plan["comparison"], {key: results[key] for key in ("factor", "reference", "score")}
        changed = [key for key, value in given.items() if asked.get(key) not in (None, value)]
        checks = {
            "it names no comparison": not asked,
            "it was written after the first run had started": plan["came_first"] is False,
            "its content does not have the hash that it was written with": not plan["untouched"],
        }
        plan["not_this"] = [f"it fixed {key}={asked[key]}, here {key}={given[key]}" for key in changed]
        plan["not_this"] += [reason for reason, is_so in checks.items() if is_so]
    levels = dict.fromkeys(level for plan in plans for level in plan["comparison"].get("levels") or [])
    for family in families:
        why = [reason for plan in plans for reason in plan["not_this"]]
        outside = set(family["runs"]) - planned
        absent = [level for level in levels if level not in family["comparison"]["arms"]]
        absent += [level for level in family["missing"] if level not in absent]
        if not plans:
            why = ["no plan was written before the first job"]
        elif len(plans) > 1 or outside:
            several = f"it joins the runs of {len(plans)} plans"
            why.append(several if len(plans) > 1 else f"{len(outside)} of its runs are no jobs of the plan")
        if family["world"] != results["worlds"][0] or not family["main"]:
            why = ["it accompanies the primary family"]
        elif not family["whole"]:
            why.append("replicates of it are incomplete")
        elif absent:
            why.append(f"{', '.join(absent)} is missing")
        family["primary"], family["exploratory_because"] = not why, why
