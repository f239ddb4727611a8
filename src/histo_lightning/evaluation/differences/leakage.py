"""The arms of the leakage study: image-level scores and their differences, clustered by case, with seed variance.

Not by ``compare_levels``: one case is in several folds, official folds test a case several times, and an arm is compared on
parts of the images. A contrast is a weighted sum of scores; its variance is section 5's (``paired``).

All functions take one frame of predictions, a row an image of a run's test set: ``arm, seed, magnification, fold, image,
slide, case, malignant`` (0 or 1) and ``p``, P(malignant). ``contrast``, ``injection`` and ``official`` return ``arms`` and
``pairs``: records of ``arm, reference, among``, an ``estimate`` for each of ``SCORES`` and ``coverage``.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from histo_lightning.data.splits.official import ARMS
from histo_lightning.evaluation.differences.methods import holm, number, paired, sd
from histo_lightning.evaluation.differences.sentences import CONDITIONAL
from histo_lightning.evaluation.levels import Units
from histo_lightning.evaluation.registry import named_score
from histo_lightning.evaluation.table import Floats, Integers, Json, Text

SCORES = ("auroc", "balanced_accuracy", "accuracy")
CONTRAST = ("image_random", "slide_kfold", "case_kfold")
OFFICIAL = ARMS
MANY_SLIDES = "images of cases with several slides"
TOUCHED, UNTOUCHED, APART = "touched images", "untouched images", "touched minus untouched"


def contrast(rows: pd.DataFrame) -> Json:
    """A: out-of-fold scores of the three ways to split, and their differences to ``case_kfold``.

    ``slide_kfold`` is compared on the cases with several slides only: for all others it is a split by case too.
    """
    slides = rows[rows.arm.isin(CONTRAST[1:])].groupby("case").slide.nunique()
    many = rows.assign(among=rows.case.isin(slides.index[slides > 1]).map({True: MANY_SLIDES}))
    pairs = _records(rows, [("image_random", "case_kfold")]) + _records(many, [("slide_kfold", "case_kfold")])
    return _block(rows, CONTRAST, pairs)


def injection(rows: pd.DataFrame) -> Json:
    """B: scores on the probe by share of siblings in train, and their differences to the clean arm, ``injected 0``."""
    arms = sorted(rows.arm.unique(), key=lambda arm: float(arm.split()[-1]))
    return _block(rows, arms, _records(rows, [(arm, "injected 0") for arm in arms[1:]]))


def official(rows: pd.DataFrame, shared: Mapping[int, Collection[str]]) -> Json:
    """C: touched test images of the authors' folds, of cases ``shared`` with train (by fold), and untouched ones.

    The leak is ``official`` minus ``official clean`` on touched images, near 0 on untouched ones; the size-matched control
    tells how much of either is the size of the training part.
    """
    is_touched = [case in shared.get(fold, ()) for fold, case in zip(rows.fold, rows.case, strict=True)]
    rows = rows.assign(among=np.where(is_touched, TOUCHED, UNTOUCHED))
    full, clean, matched = OFFICIAL
    return _block(rows, OFFICIAL, _records(rows, [(full, clean), (matched, clean), (full, matched)]))


def _block(rows: pd.DataFrame, arms: Sequence[str], pairs: list[Json]) -> Json:
    """The scores of arms beside their differences, which get Holm's ``p_holm`` over all pairs, score by score."""
    for score in SCORES:
        p = holm(np.array([record[score]["p"] for record in pairs], np.float64))
        for record, value in zip(pairs, p, strict=True):
            record[score]["p_holm"] = number(value)
    return {"arms": _records(rows, [(arm, None) for arm in arms]), "pairs": pairs}


def _records(rows: pd.DataFrame, names: Sequence[tuple[str, str | None]]) -> list[Json]:
    """Scores of arms, or of arms minus a reference on common images, for each value of the column ``among``."""
    records: list[Json] = []
    for arm, reference in names:
        signs = {arm: 1.0} if reference is None else {arm: 1.0, reference: -1.0}
        common, coverage = side_by_side(rows, list(signs))
        if "among" not in common:
            common = common.assign(among="all images")
        kinds = sorted(common.among.dropna().unique())
        groups = {key: {(name, key): sign for name, sign in signs.items()} for key in kinds}
        if {TOUCHED, UNTOUCHED} <= set(groups):
            groups[APART] = groups[TOUCHED] | {key: -sign for key, sign in groups[UNTOUCHED].items()}
        for key, weights in groups.items():
            estimates = {score: estimate(common, weights, score) for score in SCORES}
            about = {"arm": arm, "reference": reference, "among": key}
            records.append(about | estimates | {"coverage": coverage})
    return records


def side_by_side(rows: pd.DataFrame, arms: Sequence[str]) -> tuple[pd.DataFrame, Json]:
    """The rows of arms on the same seeds, magnifications, folds and images, and what that leaves: ``coverage``."""
    key = ["seed", "magnification", "fold"]
    rows = rows[rows.arm.isin(arms)]
    runs = rows[["arm", *key]].drop_duplicates()
    counts = runs.groupby(key).size()
    keys = whole_block(counts[counts == len(arms)])
    seeds, magnifications, folds = (sorted({each[n] for each in keys}) for n in range(3))
    common = rows[pd.MultiIndex.from_frame(rows[key]).isin(keys)]
    images = common.drop_duplicates(["arm", "seed", "magnification", "image"])
    counts = images.groupby(["magnification", "image"]).size()
    everywhere = counts.index[counts == len(arms) * len(seeds)]
    common = common[pd.MultiIndex.from_frame(common[["magnification", "image"]]).isin(everywhere)]
    coverage = {"seeds": seeds, "magnifications": magnifications, "folds": folds}
    return common, coverage | {"runs_left_out": len(runs) - len(arms) * len(keys)}


