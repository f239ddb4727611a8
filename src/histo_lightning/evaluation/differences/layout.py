"""The layout that all compared levels share (cases, images, folds), proven before they are scored alike."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.errors import UserError
from histo_lightning.evaluation.differences.methods import Paired, paired
from histo_lightning.evaluation.levels import is_grouped, units
from histo_lightning.evaluation.registry import Score
from histo_lightning.evaluation.table import Floats, Integers, Table, Text

FEWEST_CASES = 2
"""Of a class: a variance over cases needs two."""
KEY = ["image", "case", "malignant"]
TWO_VALUES = {
    "malignant": "classes; correct the class column",
    "fold": "folds; use a split by case, the same at every magnification",
}


class Replicate(NamedTuple):
    """Pooled out-of-fold predictions of one level at one magnification with one seed (or split repeat)."""

    table: Table  # of all folds' test parts, an image once
    fold: Integers  # (N,), numbered as in the split (validation is next)


Predictions = Mapping[str, Mapping[str, Sequence[Replicate]]]
"""Level -> magnification (``40x``, ...) -> its R replicates, in the same order everywhere."""


class Layout(NamedTuple):
    """What A levels, M magnifications and R replicates share: C cases in K folds."""

    levels: tuple[str, ...]  # the reference first, then the others, sorted
    magnifications: tuple[str, ...]  # sorted by size
    cases: Text  # (C,) names, sorted
    case_class: Integers  # (C,), 0 benign, 1 malignant
    fold: Integers  # (R, C) fold of each case in each replicate, from 0 to K - 1
    partition: Integers  # (R,): 0 for seeds of one split, which have the same folds; 0, 1, ... for repeats of the split

    @property
    def folds(self) -> int:
        """K."""
        return int(self.fold.max()) + 1


def layout_of(predictions: Predictions, reference: str) -> Layout:
    """What the levels share; UserError where they may not be compared.

    So where they have other magnifications, replicates, images or folds than the reference, or too few or ambiguous cases.
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
    levels = (reference, *sorted(name for name in predictions if name != reference))
    magnifications = tuple(sorted(expected, key=lambda name: (len(name), name)))
    own: dict[tuple[str, int], pd.DataFrame] = {}  # by magnification and replicate, of the reference
    for name, m in product(levels, magnifications):
        for r, replicate in enumerate(predictions[name][m]):
            names = (f"{reference} at {m}, replicate 1", f"{name} at {m}, replicate {r + 1}")
            images = _images(replicate, names[1])
            if not images[KEY].equals(own.setdefault((m, 0), images)[KEY]):
                both = own[m, 0][KEY].merge(images[KEY], how="outer", on=KEY, indicator="held")
                apart = both[both["held"] != "both"]
                image, case, label, held = apart.iloc[0]
                raise UserError(
                    f"{names[held == 'left_only']}, and others hold different images: image {image} of the "
                    f"{CLASSES[label]} case {case} is not in it ({len(apart)} such); finish the missing folds or "
                    "compare what was tested on the same images of one copy of the data set"
                )
            if (moved := images["first"] != own.setdefault((m, r), images)["first"]).any():
                raise UserError(
                    f"image {images['image'][moved.argmax()]} at {m}, replicate {r + 1}: the levels have different folds; "
                    "compare runs with the same split, split.seed and split.repeat"
                )
    folds = []
    for r in range(expected[magnifications[0]]):
        cases = pd.concat([own[m, r] for m in magnifications]).groupby("case")
        for column, problem in TWO_VALUES.items():
            if (mixed := cases[column].nunique() > 1).any():
                raise UserError(f"{reference}: case {mixed.idxmax()} is in two {problem}")
        folds.append(np.unique(cases["fold"].first(), return_inverse=True)[1])
    case_class, fold = cases["malignant"].first(), np.stack(folds)
    by_class = np.bincount(case_class, minlength=len(CLASSES))
    if by_class.min() < FEWEST_CASES:
        raise UserError(
            f"only {by_class.min()} {CLASSES[by_class.argmin()]} case(s); a comparison over cases needs at least "
            f"{FEWEST_CASES} of each class"
        )
    if len(set(fold.max(axis=1))) > 1:
        raise UserError(
            f"{reference}: replicates with different numbers of folds; compare one number of folds"
        )
    # A partition is known by the first case of each case's fold.
    firsts = [tuple(np.unique(row, return_index=True)[1][row].tolist()) for row in fold]
    partition = pd.factorize(pd.Index(firsts, tupleize_cols=False))[0].astype(np.int64)
    case_names = case_class.index.to_numpy(np.str_)
    return Layout(levels, magnifications, case_names, case_class.to_numpy(), fold, partition)


