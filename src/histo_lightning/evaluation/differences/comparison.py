"""Levels of a factor compared with a reference, as values that JSON can hold: null, never NaN, with the reason."""

import numpy as np

from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.evaluation.differences import methods, sentences
from histo_lightning.evaluation.differences.layout import Layout, Predictions, Scores, layout_of, score_levels
from histo_lightning.evaluation.differences.methods import LEVEL, number
from histo_lightning.evaluation.intervals import case_weights
from histo_lightning.evaluation.registry import Score, named_score
from histo_lightning.evaluation.table import Floats, Json

FEWEST_REPLICATES = 4


def compare_levels(
    predictions: Predictions, *, reference: str, score: str = "case_auroc", primary: bool = True, draws: int = 2000,
    seed: int = 0, equal_budget: bool = True, standard_error: str = "jackknife",
) -> Json:  # fmt: skip
    """Compare every level with the reference over the same cases, as section 5 of the protocol asks.

    A score is computed by replicate and magnification (AUROC from pairs within a fold only) and averaged; the
    difference has a variance over cases, taken jointly at all magnifications, and one over training runs.

    Args:
        predictions: by level, each with the same magnifications, replicates, images and folds; score: of ``score_names``.
        primary: a family fixed beforehand, which gets simultaneous intervals; False: exploratory, Holm only.
        draws: resamples of cases for the simultaneous intervals of two or more comparisons; seed: of the draws.
        equal_budget: whether the sentences may say "at equal budget".
        standard_error: ``jackknife``, or for a score over pairs of cases (AUROC) ``pairs``; see ``methods``.

    What comes back, ``docs/statistics.md`` describes; differences are level minus reference, in units of the score.
    UserError: an unknown score, a level without it, or levels that may not be compared (see ``layout_of``).
    """
    wanted_level, wanted = named_score(score)
    layout = layout_of(predictions, reference)
    others, replicates = len(layout.levels) - 1, len(layout.fold)
    resamples = draws if primary and others > 1 else 0
    weights = case_weights(layout.case_class, resamples, seed)
    by_pairs = standard_error == "pairs" and wanted.pairs
    scores = score_levels(predictions, layout, wanted_level, wanted, weights, pairs=by_pairs)
    pooled = scores.less_reference().over_magnifications()
    mean, largest = pooled.paired(layout.case_class), None
    if primary:
        largest = methods.largest_deviations(pooled.resampled, pooled.value, mean.case_se, mean.seed_se, seed)
    notes = {
        sentences.CONDITIONAL: replicates == 1,
        f"{replicates} replicates: the variance between training runs rests on {replicates - 1} degree(s) of freedom; "
        f"the protocol asks for at least {FEWEST_REPLICATES}": 1 < replicates < FEWEST_REPLICATES,
        "standard errors by pairs of cases (standard_error=pairs)": by_pairs,
        "simultaneous intervals by Bonferroni: the score is undefined in too many resamples of cases, or nothing "
        "varies": largest is not None and others > 1 and not len(largest),
    }
    by_level, pairs = _level_records(scores, layout, wanted), _pair_records(scores, largest, layout, wanted)
    record: Json = {"score": score, "reference": reference, "primary": primary, "comparisons": others}
    record |= {"magnifications": list(layout.magnifications), "replicates": replicates}
    record["replicates_are"] = "repeats of the split" if layout.partition.any() else "seeds"
    record["folds"] = layout.folds
    record["cases"] = {name: int((layout.case_class == c).sum()) for c, name in enumerate(CLASSES)}
    record |= {"level": LEVEL, "standard_error": "pairs" if by_pairs else "jackknife", "draws": resamples}
    record["notes"] = [text for text, holds in notes.items() if holds]
    record["arms"] = {name: by_level[name] for name in predictions}
    record["pairs"] = [pairs[name] for name in predictions if name != reference]
    record["friedman"] = _rank_record(scores, layout, wanted)
    for pair in record["pairs"]:
        pair["words"] = sentences.sentence(pair, record, equal_budget=equal_budget)
    return record


def _by_partition(by_fold: Floats, layout: Layout) -> Floats:
    """(..., P K) scores by fold, averaged over the replicates of each of P partitions, from (..., R, K)."""
    kinds = [by_fold[..., layout.partition == kind, :].mean(axis=-2) for kind in np.unique(layout.partition)]
    return np.concatenate(kinds, axis=-1)


