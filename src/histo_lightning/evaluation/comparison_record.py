"""A comparison as values that JSON can hold: null, never NaN, with the reason beside it."""

from dataclasses import asdict
from typing import Any

import numpy as np

from histo_lightning.evaluation.arm_scores import ArmScores
from histo_lightning.evaluation.arms import Design
from histo_lightning.evaluation.conclusion import (
    CONDITIONAL,
    DETECTABLE,
    NO_SPREAD,
    REGIONS,
    Setting,
    equivalence,
    sentence,
)
from histo_lightning.evaluation.corrected_t import FEWEST_FOLDS, ROPE, corrected_t
from histo_lightning.evaluation.levels import Floats
from histo_lightning.evaluation.named_scores import NamedScore
from histo_lightning.evaluation.paired import LEVEL, Paired, paired
from histo_lightning.evaluation.ranks import friedman
from histo_lightning.evaluation.simultaneous import Family, holm

Json = dict[str, Any]

FEWEST_REPLICATES = 4


def _number(value: Any) -> float | None:
    """A JSON number, null where it is not finite."""
    return float(value) if np.isfinite(value) else None


def _sd(values: Floats) -> float | None:
    """Standard deviation of (n,) values, null where there are fewer than two or one is undefined."""
    return _number(values.std(ddof=1)) if len(values) > 1 else None


def _by_partition(by_fold: Floats, plan: Design) -> Floats:
    """(..., P K) scores by fold, averaged over the replicates of each of P partitions, from (..., R, K)."""
    kinds = [by_fold[..., plan.partition == kind, :].mean(axis=-2) for kind in np.unique(plan.partition)]
    return np.concatenate(kinds, axis=-1)


def arm_records(scored: ArmScores, plan: Design, score: NamedScore) -> dict[str, Json]:
    """Every arm's own score, with its spread over training runs and folds and its SE over cases apart."""
    whole = scored.over_magnifications
    records = {}
    for a, name in enumerate(plan.arms):
        value = whole.value[a, 0]
        record = {
            "value": float(value.mean()),
            "by_magnification": {
                magnification: float(scored.value[a, m].mean())
                for m, magnification in enumerate(plan.magnifications)
            },
            "seed_sd": _sd(value),
            "fold_sd": _sd(_by_partition(whole.by_fold[a, 0], plan)),
            "case_se": float(paired(value, whole.left_out[a, 0], plan.case_class).case_se),
        }
        if score.score == "auroc":
            record["within_fold_auroc"] = record["value"]
            record["pooled_auroc"] = _number(whole.pooled_auroc[a, 0].mean())
        records[name] = record
    return records


def _over_folds(differences: Floats, ratio: float | None, score: NamedScore) -> Json:
    """The two secondary lines from (J,) differences by fold and n_test / n_train."""
    reason = "the difference is the same in every fold (zero spread)"
    found = None
    if ratio is None:
        reason = f"fewer than {FEWEST_FOLDS} folds"
    elif not np.isfinite(differences).all():
        reason = "the score is undefined in a fold"
    else:
        found = corrected_t(differences, ratio)
    if found is None:
        return {"nadeau_bengio": None, "bayes": None, "reason_over_folds": reason}
    low, high = found.interval(LEVEL)
    below, within, above = found.shares(ROPE)
    worse, better = (above, below) if score.lower_is_better else (below, above)
    nadeau_bengio = {
        "t": found.t,
        "df": found.df,
        "p": found.p,
        "low": low,
        "high": high,
        "variance_factor": found.variance_factor,
    }
    bayes = {"p_worse": worse, "p_equivalent": within, "p_better": better, "rope": ROPE}
    return {"nadeau_bengio": nadeau_bengio, "bayes": bayes, "reason_over_folds": None}


