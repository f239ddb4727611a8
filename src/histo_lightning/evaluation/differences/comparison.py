"""Levels of a factor compared with a reference, as values that JSON can hold: null, never NaN, with the reason."""

from typing import Any

import numpy as np

from histo_lightning.evaluation.differences.layout import Layout, Predictions, layout_of
from histo_lightning.evaluation.differences.over_folds import (
    FEWEST_FOLDS,
    ROPE,
    correlated_t,
    friedman,
    rotating_ratio,
)
from histo_lightning.evaluation.differences.paired import LEVEL, Paired, paired
from histo_lightning.evaluation.differences.scores import Scores, score_levels
from histo_lightning.evaluation.differences.sentences import (
    CONDITIONAL,
    DETECTABLE,
    NO_SPREAD,
    REGIONS,
    Context,
    equivalence,
    sentence,
)
from histo_lightning.evaluation.differences.simultaneous import (
    holm,
    largest_deviations,
    simultaneous_p,
    single_level,
)
from histo_lightning.evaluation.intervals import case_weights
from histo_lightning.evaluation.levels import Floats
from histo_lightning.evaluation.named_scores import NamedScore, named_score

Json = dict[str, Any]

FEWEST_REPLICATES = 4


def compare_levels(
    predictions: Predictions,
    *,
    reference: str,
    score: str = "case_auroc",
    primary: bool = True,
    draws: int = 2000,
    seed: int = 0,
    equal_budget: bool = True,
    test_train_ratio: float | None = None,
) -> Json:
    """Compare every level with the reference over the same cases, as section 5 of the protocol asks.

    A score is computed by replicate and magnification (AUROC from pairs within a fold only) and averaged; the
    difference has a variance over cases, taken jointly at all magnifications, and one over training runs.

    Args:
        predictions: by level, each with the same magnifications, replicates, images and folds.
        reference: the level to compare against.
        score: one of ``named_scores.NAMES``.
        primary: a family fixed beforehand, which gets simultaneous intervals; False: exploratory, Holm only.
        draws: resamples of cases for the simultaneous intervals of two or more comparisons; seed: of the draws.
        equal_budget: whether the sentences may say "at equal budget".
        test_train_ratio: n_test / n_train of the Nadeau-Bengio and Bayesian lines; None: counted in cases with
            validation as the next fold. The official folds' by slide is ``over_folds.OFFICIAL_RATIO``.

    Returns:
        Values that JSON can hold (null with a ``reason`` where undefined), described in ``docs/comparison.md``.
        Differences are level minus reference, in units of the score.

    Raises:
        UserError: unknown score or reference; levels that may not be compared (see ``layout_of``); a score that is
            undefined for a level.
    """
    wanted = named_score(score)
    layout = layout_of(predictions, reference)
    others = len(layout.levels) - 1
    resamples = draws if primary and others > 1 else 0
    scores = score_levels(predictions, layout, wanted, case_weights(layout.case_class, resamples, seed))
    benign, malignant = (int(count) for count in np.bincount(layout.case_class, minlength=2))
    repeats = "repeats of the split" if layout.partition.any() else "seeds"
    context = Context(
        wanted,
        magnifications=len(layout.magnifications),
        cases=f"{benign + malignant} cases, {benign} benign",
        seeds=f"{layout.replicates} {repeats if layout.replicates > 1 else repeats.replace('s', '', 1)}",
        one_seed=layout.replicates == 1,
        simultaneous=primary,
        equal_budget=equal_budget,
    )
    differences = scores.less_reference()
    whole = differences.over_magnifications()
    mean = paired(whole.value[:, 0], whole.left_out[:, 0], layout.case_class)
    largest = (
        largest_deviations(whole.resampled[:, 0], whole.value[:, 0], mean.case_se, seed) if primary else None
    )
    ratio = test_train_ratio
    if ratio is None and layout.folds >= FEWEST_FOLDS:
        ratio = float(np.mean([rotating_ratio(fold) for fold in layout.fold]))
    by_level = _level_records(scores, layout, wanted)
    pairs = _pair_records(differences, mean, largest, layout, ratio, context)
    return {
        "score": score,
        "reference": reference,
        "primary": primary,
        "comparisons": others,
        "magnifications": list(layout.magnifications),
        "replicates": layout.replicates,
        "replicates_are": repeats,
        "folds": layout.folds,
        "cases": {"benign": benign, "malignant": malignant},
        "level": LEVEL,
        "draws": resamples,
        "notes": _notes(layout, bonferroni=largest is not None and others > 1 and not len(largest)),
        "arms": {name: by_level[name] for name in predictions},
        "pairs": [pairs[name] for name in predictions if name != reference],
        "friedman": _rank_record(scores, layout, wanted),
    }


