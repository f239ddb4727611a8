"""The three arms of the leakage study, from the predictions of their runs: what leaks, and by how much.

Each block is a plain dict ``{"arms": [...], "pairs": [...]}`` of records ``{"arm", "reference", "among", "auroc",
"balanced_accuracy", "accuracy", "coverage"}``; the scores are what :func:`leakage.estimate` returns, differences with ``p_holm``
over their table.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_lightning.evaluation.leakage import SCORES, Cells, Rows, estimate, rows_of
from histo_lightning.evaluation.simultaneous import holm
from histo_lightning.evaluation.table import Table

Key = tuple[int, int, int]  # seed, magnification, fold
Runs = Mapping[Key, Table]  # the test predictions of an arm's finished runs
Record = dict[str, Any]

CONTRAST = ("image_random", "slide_kfold", "case_kfold")
OFFICIAL = ("official", "official clean", "official matched")
MANY = "images of cases with several slides"
TOUCHED, UNTOUCHED = "touched images", "untouched images"


def whole_block(keys: set[Key]) -> set[Key]:
    """The keys of a product of seeds and (magnification, fold), so that every seed is scored on the same images.

    Where a run is missing, the seed or the fold that loses the fewest finished runs is left out, in turn.
    """
    kept = set(keys)
    while kept:
        seeds = sorted({k[0] for k in kept})
        units = sorted({k[1:] for k in kept})
        if len(kept) == len(seeds) * len(units):
            break
        by_seed = {s: sum(k[0] == s for k in kept) for s in seeds}
        by_unit = {u: sum(k[1:] == u for k in kept) for u in units}
        seed = min((s for s in seeds if by_seed[s] < len(units)), key=lambda s: (by_seed[s], -s))
        unit = min((u for u in units if by_unit[u] < len(seeds)), key=lambda u: (by_unit[u], u))
        drop_unit = by_unit[unit] <= by_seed[seed]
        kept = {k for k in kept if (k[1:] != unit if drop_unit else k[0] != seed)}
    return kept


def _pooled(runs: Runs, keys: set[Key]) -> dict[tuple[int, int], Rows]:
    cells = {}
    for seed, magnification in sorted({k[:2] for k in keys}):
        folds = sorted(k[2] for k in keys if k[:2] == (seed, magnification))
        cells[seed, magnification] = rows_of({f: runs[seed, magnification, f] for f in folds})
    return cells


def side_by_side(arms: Sequence[Runs]) -> tuple[list[Cells], Record]:
    """Arms on the same seeds, magnifications, folds and images, and what that leaves: the record's ``coverage``."""
    common = set.intersection(*(set(runs) for runs in arms))
    keys = whole_block(common)
    cells = [_pooled(runs, keys) for runs in arms]
    magnifications = sorted({k[1] for k in keys})
    coverage = {
        "seeds": sorted({k[0] for k in keys}),
        "magnifications": magnifications,
        "folds": sorted({k[2] for k in keys}),
        "runs_left_out": sum(len(runs) - len(keys) for runs in arms),
    }
    for magnification in magnifications:
        here = [rows for each in cells for (_, m), rows in each.items() if m == magnification]
        images = set.intersection(*(set(rows.image.tolist()) for rows in here))
        for each in cells:
            for key in [k for k in each if k[1] == magnification]:
                rows = each[key]
                each[key] = rows.chosen(np.array([image in images for image in rows.image.tolist()], bool))
    return list(cells), coverage


def _record(
    arm: str, reference: str | None, among: str, terms: Sequence[tuple[float, Cells]], coverage: Record
) -> Record:
    found = {score: estimate(terms, score) for score in SCORES}
    return {"arm": arm, "reference": reference, "among": among, **found, "coverage": coverage}


def _adjusted(pairs: list[Record]) -> list[Record]:
    """The same records with Holm's ``p_holm`` over the table, score by score."""
    for score in SCORES:
        p = np.array([np.nan if r[score]["p"] is None else r[score]["p"] for r in pairs])
        for record, value in zip(pairs, holm(p), strict=True):
            record[score]["p_holm"] = float(value) if np.isfinite(value) else None
    return pairs


def _one(arm: str, runs: Runs, among: str = "all images") -> Record:
    (cells,), coverage = side_by_side([runs])
    return _record(arm, None, among, [(1.0, cells)], coverage)


def _difference(arm: str, reference: str, arms: Mapping[str, Runs]) -> Record | None:
    if not set(arms[arm]) & set(arms[reference]):
        return None
    (leaky, clean), coverage = side_by_side([arms[arm], arms[reference]])
    return _record(arm, reference, "all images", [(1.0, leaky), (-1.0, clean)], coverage)


def _kept(cells: Cells, keep: Mapping[tuple[int, int], NDArray[np.bool_]]) -> Cells:
    return {key: rows.chosen(keep[key]) for key, rows in cells.items()}


