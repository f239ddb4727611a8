"""The layout that all compared levels share (cases, images, folds), proven before they are scored alike."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.errors import UserError
from histo_lightning.evaluation.levels import is_grouped, units
from histo_lightning.evaluation.registry import NamedScore
from histo_lightning.evaluation.table import Floats, Integers, Table, Text

FEWEST_CASES = 2
"""Of a class: a variance over cases needs two."""


class Replicate(NamedTuple):
    """Pooled out-of-fold predictions of one level at one magnification with one seed (or split repeat).

    ``table`` has the rows of all folds' test parts, an image once; ``fold`` (N,) int64 is the fold of each row, numbered in
    the order of the split (validation is the next fold).
    """

    table: Table
    fold: Integers


Predictions = Mapping[str, Mapping[str, Sequence[Replicate]]]
"""Level -> magnification (``40x``, ...) -> its R replicates, in the same order everywhere."""


class Layout(NamedTuple):
    """What A levels, M magnifications and R replicates share: C cases in K folds.

    Attributes:
        levels: the reference first, then the others, sorted; magnifications: sorted by size.
        cases: (C,) names, sorted; case_class: (C,) int64, 0 benign, 1 malignant.
        fold: (R, C) int64 fold of each case in each replicate, from 0 to K - 1.
        partition: (R,) int64: replicates with one number have the same folds (other seeds of one split); repeats of
            the split have 0, 1, ...
    """

    levels: tuple[str, ...]
    magnifications: tuple[str, ...]
    cases: Text
    case_class: Integers
    fold: Integers
    partition: Integers

    @property
    def folds(self) -> int:
        """K."""
        return int(self.fold.max()) + 1


def layout_of(predictions: Predictions, reference: str) -> Layout:
    """Check that the levels may be compared, and say what they share.

    Raises:
        UserError: one level only, an unknown reference, levels with different magnifications, numbers of replicates,
            cases, images or folds, unknown grouping, a case in two folds or classes, or fewer than two cases of a
            class.
    """
    if reference not in predictions or len(predictions) < 2:
        raise UserError(
            f"reference={reference}: a comparison needs it and another level; there is {', '.join(predictions)}"
        )
    counts = {name: {m: len(each) for m, each in own.items()} for name, own in predictions.items()}
    texts = {name: ", ".join(f"{n} at {m}" for m, n in own.items()) or "none" for name, own in counts.items()}
    expected = counts[reference]
    for name, count in counts.items():
        if count != expected or len(set(count.values())) != 1 or 0 in count.values():
            raise UserError(
                f"{name} has replicates (seeds): {texts[name]}; {reference} has {texts[reference]}; compare the same "
                "magnifications and seeds at every level (finish the missing runs)"
            )
    rows = _rows(predictions)
    _refuse_differences(rows)
    own = rows[rows["level"] == reference]
    case_class = _by_case(own, "malignant", "two classes; correct the class column")
    by_class = np.bincount(case_class, minlength=len(CLASSES))
    if by_class.min() < FEWEST_CASES:
        raise UserError(
            f"only {by_class.min()} {CLASSES[by_class.argmin()]} case(s); a comparison over cases needs at least "
            f"{FEWEST_CASES} of each class"
        )
    problem = "two folds; use a split by case, the same at every magnification"
    folds = [_by_case(images, "fold", problem) for _, images in own.groupby("replicate")]
    fold = np.stack([np.unique(each, return_inverse=True)[1] for each in folds])
    if len(set(fold.max(axis=1))) > 1:
        raise UserError(
            f"{reference}: replicates with different numbers of folds; compare one number of folds"
        )
    # A partition is known by the first case of each case's fold.
    firsts = [tuple(np.unique(row, return_index=True)[1][row].tolist()) for row in fold]
    return Layout(
        levels=(reference, *sorted(name for name in predictions if name != reference)),
        magnifications=tuple(sorted(expected, key=lambda name: (len(name), name))),
        cases=case_class.index.to_numpy(np.str_),
        case_class=case_class.to_numpy(),
        fold=fold,
        partition=pd.factorize(pd.Index(firsts, tupleize_cols=False))[0].astype(np.int64),
    )


def _rows(predictions: Predictions) -> pd.DataFrame:
    """A row an image of every replicate: ``level, magnification, replicate, image, case, malignant, fold``."""
    frames = []
    replicates = (
        (name, m, r, one) for name, own in predictions.items() for m in own for r, one in enumerate(own[m])
    )
    for name, magnification, r, (table, fold) in replicates:
        where = f"{name} at {magnification}, replicate {r + 1}"
        if not is_grouped(table):
            raise UserError(
                f"{where}: GROUPING UNKNOWN, some images have no slide or case; models are compared over cases, "
                "so give BreakHis file names"
            )
        if len(fold) != len(table):
            raise UserError(f"{where}: {len(fold)} folds for {len(table)} images; give one an image")
        images = {"image": table.image, "case": table.case, "malignant": table.malignant, "fold": fold}
        frame = pd.DataFrame(images).assign(level=name, magnification=magnification, replicate=r)
        if (twice := frame["image"].duplicated()).any():
            image = frame["image"][twice].iloc[0]
            raise UserError(f"{where}: image {image} appears twice; pool disjoint test parts of one seed")
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _refuse_differences(rows: pd.DataFrame) -> None:
    """UserError where levels or replicates do not hold the same images of the same cases, or levels other folds."""
    key = ["magnification", "image", "case", "malignant"]
    missing = rows.pivot(index=key, columns=["level", "replicate"], values="fold").isna()
    if missing.any(axis=None):
        absent = missing.stack(["level", "replicate"], future_stack=True)
        magnification, image, case, label, level, replicate = absent.index[int(absent.to_numpy().argmax())]
        raise UserError(
            f"{level} at {magnification}, replicate {replicate + 1}, and others hold different images: image {image} of "
            f"the {CLASSES[label]} case {case} is not in it ({int(missing.any(axis=1).sum())} such); finish the missing "
            "folds or compare what was tested on the same images of one copy of the data set"
        )
    # The first image of a fold names it, whatever its number.
    first = rows.groupby(["level", "magnification", "replicate", "fold"])["image"].transform("min")
    apart = first.groupby([rows[name] for name in ("magnification", "replicate", "image")]).nunique() > 1
    if apart.any():
        magnification, replicate, image = apart.index[int(apart.to_numpy().argmax())]
        raise UserError(
            f"image {image} at {magnification}, replicate {replicate + 1}: the levels have different folds; compare runs "
            "with the same split, split.seed and split.repeat"
        )


def _by_case(images: pd.DataFrame, column: str, problem: str) -> "pd.Series[Any]":
    """The one value that each case has in a column, by its name, sorted; else UserError with the case's name."""
    groups = images.groupby("case")[column]
    mixed = groups.nunique() > 1
    if mixed.any():
        raise UserError(f"{images['level'].iloc[0]}: case {mixed.idxmax()} is in {problem}")
    return groups.first()