def _number(value: Any) -> float | None:
    """A JSON number, null where it is not finite."""
    return float(value) if np.isfinite(value) else None


def _sd(values: Floats) -> float | None:
    """Standard deviation of (n,) values, null where there are fewer than two or one is undefined."""
    return _number(values.std(ddof=1)) if len(values) > 1 else None


def _by_partition(by_fold: Floats, layout: Layout) -> Floats:
    """(..., P K) scores by fold, averaged over the replicates of each of P partitions, from (..., R, K)."""
    kinds = [by_fold[..., layout.partition == kind, :].mean(axis=-2) for kind in np.unique(layout.partition)]
    return np.concatenate(kinds, axis=-1)


def _level_records(scores: Scores, layout: Layout, score: NamedScore) -> dict[str, Json]:
    """Every level's own score, with its spread over training runs and folds and its SE over cases apart."""
    whole = scores.over_magnifications()
    records = {}
    for a, name in enumerate(layout.levels):
        value = whole.value[a, 0]
        means = [float(each.mean()) for each in scores.value[a]]
        record = {
            "value": float(value.mean()),
            "by_magnification": dict(zip(layout.magnifications, means, strict=True)),
            "seed_sd": _sd(value),
            "fold_sd": _sd(_by_partition(whole.by_fold[a, 0], layout)),
            "case_se": float(paired(value, whole.left_out[a, 0], layout.case_class).case_se),
        }
        if score.score == "auroc":
            record["within_fold_auroc"] = record["value"]
            record["pooled_auroc"] = _number(whole.pooled_auroc[a, 0].mean())
        records[name] = record
    return records


def _pair_records(
    differences: Scores,
    mean: Paired,
    largest: Floats | None,
    layout: Layout,
    ratio: float | None,
    context: Context,
) -> dict[str, Json]:
    """Every comparison with the reference.

    Args:
        differences: scores of the other levels less the reference's; mean: theirs over the magnifications.
        largest: of the primary family, see ``largest_deviations``; None for exploratory comparisons.
        ratio: n_test / n_train.
    """
    reference, *others = layout.levels
    each = paired(differences.value, differences.left_out, layout.case_class)
    each_p, each_adjusted = each.p, holm(each.p)
    by_fold = _by_partition(differences.over_magnifications().by_fold[:, 0], layout)
    prefix = "simultaneous_" if context.simultaneous else ""
    records = {}
    for a, (name, line) in enumerate(zip(others, _main_lines(mean, largest, context), strict=True)):
        interval = line[f"{prefix}low"], line[f"{prefix}high"]
        records[name] = {
            "arm": name,
            "reference": reference,
            **line,
            "by_magnification": {
                magnification: {
                    "difference": float(each.difference[a, m]),
                    "se": float(each.se[a, m]),
                    "p": _number(each_p[a, m]),
                    "p_holm": _number(each_adjusted[a, m]),
                }
                for m, magnification in enumerate(layout.magnifications)
            },
            **_over_folds(by_fold[a], ratio, context.score),
            "words": sentence(name, reference, line["difference"], line["se"], interval, context),
        }
    return records