def _main_lines(found: Paired, together: Family | None, setting: Setting) -> list[Json]:
    """The comparison proper: a line for each of the (A,) differences."""
    half, adjusted = found.half_width(), holm(found.p)
    nothing = np.full(found.se.shape, np.nan)
    wide = nothing if together is None else found.half_width(together.level(LEVEL))
    at_once = nothing if together is None else together.adjusted(found.p)
    lines = []
    for a in range(len(found.se)):
        difference, se = float(found.difference[a]), float(found.se[a])
        lines.append(
            {
                "difference": difference,
                "se": se,
                "case_se": float(found.case_se[a]),
                "seed_se": float(found.seed_se[a]) if setting.replicates > 1 else None,
                "df": _number(found.df[a]),
                "t": _number(found.t[a]),
                "p": _number(found.p[a]),
                "p_holm": _number(adjusted[a]),
                "p_simultaneous": _number(at_once[a]),
                "low": _number(difference - half[a]),
                "high": _number(difference + half[a]),
                "simultaneous_low": _number(difference - wide[a]),
                "simultaneous_high": _number(difference + wide[a]),
                "minimum_detectable": DETECTABLE * se if se > 0 else None,
                "reason": None if se > 0 else NO_SPREAD,
                "equivalence": [
                    asdict(equivalence(difference, se, float(found.df[a]), region, setting.score))
                    for region in REGIONS
                ],
                "conditional": CONDITIONAL if setting.replicates == 1 else None,
            }
        )
    return lines


def pair_records(
    apart: ArmScores, plan: Design, together: Family | None, ratio: float | None, setting: Setting
) -> dict[str, Json]:
    """Every comparison with the reference.

    Args:
        apart: scores of ``plan.others`` less the reference's; together: the primary family's joint distribution,
            None for exploratory comparisons; ratio: n_test / n_train; setting: for the sentences.
    """
    whole = apart.over_magnifications
    each = paired(apart.value, apart.left_out, plan.case_class)
    each_adjusted, each_p = holm(each.p), each.p
    mean = paired(whole.value[:, 0], whole.left_out[:, 0], plan.case_class)
    by_fold = _by_partition(whole.by_fold[:, 0], plan)
    prefix = "simultaneous_" if setting.simultaneous else ""
    records = {}
    for a, line in enumerate(_main_lines(mean, together, setting)):
        name, ends = plan.others[a], (line[f"{prefix}low"], line[f"{prefix}high"])
        records[name] = {
            "arm": name,
            "reference": plan.reference,
            **line,
            "by_magnification": {
                magnification: {
                    "difference": float(each.difference[a, m]),
                    "se": float(each.se[a, m]),
                    "p": _number(each_p[a, m]),
                    "p_holm": _number(each_adjusted[a, m]),
                }
                for m, magnification in enumerate(plan.magnifications)
            },
            **_over_folds(by_fold[a], ratio, setting.score),
            "words": sentence(name, plan.reference, line["difference"], line["se"], ends, setting),
        }
    return records


def rank_record(scored: ArmScores, plan: Design, score: NamedScore) -> Json:
    """Friedman's test over the folds of one partition, magnifications and replicates averaged."""
    blocks = _by_partition(scored.over_magnifications.by_fold[:, 0], plan).T
    reason = None
    if plan.split_repeats:
        reason = "the replicates are repeats of the split: their folds differ, so they are no blocks"
    elif plan.folds < 2:
        reason = "fewer than 2 folds"
    elif not np.isfinite(blocks).all():
        reason = "the score is undefined in a fold"
    record: Json = {"descriptive": True, "blocks": plan.folds, "reason": reason}
    if reason:
        return record | {"statistic": None, "p": None, "mean_ranks": None, "critical_difference": None}
    ranks = friedman(blocks, lower_is_better=score.lower_is_better)
    return record | {
        "statistic": ranks.statistic,
        "p": ranks.p,
        "mean_ranks": {name: float(rank) for name, rank in zip(plan.arms, ranks.mean_rank, strict=True)},
        "critical_difference": ranks.critical_difference,
    }


def notes(plan: Design, *, simultaneous_missing: bool) -> list[str]:
    """What a reader must know before the numbers."""
    found = []
    if plan.replicates == 1:
        found.append(CONDITIONAL)
    elif plan.replicates < FEWEST_REPLICATES:
        found.append(
            f"{plan.replicates} replicates: the variance between training runs rests on {plan.replicates - 1} "
            f"degree(s) of freedom; the protocol asks for at least {FEWEST_REPLICATES}"
        )
    if simultaneous_missing:
        found.append(
            "no simultaneous intervals: the score is undefined in too many resamples of cases, or nothing varies; "
            "Holm's adjustment stands instead"
        )
    return found