def whole_block(runs: pd.Series) -> list[tuple[int, int, int]]:
    """The (seed, magnification, fold) by which ``runs`` are indexed, made a product of seeds and (magnification, fold).

    Where a run is missing, the seed or the fold that loses the fewest finished runs is left out, in turn.
    """
    present = (runs > 0).unstack(["magnification", "fold"], fill_value=False).sort_index()
    while not present.all(axis=None):
        by_seed, by_fold = present.sum(axis=1), present.sum(axis=0).sort_index()
        if by_fold.min() <= by_seed.min():
            present = present.drop(columns=[by_fold.idxmin()])
        else:
            present = present.drop(index=by_seed[::-1].idxmin())
    return [(seed, *fold) for seed in present.index for fold in present.columns]


def estimate(rows: pd.DataFrame, weights: Mapping[tuple[str, str], float], score: str) -> Json:
    """A weighted sum of scores, e.g. leaky minus clean, with its standard error (``paired``) and 95 % interval.

    ``rows`` are of every arm on the same seeds and magnifications; ``weights`` of the score of each (arm, among). A score is
    averaged over magnifications, then over seeds; the interval of a single one is made on the logit scale, within 0 and 1.
    """
    cells = dict(list(rows.groupby(["seed", "magnification", "arm", "among"])))
    seeds, magnifications = (sorted(rows[name].unique().tolist()) for name in ("seed", "magnification"))
    own = pd.concat([cell for key, cell in cells.items() if key[2:] in weights])
    case_class = own.groupby("case").malignant.first()
    cases = case_class.index.to_numpy()

    def weighted(*run: int) -> Floats:
        parts = {term: cells.get((*run, *term), rows[:0]) for term in weights}
        each = [w * image_scores(parts[term], cases, score) for term, w in weights.items()]
        return np.asarray(np.sum(each, axis=0))

    scores = np.stack([np.mean([weighted(s, m) for m in magnifications], axis=0) for s in seeds])
    counts = {"seeds": len(seeds), "magnifications": len(magnifications), "cases": len(cases)}
    counts |= {"benign": int((case_class == 0).sum()), "images": int(own.image.nunique())}
    by_seed = [number(value) for value in scores[:, 0]]
    conditional = CONDITIONAL if len(seeds) == 1 else None
    return {**counts, "by_seed": by_seed, "conditional": conditional} | _inferred(
        scores, case_class.to_numpy(), single=list(weights.values()) == [1.0]
    )


def image_scores(rows: pd.DataFrame, cases: Text, score: str) -> Floats:
    """(1 + C,): an image-level score at 0.5, AUROC over the pairs of one fold; then the same without each of C cases."""
    # A case in several folds is as many clusters, which are left out together.
    first = ~rows.duplicated(["case", "fold"])
    owner = rows.case[first].to_numpy()
    truth, p = rows.malignant.to_numpy(np.int64), rows.p.to_numpy(np.float64)
    decision, fold = (p >= 0.5).astype(np.int64), rows.fold.to_numpy(np.int64)
    case = np.asarray(rows.groupby(["case", "fold"], sort=False).ngroup(), np.int64)
    predicted = (np.column_stack([1 - p, p]), decision, (decision == truth).astype(np.float64))
    here = Units("image", truth, *predicted, fold, case, owner, truth[first.to_numpy()], grouped=True)
    weights = np.concatenate([np.ones((1, len(owner))), (owner != cases[:, None]).astype(np.float64)])
    return named_score(f"image_{score}")[1].statistic(here)(weights)


def _inferred(scores: Floats, case_class: Integers, *, single: bool) -> Json:
    """Value, errors and interval of (R, 1 + C) scores: of all cases, then without each case."""
    values, left_out = scores[:, 0], scores[:, 1:]
    names = ("value", "low", "high", "se", "case_se", "seed_se", "seed_sd", "df", "t", "p", "reason")
    value, record = float(values.mean()), dict[str, Any].fromkeys(names)
    if not np.isfinite(value):
        return record | {"reason": "these images are of one class only"}
    record |= {"value": value, "seed_sd": sd(values)}
    if np.unique(case_class, return_counts=True)[1].min() < 2:
        return record | {"reason": "a class has a single case here: no standard error over cases"}
    if not np.isfinite(left_out).all():
        return record | {"reason": "without one of the cases it is undefined: no standard error over cases"}
    inference = paired(values, left_out, case_class)
    record |= {key: number(each) for key, each in inference.numbers().items()}
    if not inference.se > 0:
        return record | {"reason": "no spread over cases and seeds, so there is no standard error"}
    if not single:
        return record
    record |= dict.fromkeys(("t", "p", "low", "high"))
    if not 0 < value < 1:
        return record | {"reason": "the score is at its limit, so its logit has no interval"}
    logit, scaled = np.log(value / (1 - value)), float(inference.half_width()) / (value * (1 - value))
    low, high = (float(1 / (1 + np.exp(-(logit + side * scaled)))) for side in (-1, 1))
    return record | {"low": low, "high": high}
