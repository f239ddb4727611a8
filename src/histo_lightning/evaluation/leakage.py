"""Image-level scores of leaky and clean arms, and their differences clustered by case, with seed variance.

``comparison.compare_arms`` cannot take these arms: with ``image_random`` and ``slide_kfold`` one case stands in several
folds, official folds test a case several times, and an arm is compared on parts of the images. Here a score is a sum over
cases that can leave any case out, and a contrast is a weighted sum of scores; its variance is section 5's
(:func:`paired`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_lightning.evaluation.conclusion import CONDITIONAL
from histo_lightning.evaluation.paired import LEVEL, Floats, Integers, paired
from histo_lightning.evaluation.table import Table

SCORES = ("auroc", "balanced_accuracy", "accuracy")
Text = NDArray[np.str_]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Predictions of one arm, magnification and seed: N rows of the test parts of several folds.

    Attributes:
        truth, decision: (N,) int64, 1 malignant.
        p: (N,) float64, P(malignant).
        image, case: (N,) text; an image may stand in several folds.
        fold: (N,) int64; only pairs of one fold are ranked against each other.
    """

    truth: Integers
    decision: Integers
    p: Floats
    image: Text
    case: Text
    fold: Integers

    def chosen(self, keep: NDArray[np.bool_]) -> "Rows":
        return Rows(*(getattr(self, name)[keep] for name in self.__slots__))


def rows_of(tables: Mapping[int, Table]) -> Rows:
    """The rows of the test parts of several folds (by fold number)."""
    whole = list(tables.values())
    p = np.concatenate([t.p_malignant for t in whole])
    return Rows(
        truth=np.concatenate([t.malignant for t in whole]),
        decision=np.asarray(p >= 0.5, np.int64),
        p=p,
        image=np.concatenate([t.image for t in whole]),
        case=np.concatenate([t.case for t in whole]),
        fold=np.repeat(np.array(list(tables), np.int64), [len(t) for t in whole]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Cases:
    """The C cases that a contrast is clustered by: their names (sorted) and classes, 0 benign, 1 malignant."""

    name: Text
    malignant: Integers


def cases_of(everything: Sequence[Rows]) -> Cases:
    """The cases of several sets of rows."""
    case = np.concatenate([rows.case for rows in everything])
    truth = np.concatenate([rows.truth for rows in everything])
    name, first = np.unique(case, return_index=True)
    return Cases(name, truth[first])


def _by_case(rows: Rows, cases: Cases, values: Floats) -> Floats:
    index = np.searchsorted(cases.name, rows.case)
    return np.bincount(index, weights=values, minlength=len(cases.name)).astype(np.float64)


def _without(part: Floats, whole: Floats) -> Floats:
    """part / whole, NaN where nothing is left."""
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0.5))


def auroc(rows: Rows, cases: Cases) -> Floats:
    """(1 + C,): image-level AUROC over the pairs of one fold (ties half), then the same without each case."""
    right, pairs = np.zeros(len(rows.p)), np.zeros(len(rows.p))
    for fold in np.unique(rows.fold):
        for truth in (0, 1):
            own = np.flatnonzero((rows.fold == fold) & (rows.truth == truth))
            rivals = np.sort(rows.p[(rows.fold == fold) & (rows.truth != truth)])
            below = (
                np.searchsorted(rivals, rows.p[own], "left") + np.searchsorted(rivals, rows.p[own], "right")
            ) / 2
            right[own] = below if truth else len(rivals) - below
            pairs[own] = len(rivals)
    positive = rows.truth == 1  # each pair once, by its malignant member; a case has one class
    by_case = [_by_case(rows, cases, values) for values in (right, pairs)]
    return _without(*(np.append(v[positive].sum(), v[positive].sum() - c)
                      for v, c in zip((right, pairs), by_case, strict=True)))  # fmt: skip


def balanced_accuracy(rows: Rows, cases: Cases) -> Floats:
    """(1 + C,): mean over the classes of the share of images called rightly at 0.5, then the same without each case."""
    shares = []
    for truth in (0, 1):
        own = rows.truth == truth
        right = own & (rows.decision == truth)
        sums = [(np.sum(v), _by_case(rows, cases, v.astype(np.float64))) for v in (right, own)]
        shares.append(_without(*(np.append(total, total - each) for total, each in sums)))
    return np.asarray((shares[0] + shares[1]) / 2)