def _level_records(scores: Scores, layout: Layout, score: Score) -> dict[str, Json]:
    """Every level's own score, with its spread over training runs and folds, and its SE over cases."""
    pooled = scores.over_magnifications()
    case_se = pooled.paired(layout.case_class).case_se
    records = {}
    for a, name in enumerate(layout.levels):
        means = [float(each.mean()) for each in scores.value[a]]
        records[name] = {
            "value": float(pooled.value[a].mean()),
            "by_magnification": dict(zip(layout.magnifications, means, strict=True)),
            "seed_sd": methods.sd(pooled.value[a]),
            "fold_sd": methods.sd(_by_partition(pooled.by_fold[a], layout)),
            "case_se": float(case_se[a]),
        }
        if score.pairs:
            records[name][f"within_fold_{score.name}"] = records[name]["value"]
            records[name][f"pooled_{score.name}"] = number(pooled.all_pairs[a].mean())
    return records


def _pair_records(scores: Scores, largest: Floats | None, layout: Layout, score: Score) -> dict[str, Json]:
    """Every comparison with the reference, but for its ``words``; ``largest_deviations`` of a primary family."""
    differences = scores.less_reference()
    pooled = differences.over_magnifications()
    each, mean = (own.paired(layout.case_class) for own in (differences, pooled))
    by_fold = _by_partition(pooled.by_fold, layout)
    p_simultaneous = wide = np.full_like(mean.p, np.nan)
    if largest is not None:
        p_simultaneous = methods.simultaneous_p(largest, mean.p)
        wide = mean.half_width(methods.single_level(largest, len(mean.p), LEVEL))
    numbers = {
        "difference": mean.difference,
        **mean.numbers(),
        "p_holm": methods.holm(mean.p),
        "p_simultaneous": p_simultaneous,
        "simultaneous_low": mean.difference - wide,
        "simultaneous_high": mean.difference + wide,
        "minimum_detectable": np.where(mean.se > 0, sentences.DETECTABLE * mean.se, np.nan),
    }
    at_each = {"difference": each.difference, "se": each.se, "p": each.p, "p_holm": methods.holm(each.p)}
    records = {}
    for a, name in enumerate(layout.levels[1:]):
        about = (float(mean.difference[a]), float(mean.se[a]), float(mean.df[a]))
        record: Json = {"arm": name, "reference": layout.levels[0]}
        record |= {key: number(values[a]) for key, values in numbers.items()}
        record["reason"] = None if mean.se[a] > 0 else sentences.NO_SPREAD
        record["equivalence"] = [sentences.equivalence(*about, each, score) for each in sentences.REGIONS]
        record["conditional"] = sentences.CONDITIONAL if len(layout.fold) == 1 else None
        record["by_magnification"] = {
            magnification: {key: number(values[a, m]) for key, values in at_each.items()}
            for m, magnification in enumerate(layout.magnifications)
        }
        records[name] = record | _over_folds(by_fold[a], layout, score)
    return records


def _over_folds(differences: Floats, layout: Layout, score: Score) -> Json:
    """The two secondary lines from (J,) differences by fold."""
    reason, line = "the difference is the same in every fold (zero spread)", None
    if layout.folds < methods.FEWEST_FOLDS:
        reason = f"fewer than {methods.FEWEST_FOLDS} folds"
    elif not np.isfinite(differences).all():
        reason = "the score is undefined in a fold"
    else:
        ratio = float(np.mean([methods.rotating_ratio(fold) for fold in layout.fold]))
        line = methods.correlated_t(differences, ratio)
    if line is None:
        return {"nadeau_bengio": None, "bayes": None, "reason_over_folds": reason}
    worse, better = ("above", "below") if score.lower_is_better else ("below", "above")
    posterior = {"p_worse": line[worse], "p_equivalent": line["within"], "p_better": line[better]}
    return {
        "nadeau_bengio": {key: line[key] for key in ("t", "df", "p", "low", "high", "variance_factor")},
        "bayes": posterior | {"rope": methods.ROPE},
        "reason_over_folds": None,
    }


def _rank_record(scores: Scores, layout: Layout, score: Score) -> Json:
    """Friedman's test over the folds of one partition, magnifications and replicates averaged."""
    blocks = _by_partition(scores.over_magnifications().by_fold, layout).T
    reason = None if np.isfinite(blocks).all() else "the score is undefined in a fold"
    if layout.partition.any():
        reason = "the replicates are repeats of the split: their folds differ, so they are no blocks"
    elif layout.folds < 2:
        reason = "fewer than 2 folds"
    record: Json = {"descriptive": True, "blocks": layout.folds, "reason": reason}
    if reason:
        return record | dict.fromkeys(("statistic", "p", "mean_ranks", "critical_difference"))
    ranks = methods.friedman(blocks, lower_is_better=score.lower_is_better)
    mean_ranks = dict(zip(layout.levels, ranks.pop("mean_rank"), strict=True))
    return record | ranks | {"mean_ranks": mean_ranks}
