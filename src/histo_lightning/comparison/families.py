"""Which levels are compared with which: families of comparisons over levels that were run alike.

The main family of a protocol averages over the magnifications and, where other settings were crossed with the compared
factor, over them too, so there is one primary family however much was swept. One exploratory family for each setting
accompanies it, with Holm's adjustment over all of their comparisons.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from histo_lightning.comparison.names import value_text
from histo_lightning.comparison.settings import is_of, replicate_text, settings_of, varying
from histo_lightning.errors import UserError
from histo_lightning.evaluation.differences import Replicate, compare_levels
from histo_lightning.evaluation.differences.methods import holm

Json = dict[str, Any]

UNEQUAL = ["*"]  # settings that were never equal, and are compared all the same


class _Refusal(Exception):
    """Why a family cannot be compared: a reason an argument."""


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
    families: list[Json] = []
    refusals: list[str] = []
    for own in [settings, *([[one] for one in settings] if len(settings) > 1 else [])]:
        try:
            family = _family(pools, reference, own)
            families.append(_compared(family, factor, held, reference, own, score, main=own is settings))
            refusals += [reason for reasons in family["missing"].values() for reason in reasons]
        except (_Refusal, UserError) as refusal:
            refusals += refusal.args
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
    first, others = cells[cells["level"] == reference], cells[cells["level"] != reference]
    own = first["setting"].tolist()
    shared = [setting for setting in own if (others["setting"] == setting).any()]
    warnings = []
    for index in others.index[~others["setting"].isin(own)] if own else ():
        pair = settings_of(placed.loc[[index, first.index[0]]])
        keys = [key for key in varying(pair) if not is_of(key, factor)]
        keys = [key for key in keys if not key.startswith(("trainer.", "dataset.", "split."))]
        differences = ", ".join(f"{key} {' and '.join(map(value_text, pair[key]))}" for key in keys)
        titles = " and ".join(placed.loc[[index, first.index[0]], "title"])
        warnings.append(f"{titles} differ in more than {factor}: {differences}")
    if shared or not own or len(cells) < 2 or not cells["level"].is_unique:
        return shared, warnings
    return UNEQUAL, warnings


def _family(pools: pd.DataFrame, reference: str, settings: Sequence[str]) -> Json:
    """The largest fair comparison at ``settings``: all levels that are complete wherever the reference was run too.

    Returns:
        ``levels``, level -> place (magnification and setting) -> rows of ``pools``, one a replicate; ``magnifications,
        replicates``; ``missing``, why a level that was run does not take part; ``notes``, what was left out; ``whole``,
        whether every replicate takes part.

    Raises:
        _Refusal: nothing can be compared.
    """
    rows = pools.reset_index()
    if list(settings) == UNEQUAL:
        rows["setting"] = ""
    rows = rows[rows["setting"].isin(["", *settings])]
    rows["place"] = (rows["magnification"] + " " + rows["setting"]).str.strip()
    own, others = rows[rows["level"] == reference], rows[rows["level"] != reference]
    places = [place for place in own["place"].unique() if place in set(others["place"])]
    if not places:
        raise _Refusal(f"no other level was run where {reference} was")
    rows = rows[rows["place"].isin(places)]
    mine, theirs = (set(each.loc[each["place"].isin(places), "replicate"]) for each in (own, others))
    notes = [f"{reference} {_listed(mine - theirs)} has no counterpart and is left out"][: len(mine - theirs)]
    notes += [f"{_listed(theirs - mine)} was not run for {reference} and is left out"][: len(theirs - mine)]
    wanted = sorted(mine & theirs)
    if not wanted:
        raise _Refusal(f"no replicate (seed and repeat of the split) of {reference} has a counterpart")
    at = {(row["level"], row["place"], row["replicate"]): row for row in rows.to_dict("records")}
    begun = {key[:2] for key in at}

    def gaps(level: str, replicates: Sequence[Any]) -> list[str]:
        texts = []
        for key in ((level, place, one) for place in places for one in replicates):
            name = f" {replicate_text(key[2])}" if key[:2] in begun else ""
            texts.append(at[key]["problem"] if key in at else f"{level} {key[1]}{name}: no run")
        return [text for text in dict.fromkeys(texts) if text]

    levels = [reference, *(level for level in rows["level"].unique() if level != reference)]
    # All replicates; those at which the reference is complete; those at which another level is too.
    whole = [one for one in wanted if not gaps(reference, [one])]
    subsets = [[one for one in whole if not gaps(level, [one])] for level in levels[1:]]
    refusals = []
    for replicates in [wanted, whole, *sorted(subsets, key=len, reverse=True)]:
        missing = {level: gaps(level, replicates) for level in levels}
        found = {
            level: {place: [at[level, place, one] for one in replicates] for place in places}
            for level in levels
            if not missing[level]
        }
        for level in list(found)[1:] if reference in found else ():
            if problem := _mismatch(found[reference], found[level], reference, level):
                missing[level] = [problem]
                del found[level]
        if reference not in found or len(found) < 2:
            refusals.append(missing[reference] or [text for reasons in missing.values() for text in reasons])
        elif problems := _other_partitions(found[reference], replicates):
            refusals.append(problems)
        elif replicates:
            note = f"only {_listed(replicates)} is complete, so this is not the comparison that was planned"
            magnifications = dict(zip(rows["place"], rows["magnification"], strict=True))
            return {
                "levels": found,
                "magnifications": list(dict.fromkeys(magnifications[place] for place in places)),
                "replicates": [replicate_text(one) for one in replicates],
                "missing": {level: reasons for level, reasons in missing.items() if reasons},
                "notes": notes if replicates is wanted else [*notes, note],
                "whole": replicates is wanted,
            }
    raise _Refusal(*refusals[0])


def _listed(replicates: Iterable[Any]) -> str:
    return ", ".join(replicate_text(one) for one in sorted(replicates))


def _mismatch(mine: Json, theirs: Json, reference: str, level: str) -> str:
    """Why two levels were not tested on the same images in the same folds; empty where they were."""
    for place in mine:
        for one, other in zip(mine[place], theirs[place], strict=True):
            if _folds(one["pooled"][0]) != _folds(other["pooled"][0]):
                return f"{level} {place} was not tested on the same images in the same folds as {reference}"
            if one["fingerprint"] != other["fingerprint"]:
                return f"{level} {place} and {reference} saw different pixels under the same names (data_fingerprint)"
    return ""


def _folds(replicate: Replicate) -> dict[str, int]:
    return dict(zip(replicate.table.image.tolist(), replicate.fold.tolist(), strict=True))


def _other_partitions(places: Json, replicates: Sequence[Any]) -> list[str]:
    counts = [len({rows[n]["partition"] for rows in places.values()}) for n in range(len(replicates))]
    return [
        f"{replicate_text(one)}: the magnifications were split by {count} different partitions of the cases, so they "
        "cannot be averaged; train them on one copy of the data set"
        for one, count in zip(replicates, counts, strict=True)
        if count > 1
    ]


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
    levels, magnifications = family.pop("levels"), family["magnifications"]
    comparison = compare_levels(
        {
            level: {place: [row["pooled"][0] for row in rows] for place, rows in places.items()}
            for level, places in levels.items()
        },
        reference=reference,
        score=score,
        primary=main,
        equal_budget=list(settings) != UNEQUAL and factor != "epochs",
    )
    places = list(levels[reference])
    own = [setting for setting in settings if setting not in ("", *UNEQUAL)]
    # Two settings by name, more by their number; the report's first lines name them all.
    over = " and ".join(own) if len(own) < 3 else f"{len(own)} settings of {' and '.join(held)}"
    if len(own) > 1:  # each magnification appears once for each setting: say so in the sentences
        several = f"{len(magnifications)} magnifications and " if len(magnifications) > 1 else ""
        for pair in comparison["pairs"]:
            average = f"mean over {len(places)} magnifications"
            pair["words"] = pair["words"].replace(average, f"mean over {several}{over}")
    suffix = f", mean over {over}" if len(own) > 1 else f" with {over}" if own else ""
    runs = {
        run for level in levels.values() for rows in level.values() for row in rows for run in row["runs"]
    }
    about = {"main": main, "held": own, "over": over, "title": f"{factor} against {reference}{suffix}"}
    return about | family | {"runs": sorted(runs), "places": places, "comparison": comparison}