def accuracy(rows: Rows, cases: Cases) -> Floats:
    """(1 + C,): share of the images called rightly at 0.5, then the same without each case; one class is enough."""
    right = np.asarray(rows.decision == rows.truth, np.float64)
    return _without(
        np.append(right.sum(), right.sum() - _by_case(rows, cases, right)),
        np.append(len(right), len(right) - _by_case(rows, cases, np.ones(len(right)))),
    )


FORMULAS = {"auroc": auroc, "balanced_accuracy": balanced_accuracy, "accuracy": accuracy}
# Rows by seed and magnification.
Cells = Mapping[tuple[int, int], Rows]


def estimate(terms: Sequence[tuple[float, Cells]], score: str) -> dict[str, Any]:
    """A weighted sum of scores, e.g. ``[(1, leaky), (-1, clean)]``, with its standard error and 95 % interval.

    Every term has the same seeds and magnifications. A score is averaged over magnifications, then over seeds; the variance
    is that of cases (jackknife by class) plus s_seed^2 / R, with Satterthwaite's degrees of freedom. The interval of a single
    score (one term of weight 1) is made on the logit scale, so that it stays within 0 and 1.

    Returns:
        ``value, low, high, se, case_se, seed_se, seed_sd, df, t, p, seeds, cases, benign, images, conditional, reason``;
        what is undefined is None, and ``reason`` says why.
    """
    keys = sorted(terms[0][1])
    if any(sorted(cells) != keys for _, cells in terms):
        raise ValueError("the terms of a contrast need the same seeds and magnifications")
    seeds = sorted({seed for seed, _ in keys})
    magnifications = sorted({magnification for _, magnification in keys})
    everything = [rows for _, cells in terms for rows in cells.values()]
    cases = cases_of(everything)
    formula = FORMULAS[score]
    found = np.stack(
        [
            np.stack([_weighted(terms, formula, cases, (s, m)) for m in magnifications]).mean(axis=0)
            for s in seeds
        ]
    )
    benign = int((cases.malignant == 0).sum())
    record: dict[str, Any] = {
        "seeds": len(seeds),
        "magnifications": len(magnifications),
        "cases": len(cases.name),
        "benign": benign,
        "images": len(np.unique(np.concatenate([rows.image for rows in everything]))),
        "by_seed": [float(v) if np.isfinite(v) else None for v in found[:, 0]],
        "conditional": CONDITIONAL if len(seeds) == 1 else None,
    }
    single = len(terms) == 1 and terms[0][0] == 1
    return record | _inferred(found, cases, single)


def _weighted(
    terms: Sequence[tuple[float, Cells]],
    formula: Callable[[Rows, Cases], Floats],
    cases: Cases,
    key: tuple[int, int],
) -> Floats:
    each = np.stack([weight * formula(cells[key], cases) for weight, cells in terms])
    return np.asarray(each.sum(axis=0))


UNDEFINED = dict.fromkeys(
    ("value", "low", "high", "se", "case_se", "seed_se", "seed_sd", "df", "t", "p", "reason")
)


def _inferred(found: Floats, cases: Cases, single: bool) -> dict[str, Any]:
    """Value, errors and interval of (R, 1 + C) scores: whole, then without each case."""
    values, left_out = found[:, 0], found[:, 1:]
    if not np.isfinite(values).all():
        return UNDEFINED | {"reason": "these images are of one class only"}
    known = UNDEFINED | {"value": float(values.mean())}
    if len(values) > 1:
        known["seed_sd"] = float(values.std(ddof=1))
    if np.unique(cases.malignant, return_counts=True)[1].min() < 2:
        return known | {"reason": "a class has a single case here: no standard error over cases"}
    if not np.isfinite(left_out).all():
        return known | {"reason": "without one of the cases it is undefined: no standard error over cases"}
    result = paired(values, left_out, cases.malignant)
    known |= {
        "se": float(result.se),
        "case_se": float(result.case_se),
        "seed_se": float(result.seed_se) if len(values) > 1 else None,
    }
    if not result.se > 0:
        return known | {"reason": "no spread over cases and seeds, so there is no standard error"}
    half, value = float(result.half_width(LEVEL)), float(result.difference)
    known |= {"df": float(result.df)}
    if not single:
        return known | {
            "low": value - half, "high": value + half, "t": float(result.t), "p": float(result.p)
        }  # fmt: skip
    if not 0 < value < 1:
        return known | {"reason": "the score stands at its limit, so its logit has no interval"}
    logit, scaled = np.log(value / (1 - value)), half / (value * (1 - value))
    low, high = (float(1 / (1 + np.exp(-(logit + side * scaled)))) for side in (-1, 1))
    return known | {"low": low, "high": high}
