"""Which levels are compared with which: families of comparisons over levels that were run alike.

The main family of a protocol averages over the magnifications and, where other settings were crossed with the compared
factor, over them too, so there is one primary family however much was swept. One exploratory family for each setting
accompanies it, with Holm's adjustment over all of their comparisons.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from histo_lightning.comparison.names import magnification_order, value_text
from histo_lightning.comparison.reading import settings_of
from histo_lightning.comparison.settings import is_of, replicate_text, varying
from histo_lightning.errors import UserError
from histo_lightning.evaluation.differences import Replicate, compare_levels
from histo_lightning.evaluation.differences.simultaneous import holm

Json = dict[str, Any]
Place = tuple[str, str]  # setting and magnification
Pools = dict[tuple[str, Place, Any], Json]  # by level, place and replicate

UNEQUAL = ["*"]  # settings that were never equal, and are compared all the same


class _Refusal(Exception):
    """Why a family cannot be compared."""

    def __init__(self, reasons: Iterable[str]) -> None:
        self.reasons = list(reasons)


def compare_protocol(
    placed: pd.DataFrame, pools: pd.DataFrame, factor: str, held: Iterable[str], reference: str, score: str
) -> tuple[list[Json], list[str], list[str]]:
    """Compare every level of one protocol with the reference.

    Args:
        placed, pools: the protocol's rows of ``place_runs`` and ``pool_runs``.
        held: the keys or groups of the other settings.

    Returns:
        Families, the main one first (simultaneous intervals), then, where other settings were crossed with the
        compared factor, one for each with Holm's adjustment over all of their comparisons; the reasons why something is
        not compared; and warnings.
    """
    levels = list(dict.fromkeys(placed["level"]))
    settings, warnings = _shared_settings(placed, factor, reference)
    if reference not in levels:
        return [], [f"no run of the reference {reference}; it holds {', '.join(levels)}"], warnings
    if len(levels) < 2:
        return [], [f"only {reference} was run, so there is nothing to compare it with"], warnings
    if not settings:
        return [], ["no level was run at the settings of the reference", *warnings], warnings
    families, refusals = [], []
    for own in [settings, *([[one] for one in settings] if len(settings) > 1 else [])]:
        try:
            family = _family(pools, reference, own)
            families.append(_compared(family, factor, held, reference, own, score, main=own is settings))
            refusals += [reason for reasons in family["missing"].values() for reason in reasons]
        except _Refusal as refusal:
            refusals += refusal.reasons
        except UserError as error:
            refusals.append(str(error))
    pairs = [pair for family in families if not family["main"] for pair in family["comparison"]["pairs"]]
    adjusted = holm(np.array([pair["p"] for pair in pairs], np.float64))
    for pair, p in zip(pairs, adjusted.tolist(), strict=True):
        pair["p_holm_families"] = p if np.isfinite(p) else None
    return families, list(dict.fromkeys(refusals)), warnings


def _shared_settings(placed: pd.DataFrame, factor: str, reference: str) -> tuple[list[str], list[str]]:
    """The settings at which the reference and another level were run, and what to warn about.

    Returns:
        Settings in order, ``UNEQUAL`` where they were never equal and the levels are compared all the same; and warnings
        that name the keys.
    """
    cells = placed.drop_duplicates(["level", "setting"])
    own = cells.loc[cells["level"] == reference, "setting"].tolist()
    others = cells[cells["level"] != reference]
    shared = [setting for setting in own if (others["setting"] == setting).any()]
    warnings = []
    if own:
        first = cells[cells["level"] == reference].iloc[[0]]
        for _, cell in others[~others["setting"].isin(own)].iterrows():
            pair = settings_of(pd.concat([cell.to_frame().T, first]))
            keys = [key for key in varying(pair) if not is_of(key, factor)]
            keys = [key for key in keys if not key.startswith(("trainer.", "dataset.", "split."))]
            told = ", ".join(f"{key} {' and '.join(map(value_text, pair[key]))}" for key in keys)
            warnings.append(
                f"{cell['title']} and {first['title'].iloc[0]} differ in more than {factor}: {told}"
            )
    if shared or not own or len(cells) < 2 or not cells["level"].is_unique:
        return shared, warnings
    return UNEQUAL, warnings


def _family(frame: pd.DataFrame, reference: str, settings: Sequence[str]) -> Json:
    """The largest fair comparison at ``settings``: all levels that are complete wherever the reference was run too.

    Returns:
        ``levels``, level -> place -> rows of ``frame``, one a replicate; ``places``; ``replicates``; ``missing``, why a
        level that was run does not take part; ``notes``, what was left out; ``whole``, whether it is as planned.

    Raises:
        _Refusal: nothing can be compared.
    """
    merged = list(settings) == UNEQUAL
    pools: Pools = {}
    for key, row in zip(frame.index, frame.to_dict("records"), strict=True):
        _, level, setting, magnification, replicate = key
        if merged or setting in settings:
            pools[level, ("" if merged else setting, magnification), replicate] = row
    begun = {(level, place) for level, place, _ in pools}
    others = [level for level in dict.fromkeys(level for level, _, _ in pools) if level != reference]
    places = sorted(
        (
            place
            for level, place in begun
            if level == reference and any((one, place) in begun for one in others)
        ),
        key=lambda place: (0 if merged else settings.index(place[0]), magnification_order(place[1])),
    )
    if not places:
        raise _Refusal([f"no other level was run where {reference} was"])
    mine = {one for level, place, one in pools if level == reference and place in places}
    theirs = {one for level, place, one in pools if level != reference and place in places}
    notes = (
        [f"{reference} {_listed(mine - theirs)} has no counterpart and is left out"] if mine - theirs else []
    )
    notes += (
        [f"{_listed(theirs - mine)} was not run for {reference} and is left out"] if theirs - mine else []
    )
    wanted = sorted(mine & theirs)
    if not wanted:
        raise _Refusal([f"no replicate (seed and repeat of the split) of {reference} has a counterpart"])
    try:
        return _complete(pools, reference, others, places, wanted, notes)
    except _Refusal as refusal:
        # Replicates at which the reference is complete; then those at which it and one other level are.
        whole = {
            level: [one for one in wanted if not _gaps(pools, level, places, [one])]
            for level in [reference, *others]
        }
        common = [[one for one in whole[reference] if one in whole[level]] for level in others]
        for replicates in [whole[reference], *sorted(common, key=len, reverse=True)]:
            note = f"only {_listed(replicates)} is complete, so this is not the comparison that was planned"
            try:
                if replicates:
                    found = _complete(pools, reference, others, places, replicates, [*notes, note])
                    return found | {"whole": False}
            except _Refusal:
                continue
        raise refusal from None


def _listed(replicates: Iterable[Any]) -> str:
    return ", ".join(replicate_text(one) for one in sorted(replicates))


def place_text(place: Place) -> str:
    """``40x adam``."""
    return f"{place[1]} {place[0]}".strip()


def _gaps(pools: Pools, level: str, places: Sequence[Place], replicates: Sequence[Any]) -> list[str]:
    """What is missing of a level, in words."""
    gaps = []
    for place in places:
        if not any(key[:2] == (level, place) for key in pools):
            gaps.append(f"{level} {place_text(place)}: no run")
            continue
        for one in replicates:
            pool = pools.get((level, place, one))
            if pool is None:
                gaps.append(f"{level} {place_text(place)} {replicate_text(one)}: no run")
            elif pool["problem"]:
                gaps.append(pool["problem"])
    return gaps


def _complete(
    pools: Pools,
    reference: str,
    others: Sequence[str],
    places: Sequence[Place],
    replicates: Sequence[Any],
    notes: Sequence[str],
) -> Json:
    missing, levels = {}, {}
    for level in [reference, *others]:
        gaps = _gaps(pools, level, places, replicates)
        if not gaps:
            levels[level] = {place: [pools[level, place, one] for one in replicates] for place in places}
            gaps = _mismatch(levels[reference], levels[level], reference, level)
        if gaps:
            missing[level] = gaps
            levels.pop(level, None)
            if level == reference:
                raise _Refusal(gaps)
    if len(levels) < 2:
        raise _Refusal(text for reasons in missing.values() for text in reasons)
    for number, one in enumerate(replicates):
        count = len({rows[number]["partition"] for rows in levels[reference].values()})
        if count > 1:
            raise _Refusal([
                f"{replicate_text(one)}: the magnifications were split by {count} different partitions of the cases, so "
                "they cannot be averaged; train them on one copy of the data set"
            ])  # fmt: skip
    return {
        "levels": levels,
        "places": places,
        "replicates": replicates,
        "missing": missing,
        "notes": list(notes),
        "whole": True,
    }


def _mismatch(mine: Json, theirs: Json, reference: str, level: str) -> list[str]:
    """Why two levels were not tested on the same images in the same folds; empty where they were."""
    for place in mine:
        for one, other in zip(mine[place], theirs[place], strict=True):
            if _layout(one["pooled"][0]) != _layout(other["pooled"][0]):
                return [
                    f"{level} {place_text(place)} was not tested on the same images in the same folds as {reference}"
                ]
            if one["fingerprint"] != other["fingerprint"]:
                return [
                    f"{level} {place_text(place)} and {reference} saw different pixels under the same names "
                    "(data_fingerprint)"
                ]
    return []


def _layout(replicate: Replicate) -> dict[str, int]:
    return dict(zip(replicate.table.image.tolist(), replicate.fold.tolist(), strict=True))


def _compared(
    family: Json,
    factor: str,
    held: Iterable[str],
    reference: str,
    settings: Sequence[str],
    score: str,
    *,
    main: bool,
) -> Json:
    predictions = {
        level: {place_text(place): [row["pooled"][0] for row in rows] for place, rows in places.items()}
        for level, places in family["levels"].items()
    }
    result = compare_levels(
        predictions,
        reference=reference,
        score=score,
        primary=main,
        equal_budget=list(settings) != UNEQUAL and factor != "epochs",
    )
    magnifications = list(dict.fromkeys(magnification for _, magnification in family["places"]))
    own = [setting for setting in settings if setting not in ("", *UNEQUAL)]
    # Two settings by name, more by their number; the report's first lines name them all.
    over = " and ".join(own) if len(own) < 3 else f"{len(own)} settings of {' and '.join(held)}"
    if len(own) > 1:  # each magnification appears once for each setting: say so in the sentences
        several = f"{len(magnifications)} magnifications and " if len(magnifications) > 1 else ""
        for pair in result["pairs"]:
            told = f"mean over {len(family['places'])} magnifications"
            pair["words"] = pair["words"].replace(told, f"mean over {several}{over}")
    suffix = f", mean over {over}" if len(own) > 1 else f" with {over}" if own else ""
    rows = [row for places in family["levels"].values() for rows in places.values() for row in rows]
    return {
        "main": main,
        "held": own,
        "over": over,
        "title": f"{factor} against {reference}{suffix}",
        "magnifications": magnifications,
        "runs": sorted({name for row in rows for name in row["runs"]}),
        "places": [place_text(place) for place in family["places"]],
        "replicates": [replicate_text(one) for one in family["replicates"]],
        "missing": family["missing"],
        "notes": family["notes"],
        "whole": family["whole"],
        "comparison": result,
    }