def contrast(arms: Mapping[str, Runs]) -> Record:
    """A: out-of-fold scores of the three ways to split, and their differences to ``case_kfold``.

    ``slide_kfold`` is compared on the cases with several slides only: for all others it is a split by case too.
    """
    there = [name for name in CONTRAST if arms.get(name)]
    pairs = []
    if "case_kfold" in there:
        if "image_random" in there:
            pairs.append(_difference("image_random", "case_kfold", arms))
        if "slide_kfold" in there:
            pairs.append(_many_slides(arms))
    return {
        "arms": [_one(name, arms[name]) for name in there],
        "pairs": _adjusted([p for p in pairs if p is not None]),
    }


def many_slide_cases(tables: Sequence[Table]) -> list[str]:
    """Cases of which the tables hold more than one slide, sorted."""
    slides: dict[str, set[str]] = {}
    for table in tables:
        for case, slide in zip(table.case.tolist(), table.slide.tolist(), strict=True):
            slides.setdefault(case, set()).add(slide)
    return sorted(case for case, found in slides.items() if len(found) > 1)


def _many_slides(arms: Mapping[str, Runs]) -> Record | None:
    names = ("slide_kfold", "case_kfold")
    many = many_slide_cases([table for name in names for table in arms[name].values()])
    if not many or not set(arms[names[0]]) & set(arms[names[1]]):
        return None
    cells, coverage = side_by_side([arms[name] for name in names])
    few = [_kept(each, {key: np.isin(rows.case, many) for key, rows in each.items()}) for each in cells]
    if not any(len(rows.p) for rows in few[0].values()):
        return None
    return _record(*names, MANY, [(1.0, few[0]), (-1.0, few[1])], coverage)


def injection(arms: Mapping[str, Runs]) -> Record:
    """B: scores on the probe by share of siblings in train, and their differences to the clean arm, ``injected 0``."""
    there = sorted((name for name in arms if arms[name]), key=share_of)
    pairs = [_difference(n, "injected 0", arms) for n in there if share_of(n) and "injected 0" in there]
    return {
        "arms": [_one(name, arms[name]) for name in there],
        "pairs": _adjusted([p for p in pairs if p is not None]),
    }


def share_of(arm: str) -> float:
    """0.25 of ``injected 0.25``."""
    return float(arm.split()[-1])


def official(arms: Mapping[str, Runs], shared: Mapping[int, Sequence[str]]) -> Record:
    """C: touched and untouched test images of the authors' folds, and what the shared cases do to either.

    Args:
        shared: the cases that train and test share, by fold; their images are the touched ones.

    The leak is ``official`` minus ``official clean`` on touched images; on untouched ones it should be near 0, and the
    size-matched control tells how much of either is the size of the training part.
    """
    there = [name for name in OFFICIAL if arms.get(name)]
    block: Record = {"arms": [], "pairs": []}
    for name in there:
        (cells,), coverage = side_by_side([arms[name]])
        groups = _by_touch(cells, shared)
        present = [g for g in groups if any(len(rows.p) for rows in groups[g].values())]
        block["arms"] += [_record(name, None, g, [(1.0, groups[g])], coverage) for g in present]
        if len(present) == 2:
            terms = [(1.0, groups[TOUCHED]), (-1.0, groups[UNTOUCHED])]
            block["arms"].append(_record(name, None, "touched minus untouched", terms, coverage))
    for arm, reference in (
        ("official", "official clean"),
        ("official matched", "official clean"),
        ("official", "official matched"),
    ):
        if arm not in there or reference not in there or not set(arms[arm]) & set(arms[reference]):
            continue
        (leaky, clean), coverage = side_by_side([arms[arm], arms[reference]])
        ours, theirs = _by_touch(leaky, shared), _by_touch(clean, shared)
        apart = {g: [(1.0, ours[g]), (-1.0, theirs[g])] for g in ours}
        present = [g for g in ours if any(len(rows.p) for rows in ours[g].values())]
        found = [_record(arm, reference, g, apart[g], coverage) for g in present]
        if len(present) == 2:
            both = apart[TOUCHED] + [(-weight, cells) for weight, cells in apart[UNTOUCHED]]
            found.append(_record(arm, reference, "touched minus untouched", both, coverage))
        block["pairs"] += found
    _adjusted(block["pairs"])
    return block


def _by_touch(cells: Cells, shared: Mapping[int, Sequence[str]]) -> dict[str, Cells]:
    touched = {
        key: np.array(
            [c in shared.get(int(f), ()) for c, f in zip(rows.case.tolist(), rows.fold, strict=True)], bool
        )
        for key, rows in cells.items()
    }
    return {
        TOUCHED: _kept(cells, touched),
        UNTOUCHED: _kept(cells, {key: ~keep for key, keep in touched.items()}),
    }
