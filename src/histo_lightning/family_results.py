"""The statistics of each family of comparisons, in plain values."""

from collections.abc import Iterable, Sequence
from typing import Any

from histo_lightning.cells import Design
from histo_lightning.errors import UserError
from histo_lightning.evaluation import comparison
from histo_lightning.families import Family, Refusal, build_family, by_image, strata_of
from histo_lightning.pooled_cells import PooledCell

Json = dict[str, Any]


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for all of them together (Holm 1979), in their order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def compare_world(
    design: Design, pooled: Sequence[PooledCell], world: str, reference: str, score: str
) -> tuple[list[Json], list[str], list[str]]:
    """Compare every level of a world with the reference.

    Returns:
        Families, the main one first (simultaneous intervals), then, where other factors were crossed with the
        compared one, one for each of their levels with Holm's adjustment over all of their comparisons; the reasons
        why something is not compared; and warnings.
    """
    strata, warnings = strata_of(design, world, reference)
    levels = list(dict.fromkeys(cell.arm.level for cell in design.cells if cell.world == world))
    if reference not in levels:
        return [], [f"no run of the reference {reference}; it holds {', '.join(levels)}"], warnings
    if len(levels) < 2:
        return [], [f"only {reference} was run, so there is nothing to compare it with"], warnings
    if not strata:
        return [], ["no level was run at the settings of the reference", *warnings], warnings
    refusals: list[str] = []
    families: list[Json] = []
    for wanted in [strata, *([[one] for one in strata] if len(strata) > 1 else [])]:
        family = build_family(pooled, world, reference, wanted)
        if isinstance(family, Refusal):
            refusals += [reason for reason in family.reasons if reason not in refusals]
            continue
        try:
            families.append(_compared(design, family, score, main=wanted is strata))
        except UserError as error:
            refusals.append(str(error))
            continue
        told = (text for texts in family.missing.values() for text in texts)
        refusals += [text for text in told if text not in refusals]
    _adjust([family for family in families if not family["main"]])
    return families, refusals, warnings


def _compared(design: Design, family: Family, score: str, *, main: bool) -> Json:
    arms = {
        level: {
            str(place): [
                comparison.Replicate(found.table, found.fold) for found in map(by_image, places[place])
            ]
            for place in family.places
        }
        for level, places in family.arms.items()
    }
    alike = family.strata != ["*"] and design.factor != "epochs"
    result = comparison.compare_arms(
        arms, reference=family.reference, score=score, primary=main, equal_budget=alike
    )
    held = [stratum for stratum in family.strata if stratum not in ("", "*")]
    over = held_words(held, design.held)
    if len(held) > 1:
        _name_places(result, family, over)
    return {
        "world": family.world,
        "main": main,
        "held": held,
        "over": over,
        "title": f"{design.factor} against {family.reference}{_with(held, over)}",
        "magnifications": list(dict.fromkeys(place.magnification for place in family.places)),
        "runs": sorted(
            {
                run.name
                for places in family.arms.values()
                for poolings in places.values()
                for pooling in poolings
                for run in pooling.runs
            }
        ),
        "places": [str(place) for place in family.places],
        "replicates": [str(one) for one in family.replicates],
        "missing": {level: list(reasons) for level, reasons in family.missing.items()},
        "notes": list(family.notes),
        "whole": family.whole,
        "comparison": result,
    }


def _name_places(result: Json, family: Family, held: str) -> None:
    """Each magnification stands there once for each level of the other factors: say so in the sentences."""
    count = len({place.magnification for place in family.places})
    over = f"{count} magnifications and {held}" if count > 1 else held
    for pair in result["pairs"]:
        pair["words"] = pair["words"].replace(
            f"mean over {len(family.places)} magnifications", f"mean over {over}"
        )


def held_words(held: Sequence[str], keys: Iterable[str]) -> str:
    """Two levels of the other factors by name, more by their number; the report's first lines name them all."""
    return " and ".join(held) if len(held) < 3 else f"{len(held)} settings of {' and '.join(keys)}"


def _with(held: Sequence[str], over: str) -> str:
    return "" if not held else f", mean over {over}" if len(held) > 1 else f" with {over}"


def _adjust(families: Sequence[Json]) -> None:
    """Add ``p_holm_families``: adjusted over all comparisons of all these families."""
    pairs = [pair for family in families for pair in family["comparison"]["pairs"]]
    known = [pair for pair in pairs if pair.get("p") is not None]
    for pair in pairs:
        pair["p_holm_families"] = None
    for pair, value in zip(known, holm([float(pair["p"]) for pair in known]), strict=True):
        pair["p_holm_families"] = value