def _images(replicate: Replicate, where: str) -> pd.DataFrame:
    """A row an image, sorted: ``image, case, malignant, fold`` and the ``first`` image of its fold."""
    table, fold = replicate
    if not is_grouped(table):
        raise UserError(
            f"{where}: GROUPING UNKNOWN, some images have no slide or case; models are compared over cases, "
            "so give BreakHis file names"
        )
    if len(fold) != len(table):
        raise UserError(f"{where}: {len(fold)} folds for {len(table)} images; give one an image")
    columns = {"image": table.image, "case": table.case, "malignant": table.malignant, "fold": fold}
    images = pd.DataFrame(columns).sort_values("image", ignore_index=True)
    if (twice := images["image"].duplicated()).any():
        image = images["image"][twice.argmax()]
        raise UserError(f"{where}: image {image} appears twice; pool disjoint test parts of one seed")
    return images.assign(first=images.groupby("fold")["image"].transform("first"))


class Scores(NamedTuple):
    """Scores of A levels (the reference first), M magnifications, R replicates, C cases, K folds, B resamples."""

    value: Floats  # (A, M, R), finite
    left_out: Floats  # (A, M, R, C), finite: without one case, at every magnification at once
    by_fold: Floats  # (A, M, R, K): of one fold's cases, NaN where undefined
    resampled: Floats  # (A, M, B), mean over the replicates: in resamples of cases, NaN where undefined
    interactions: Floats  # (A, M, R, P): of pairs of a benign and a malignant case, P = 0 where not asked
    all_pairs: Floats  # (A, M, R): over all pairs, whatever the fold, of a score over pairs; else NaN

    def paired(self, case_class: Integers) -> Paired:
        """With standard errors: by the interactions of pairs where they were asked for."""
        interactions = self.interactions if self.interactions.shape[-1] else None
        return paired(self.value, self.left_out, case_class, interactions)

    def over_magnifications(self) -> "Scores":
        """The mean over the magnifications, whose axis is gone."""
        return Scores(*(array.mean(axis=1) for array in self))

    def less_reference(self) -> "Scores":
        """The differences of the other A - 1 levels and the reference."""
        return Scores(*(array[1:] - array[:1] for array in self))


def score_levels(
    predictions: Predictions, layout: Layout, level: str, score: Score, resamples: Floats, *, pairs: bool
) -> Scores:
    """Score every level of the factor with the same case weights at all magnifications, and in (B, C) ``resamples``.

    ``pairs`` also asks for the ``interactions``; UserError where the score is undefined, also without one case.
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
        here = units(table, level, fold=np.asarray(fold, np.int64))
        # A copy may lack a case at one magnification; the weights of the others still are the joint ones.
        at = np.searchsorted(layout.cases, here.cases)
        statistic = score.statistic(here)
        values[a, m, r] = statistic(weights[:, at])
        undefined = ~np.isfinite(values[a, m, r, : 1 + count])
        if undefined.any():
            where = f"{layout.levels[a]} at {layout.magnifications[m]}, replicate {r + 1}"
            why = f"without case {layout.cases[undefined[1:].argmax()]}, so it has no standard error"
            if undefined[0]:
                why = "(no fold with both classes, or an empty class); compare by another score"
            raise UserError(f"{where}: {level}-level {score.words} is undefined {why}, or give more cases")
        if pairs:
            (together,) = np.nonzero(layout.fold[r][first] == layout.fold[r][second])
            without = np.ones((len(together), count))
            for each in (first, second):
                without[np.arange(len(together)), each[together]] = 0
            alone = values[a, m, r, 1 : 1 + count]
            both = statistic(without[:, at]) - alone[first[together]] - alone[second[together]]
            interactions[a, m, r, together] = values[a, m, r, 0] + both
        if score.pairs:
            all_pairs[a, m, r] = score.value(here.as_one_fold())
    value, left_out, by_fold, resampled = np.split(values, [1, 1 + count, 1 + count + folds], axis=-1)
    return Scores(value[..., 0], left_out, by_fold, resampled.mean(axis=2), interactions, all_pairs)
