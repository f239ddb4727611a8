"""Which levels are compared with which: families of comparisons over levels that were run alike.

The main family of a protocol averages over the magnifications and, where other settings were crossed with the compared
factor, over them too, so there is one primary family however much was swept. One exploratory family for each setting
accompanies it, with Holm's adjustment over all of their comparisons.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from histo_lightning.comparison.names import value_text
from histo_lightning.comparison.settings import is_of, replicate_text, settings_of, varying
from histo_lightning.errors import UserError
from histo_lightning.evaluation.differences import compare_levels
from histo_lightning.evaluation.differences.simultaneous import holm

Json = dict[str, Any]

UNEQUAL = ["*"]  # settings that were never equal, and are compared all the same


class Question(NamedTuple):
    """What is compared: the levels of ``factor`` with ``reference`` by ``score``; ``held`` are the other keys or groups."""

    factor: str
    reference: str
    score: str
    held: Sequence[str]


class _Refusal(Exception):
    """Why a family cannot be compared: a reason an argument."""


def compare_protocol(
    placed: pd.DataFrame, pools: pd.DataFrame, question: Question
) -> tuple[list[Json], list[str], list[str]]:
    """Compare every level of one protocol with the reference.

    Args:
        placed, pools: the protocol's rows of ``place_runs`` and ``pool_runs``.

    Returns:
        Families, the main one first (simultaneous intervals), then, where other settings were crossed with the
        compared factor, one for each with Holm's adjustment over all of their comparisons; the reasons why something is
        not compared; and warnings.
    """
    levels, reference = list(dict.fromkeys(placed["level"])), question.reference
    settings, warnings = _shared_settings(placed, question)
    if reference not in levels:
        return [], [f"no run of the reference {reference}; it holds {', '.join(levels)}"], warnings
    if len(levels) < 2:
        return [], [f"only {reference} was run, so there is nothing to compare it with"], warnings
    if not settings:
        return [], ["no level was run at the settings of the reference", *warnings], warnings
    families: list[Json] = []
    refusals: list[str] = []
    for own in [settings, *([[one] for one in settings] if len(settings) > 1 else [])]:
        try:
            families.append(_family(pools, question, own, main=own is settings))
            refusals += [reason for reasons in families[-1]["missing"].values() for reason in reasons]
        except (_Refusal, UserError) as refusal:
            refusals += refusal.args
    pairs = [pair for family in families if not family["main"] for pair in family["comparison"]["pairs"]]
    adjusted = holm(np.array([pair["p"] for pair in pairs], np.float64))
    for pair, p in zip(pairs, adjusted.tolist(), strict=True):
        pair["p_holm_families"] = p if np.isfinite(p) else None
    return families, list(dict.fromkeys(refusals)), warnings


def _shared_settings(placed: pd.DataFrame, question: Question) -> tuple[list[str], list[str]]:
    """The settings at which the reference and another level were run, and what to warn about.

    Returns:
        Settings in order, ``UNEQUAL`` where they were never equal and the levels are compared all the same; and warnings
        that name the keys.
    """
    cells = placed.drop_duplicates(["level", "setting"])
    is_reference = cells["level"] == question.reference
    first, others = cells[is_reference], cells[~is_reference]
    own = first["setting"].tolist()
    shared = [setting for setting in own if (others["setting"] == setting).any()]
    warnings = []
    for index in others.index[~others["setting"].isin(own)] if own else ():
        pair = placed.loc[[index, first.index[0]]]
        settings = settings_of(pair)
        differences = ", ".join(
            f"{key} {' and '.join(map(value_text, settings[key]))}"
            for key in varying(settings)
            if not is_of(key, question.factor) and not key.startswith(("trainer.", "dataset.", "split."))
        )
        warnings.append(f"{' and '.join(pair['title'])} differ in more than {question.factor}: {differences}")
    if shared or not own or len(cells) < 2 or not cells["level"].is_unique:
        return shared, warnings
    return UNEQUAL, warnings


def _family(pools: pd.DataFrame, question: Question, settings: Sequence[str], *, main: bool) -> Json:
    """The largest fair comparison at ``settings``: all levels that are complete wherever the reference was run too.

    Raises:
        _Refusal: nothing can be compared.
    """
    reference = question.reference
    rows = (
        pools.assign(setting="")
        if list(settings) == UNEQUAL
        else pools[pools["setting"].isin(["", *settings])]
    )
    rows = rows.assign(place=(rows["magnification"] + " " + rows["setting"]).str.strip())
    is_reference = rows["level"] == reference
    elsewhere = set(rows.loc[~is_reference, "place"])
    places = [place for place in rows.loc[is_reference, "place"].unique() if place in elsewhere]
    if not places:
        raise _Refusal(f"no other level was run where {reference} was")
    rows = rows[rows["place"].isin(places)]
    is_reference = rows["level"] == reference
    mine, theirs = set(rows.loc[is_reference, "replicate"]), set(rows.loc[~is_reference, "replicate"])
    notes = (
        [f"{reference} {_listed(mine - theirs)} has no counterpart and is left out"] if mine - theirs else []
    )
    notes += (
        [f"{_listed(theirs - mine)} was not run for {reference} and is left out"] if theirs - mine else []
    )
    wanted = sorted(mine & theirs)
    if not wanted:
        raise _Refusal(f"no replicate (seed and repeat of the split) of {reference} has a counterpart")
    at = {(row["level"], row["place"], row["replicate"]): row for row in rows.to_dict("records")}
    begun = {key[:2] for key in at}

    def gap(level: str, place: str, one: Any) -> str | None:
        name = f" {replicate_text(one)}" if (level, place) in begun else ""
        row = at.get((level, place, one), {"problem": f"{level} {place}{name}: no run"})
        return row["problem"] or None

    def complete(level: str, among: Sequence[Any]) -> list[Any]:
        return [one for one in among if not any(gap(level, place, one) for place in places)]

    levels = [reference, *(level for level in rows["level"].unique() if level != reference)]
    own = complete(reference, wanted)
    subsets = sorted((complete(level, own) for level in levels[1:]), key=len, reverse=True)
    refusals = []
    for replicates in [wanted, own, *subsets]:
        pairs = [(place, one) for place in places for one in replicates]
        gaps = {level: dict.fromkeys(gap(level, *pair) for pair in pairs) for level in levels}
        missing = {level: [text for text in own_gaps if text] for level, own_gaps in gaps.items()}
        taken = {
            level: {place: [at[level, place, one] for one in replicates] for place in places}
            for level in levels
            if not missing[level]
        }
        for level in list(taken)[1:] if reference in taken else ():
            if problem := _mismatch(taken[reference], taken[level], reference, level):
                missing[level] = [problem]
                del taken[level]
        if reference not in taken or len(taken) < 2:
            refusals.append(missing[reference] or [text for reasons in missing.values() for text in reasons])
        elif problems := _other_partitions(taken[reference], replicates):
            refusals.append(problems)
        elif replicates:
            if replicates is not wanted:
                planned = "so this is not the comparison that was planned"
                notes.append(f"only {_listed(replicates)} is complete, {planned}")
            about: Json = {"replicates": [replicate_text(one) for one in replicates], "notes": notes}
            about["missing"] = {level: reasons for level, reasons in missing.items() if reasons}
            about["whole"] = replicates is wanted
            return _compared(taken, question, settings, main=main) | about
    raise _Refusal(*refusals[0])


def _listed(replicates: Iterable[Any]) -> str:
    return ", ".join(replicate_text(one) for one in sorted(replicates))


def _mismatch(mine: Json, theirs: Json, reference: str, level: str) -> str:
    """Why two levels were not tested on the same images in the same folds; empty where they were."""
    for place in mine:
        for pair in zip(mine[place], theirs[place], strict=True):
            tested = [
                dict(zip(own.table.image, own.fold, strict=True))
                for own in (row["pooled"][0] for row in pair)
            ]
            if tested[0] != tested[1]:
                return f"{level} {place} was not tested on the same images in the same folds as {reference}"
            if pair[0]["fingerprint"] != pair[1]["fingerprint"]:
                return f"{level} {place} and {reference} saw different pixels under the same names (data_fingerprint)"
    return ""


def _other_partitions(places: Json, replicates: Sequence[Any]) -> list[str]:
    partitions = [{row["partition"] for row in rows} for rows in zip(*places.values(), strict=True)]
    return [
        f"{replicate_text(one)}: the magnifications were split by {len(own)} different partitions of the cases, so they "
        "cannot be averaged; train them on one copy of the data set"
        for one, own in zip(replicates, partitions, strict=True)
        if len(own) > 1
    ]


def _compared(levels: Json, question: Question, settings: Sequence[str], *, main: bool) -> Json:
    """The record of a family.

    Args:
        levels: level -> place (magnification and setting) -> rows of the pools, one a replicate.
    """
    comparison = compare_levels(
        {
            level: {place: [row["pooled"][0] for row in rows] for place, rows in places.items()}
            for level, places in levels.items()
        },
        reference=question.reference,
        score=question.score,
        primary=main,
        equal_budget=list(settings) != UNEQUAL and question.factor != "epochs",
    )
    places = levels[question.reference]
    magnifications = list(dict.fromkeys(rows[0]["magnification"] for rows in places.values()))
    own = [setting for setting in settings if setting not in ("", *UNEQUAL)]
    # Two settings by name, more by their number; the report's first lines name them all.
    over = " and ".join(own) if len(own) < 3 else f"{len(own)} settings of {' and '.join(question.held)}"
    if len(own) > 1:  # each magnification appears once for each setting: say so in the sentences
        several = f"{len(magnifications)} magnifications and " if len(magnifications) > 1 else ""
        for pair in comparison["pairs"]:
            average = f"mean over {len(places)} magnifications"
            pair["words"] = pair["words"].replace(average, f"mean over {several}{over}")
    suffix = f", mean over {over}" if len(own) > 1 else f" with {over}" if own else ""
    runs = {run for each in levels.values() for rows in each.values() for row in rows for run in row["runs"]}
    return {
        "main": main,
        "held": own,
        "over": over,
        "title": f"{question.factor} against {question.reference}{suffix}",
        "magnifications": magnifications,
        "runs": sorted(runs),
        "places": list(places),
        "comparison": comparison,
    }