def _main_lines(mean: Paired, largest: Floats | None, context: Context) -> list[Json]:
    """The comparison proper: a line for each of the (A,) differences."""
    half, p, adjusted = mean.half_width(), mean.p, holm(mean.p)
    wide = together = np.full(mean.se.shape, np.nan)
    if largest is not None:
        wide = mean.half_width(single_level(largest, len(p), LEVEL))
        together = simultaneous_p(largest, p)
    lines = []
    for a in range(len(p)):
        difference, se, df = (float(x[a]) for x in (mean.difference, mean.se, mean.df))
        lines.append(
            {
                "difference": difference,
                "se": se,
                "case_se": float(mean.case_se[a]),
                "seed_se": float(mean.seed_se[a]) if not context.one_seed else None,
                "df": _number(df),
                "t": _number(mean.t[a]),
                "p": _number(p[a]),
                "p_holm": _number(adjusted[a]),
                "p_simultaneous": _number(together[a]),
                "low": _number(difference - half[a]),
                "high": _number(difference + half[a]),
                "simultaneous_low": _number(difference - wide[a]),
                "simultaneous_high": _number(difference + wide[a]),
                "minimum_detectable": DETECTABLE * se if se > 0 else None,
                "reason": None if se > 0 else NO_SPREAD,
                "equivalence": [equivalence(difference, se, df, region, context.score) for region in REGIONS],
                "conditional": CONDITIONAL if context.one_seed else None,
            }
        )
    return lines


def _over_folds(differences: Floats, ratio: float | None, score: NamedScore) -> Json:
    """The two secondary lines from (J,) differences by fold and n_test / n_train."""
    reason, line = "the difference is the same in every fold (zero spread)", None
    if ratio is None:
        reason = f"fewer than {FEWEST_FOLDS} folds"
    elif not np.isfinite(differences).all():
        reason = "the score is undefined in a fold"
    else:
        line = correlated_t(differences, ratio, level=LEVEL)
    if line is None:
        return {"nadeau_bengio": None, "bayes": None, "reason_over_folds": reason}
    worse, better = ("above", "below") if score.lower_is_better else ("below", "above")
    posterior = {"p_worse": line[worse], "p_equivalent": line["within"], "p_better": line[better]}
    return {
        "nadeau_bengio": {key: line[key] for key in ("t", "df", "p", "low", "high", "variance_factor")},
        "bayes": posterior | {"rope": ROPE},
        "reason_over_folds": None,
    }


def _rank_record(scores: Scores, layout: Layout, score: NamedScore) -> Json:
    """Friedman's test over the folds of one partition, magnifications and replicates averaged."""
    blocks = _by_partition(scores.over_magnifications().by_fold[:, 0], layout).T
    reason = None
    if layout.partition.any():
        reason = "the replicates are repeats of the split: their folds differ, so they are no blocks"
    elif layout.folds < 2:
        reason = "fewer than 2 folds"
    elif not np.isfinite(blocks).all():
        reason = "the score is undefined in a fold"
    record: Json = {"descriptive": True, "blocks": layout.folds, "reason": reason}
    if reason:
        return record | dict.fromkeys(("statistic", "p", "mean_ranks", "critical_difference"))
    ranks = friedman(blocks, lower_is_better=score.lower_is_better)
    mean_ranks = dict(zip(layout.levels, ranks.pop("mean_rank"), strict=True))
    return record | ranks | {"mean_ranks": mean_ranks}


def _notes(layout: Layout, *, bonferroni: bool) -> list[str]:
    """What a reader must know before the numbers."""
    notes = []
    if layout.replicates == 1:
        notes.append(CONDITIONAL)
    elif layout.replicates < FEWEST_REPLICATES:
        notes.append(
            f"{layout.replicates} replicates: the variance between training runs rests on {layout.replicates - 1} "
            f"degree(s) of freedom; the protocol asks for at least {FEWEST_REPLICATES}"
        )
    if bonferroni:
        notes.append(
            "simultaneous intervals by Bonferroni: the score is undefined in too many resamples of cases, "
            "or nothing varies"
        )
    return notes