class Scores(NamedTuple):
    """Scores of A levels (the reference first), M magnifications, R replicates, C cases, K folds, B resamples."""

    value: Floats  # (A, M, R), finite
    left_out: Floats  # (A, M, R, C), finite: without one case, at every magnification at once
    by_fold: Floats  # (A, M, R, K): of one fold's cases, NaN where undefined
    resampled: Floats  # (A, M, B), mean over the replicates: in resamples of cases, NaN where undefined
    interactions: (
        Floats  # (A, M, R, P): of pairs of a benign and a malignant case of one fold; P = 0 where not asked
    )
    all_pairs: Floats  # (A, M, R): over all pairs, whatever the fold, of a score over pairs; else NaN

    def over_magnifications(self) -> "Scores":
        """The mean over the magnifications, whose axis is gone."""
        return Scores(*(array.mean(axis=1) for array in self))

    def less_reference(self) -> "Scores":
        """The differences of the other A - 1 levels and the reference."""
        return Scores(*(array[1:] - array[:1] for array in self))


def score_levels(
    predictions: Predictions, layout: Layout, score: NamedScore, resamples: Floats, *, pairs: bool = False
) -> Scores:
    """Score every level with the same case weights at all magnifications, and in (B, C) ``resamples`` of cases.

    ``pairs`` also asks for the ``interactions``.

    Raises:
        UserError: the score is undefined for a level or without one of its cases.
    """
    count, folds = len(layout.cases), layout.folds
    shape = (len(layout.levels), len(layout.magnifications), len(layout.fold))
    values, all_pairs = np.zeros((*shape, 1 + count + folds + len(resamples))), np.full(shape, np.nan)
    benign, malignant = (np.flatnonzero(layout.case_class == c) for c in (0, 1))
    first, second = (each.ravel() for each in np.meshgrid(benign, malignant, indexing="ij"))
    interactions = np.zeros((*shape, len(first) if pairs else 0))
    for a, m, r in np.ndindex(shape):
        of_fold = (layout.fold[r] == np.arange(folds)[:, None]).astype(np.float64)
        weights = np.concatenate([np.ones((1, count)), 1 - np.eye(count), of_fold, resamples])
        table, fold = predictions[layout.levels[a]][layout.magnifications[m]][r]
        here = units(table, score.level, fold=np.asarray(fold, np.int64))
        # A copy may lack a case at one magnification; the weights of the others still are the joint ones.
        at = np.searchsorted(layout.cases, here.cases)
        statistic = score.about.statistic(here)
        values[a, m, r] = statistic(weights[:, at])
        undefined = ~np.isfinite(values[a, m, r, : 1 + count])
        if undefined.any():
            where = f"{layout.levels[a]} at {layout.magnifications[m]}, replicate {r + 1}: {score.words} is undefined"
            why = f"without case {layout.cases[undefined[1:].argmax()]}, so it has no standard error"
            if undefined[0]:
                why = "(no fold with both classes, or an empty class); compare by another score"
            raise UserError(f"{where} {why}, or give more cases")
        if pairs:
            (together,) = np.nonzero(layout.fold[r][first] == layout.fold[r][second])
            without = np.ones((len(together), count))
            for each in (first, second):
                without[np.arange(len(together)), each[together]] = 0
            alone = values[a, m, r, 1 : 1 + count]
            both = statistic(without[:, at]) - alone[first[together]] - alone[second[together]]
            interactions[a, m, r, together] = values[a, m, r, 0] + both
        if score.about.pairs:
            all_pairs[a, m, r] = score.about.value(here.as_one_fold())
    value, left_out, by_fold, resampled = np.split(values, [1, 1 + count, 1 + count + folds], axis=-1)
    return Scores(value[..., 0], left_out, by_fold, resampled.mean(axis=2), interactions, all_pairs)
