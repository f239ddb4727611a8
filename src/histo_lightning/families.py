"""Which arms are compared with which: families of comparisons over arms that were run alike.

The main family of a world averages over the magnifications and, where other factors were crossed with the compared
one, over their levels too, so there is one primary family however many factors were swept. One exploratory family
for each level of the other factors stands beside it, with Holm's adjustment over all of their comparisons.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from histo_lightning.cells import Arm, Cell, Design, Replicate, magnification_order, value_text, varying
from histo_lightning.errors import UserError
from histo_lightning.pooled_cells import OutOfFold, PooledCell

Json = dict[str, Any]


class Place(NamedTuple):
    """Where arms are compared: one magnification at one level of the other factors."""

    stratum: str
    magnification: str

    def __str__(self) -> str:
        return f"{self.magnification} {self.stratum}".strip()


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """Arms that can be compared: the same replicates at the same places, reference first.

    Attributes:
        arms: level -> place -> poolings, one a replicate in the order of ``replicates``.
        missing: why a level that was run does not take part.
        notes: what was left out of the comparison.
    """

    world: str
    reference: str
    strata: Sequence[str]
    places: Sequence[Place]
    replicates: Sequence[Replicate]
    arms: Mapping[str, Mapping[Place, Sequence[OutOfFold]]]
    missing: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    whole: bool = True

    def cells(self) -> list[tuple[str, Place]]:
        return [(level, place) for level in self.arms for place in self.places]


class Refusal(NamedTuple):
    """Why nothing of a world is compared."""

    world: str
    reasons: list[str]


Cells = Mapping[tuple[str, Place], PooledCell]


def strata_of(design: Design, world: str, reference: str) -> tuple[list[str], list[str]]:
    """The levels of the other factors at which the reference and another level were run, and what to warn about.

    Returns:
        Strata in order, ``["*"]`` where the settings that belong to no level were never equal and the levels are
        compared all the same; and warnings that name the keys.
    """
    arms = list(dict.fromkeys(cell.arm for cell in design.cells if cell.world == world))
    own = [arm.stratum for arm in arms if arm.level == reference]
    shared = [stratum for stratum in own if any(a.stratum == stratum and a.level != reference for a in arms)]
    warnings = []
    for arm in arms:
        if arm.level != reference and arm.stratum not in own and own:
            told = differences(design, Arm(reference, own[0]), arm)
            warnings.append(f"{arm} and {Arm(reference, own[0])} differ in more than {design.factor}: {told}")
    if shared or not own or len(arms) < 2:
        return shared, warnings
    levels = [arm.level for arm in arms]
    return (["*"] if len(set(levels)) == len(levels) else []), warnings


def differences(design: Design, first: Arm, second: Arm) -> str:
    """``optimizer.lr 0.05 and 0.001``: the settings beyond the compared factor in which two arms differ."""
    one, other = design.settings[first], design.settings[second]
    keys = [key for key in varying([one, other]) if key != design.factor]
    kept = [
        key for key in keys if not key.startswith((f"{design.factor}.", "trainer.", "dataset.", "split."))
    ]
    return ", ".join(f"{key} {value_text(other.get(key))} and {value_text(one.get(key))}" for key in kept)


def build_family(
    pooled: Sequence[PooledCell], world: str, reference: str, strata: Sequence[str]
) -> Family | Refusal:
    """The largest fair comparison at ``strata``: all levels that are complete wherever the reference was run too."""
    merged = list(strata) == ["*"]
    cells: dict[tuple[str, Place], PooledCell] = {}
    for found in pooled:
        cell = found.cell
        if cell.world == world and (merged or cell.arm.stratum in strata):
            place = Place("" if merged else cell.arm.stratum, cell.magnification)
            cells[cell.arm.level, place] = found
    others = list(dict.fromkeys(level for level, _ in cells if level != reference))
    places = _places(cells, reference, others, strata)
    if not places:
        return Refusal(world, [f"no other level was run where {reference} was"])
    wanted, notes = _replicates(cells, reference, others, places)
    if not wanted:
        return Refusal(
            world, [f"no replicate (seed and repeat of the split) of {reference} has a counterpart"]
        )
    family = _complete(cells, world, reference, others, strata, places, wanted, notes)
    if isinstance(family, Family):
        return family
    for replicates in _subsets(cells, reference, others, places, wanted):
        told = [
            *notes,
            f"only {_listed(replicates)} is complete, so this is not the comparison that was planned",
        ]
        smaller = _complete(cells, world, reference, others, strata, places, replicates, told, whole=False)
        if isinstance(smaller, Family):
            return smaller
    return family


def _places(cells: Cells, reference: str, others: Sequence[str], strata: Sequence[str]) -> list[Place]:
    found = [place for level, place in cells if level == reference]
    found = [place for place in found if any((level, place) in cells for level in others)]
    order = {stratum: number for number, stratum in enumerate(strata)}
    return sorted(
        found, key=lambda place: (order.get(place.stratum, 0), magnification_order(place.magnification))
    )


def _replicates(
    cells: Cells, reference: str, others: Sequence[str], places: Sequence[Place]
) -> tuple[list[Replicate], list[str]]:
    """Replicates that were begun for the reference and for another level; those without a counterpart are said."""

    def of(levels: Sequence[str]) -> set[Replicate]:
        return {
            one
            for level in levels
            for place in places
            if (level, place) in cells
            for one in cells[level, place].cell.runs
        }

    mine, theirs = of([reference]), of(others)
    notes = []
    if alone := sorted(mine - theirs):
        notes.append(f"{reference} {_listed(alone)} has no counterpart and is left out")
    if alone := sorted(theirs - mine):
        notes.append(f"{_listed(alone)} was not run for {reference} and is left out")
    return sorted(mine & theirs), notes


def _listed(replicates: Sequence[Replicate]) -> str:
    return ", ".join(str(one) for one in replicates)


def _gaps(cells: Cells, level: str, places: Sequence[Place], replicates: Sequence[Replicate]) -> list[str]:
    """What is missing of a level, in words."""
    found = []
    for place in places:
        cell = cells.get((level, place))
        if cell is None:
            found.append(f"{level} {place}: no run")
            continue
        for one in replicates:
            if one in cell.problems:
                found.append(cell.problems[one])
            elif one not in cell.pooled:
                found.append(f"{level} {place} {one}: no run")
    return found


def _complete(
    cells: Cells,
    world: str,
    reference: str,
    others: Sequence[str],
    strata: Sequence[str],
    places: Sequence[Place],
    replicates: Sequence[Replicate],
    notes: Sequence[str],
    whole: bool = True,
) -> Family | Refusal:
    gaps = {level: _gaps(cells, level, places, replicates) for level in [reference, *others]}
    if gaps[reference]:
        return Refusal(world, gaps[reference])
    missing = {level: reasons for level, reasons in gaps.items() if reasons}
    arms = {
        level: {place: [cells[level, place].pooled[one][0] for one in replicates] for place in places}
        for level in [reference, *others]
        if level not in missing
    }
    for level in [level for level in arms if level != reference]:
        if told := _mismatch(arms[reference], arms[level], reference, level):
            missing[level] = [told]
            del arms[level]
    if len(arms) < 2:
        return Refusal(world, [text for reasons in missing.values() for text in reasons])
    try:
        _refuse_other_partitions(arms[reference], replicates)
    except UserError as error:
        return Refusal(world, [str(error)])
    return Family(world, reference, list(strata), list(places), list(replicates), arms, missing, notes, whole)


def _subsets(
    cells: Cells,
    reference: str,
    others: Sequence[str],
    places: Sequence[Place],
    wanted: Sequence[Replicate],
) -> list[list[Replicate]]:
    """Replicates at which the reference is complete; then those at which it and one other level are."""
    complete = {
        level: [one for one in wanted if not _gaps(cells, level, places, [one])]
        for level in [reference, *others]
    }
    mine = complete[reference]
    common = [[one for one in mine if one in complete[level]] for level in others]
    found = [mine, *sorted(common, key=len, reverse=True)]
    return [replicates for replicates in found if replicates]


def _mismatch(
    mine: Mapping[Place, Sequence[OutOfFold]],
    theirs: Mapping[Place, Sequence[OutOfFold]],
    reference: str,
    level: str,
) -> str:
    """Why two levels were not tested on the same images in the same folds; empty where they were."""
    for place in mine:
        for one, other in zip(mine[place], theirs[place], strict=True):
            if _layout(one) != _layout(other):
                return f"{level} {place} was not tested on the same images in the same folds as {reference}"
            if one.runs[0].status.get("data_fingerprint") != other.runs[0].status.get("data_fingerprint"):
                return f"{level} {place} and {reference} saw different pixels under the same names (data_fingerprint)"
    return ""


def _layout(found: OutOfFold) -> list[tuple[str, int]]:
    return sorted(zip(found.table.image.tolist(), found.fold.tolist(), strict=True))


def _refuse_other_partitions(
    arm: Mapping[Place, Sequence[OutOfFold]], replicates: Sequence[Replicate]
) -> None:
    for number, one in enumerate(replicates):
        hashes = {found[number].runs[0].split["partition_hash"] for found in arm.values()}
        if len(hashes) > 1:
            raise UserError(
                f"{one}: the magnifications were split by {len(hashes)} different partitions of the cases, so they "
                "cannot be averaged; train them on one copy of the data set"
            )


def by_image(found: OutOfFold) -> OutOfFold:
    """The same predictions in order of image, so that rows of two arms stand for the same image."""
    order = np.argsort(found.table.image, kind="stable")
    return OutOfFold(found.table.rows(order), found.fold[order], found.runs)


def worlds_of(cells: Sequence[Cell]) -> list[str]:
    """Worlds, the one with the most finished runs first."""
    count: dict[str, int] = {}
    for cell in cells:
        count[cell.world] = count.get(cell.world, 0) + sum(run.finished for run in cell.all_runs)
    return sorted(count, key=lambda world: (-count[world], world))
