"""Models compared over the same cases, exactly by section 5 of the statistical protocol (``docs/comparison.md``)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from histo_lightning.evaluation.arm_checks import design
from histo_lightning.evaluation.arm_scores import ArmScores, arm_scores
from histo_lightning.evaluation.arms import Arm, Block, Design, Replicate
from histo_lightning.evaluation.comparison_record import arm_records, notes, pair_records, rank_record
from histo_lightning.evaluation.conclusion import Setting
from histo_lightning.evaluation.corrected_t import FEWEST_FOLDS, rotating_ratio
from histo_lightning.evaluation.intervals import case_weights
from histo_lightning.evaluation.named_scores import named_score
from histo_lightning.evaluation.paired import LEVEL, paired
from histo_lightning.evaluation.simultaneous import Family, family

__all__ = ["Arm", "Block", "Replicate", "compare_arms"]


def _family(apart: ArmScores, plan: Design, seed: int) -> Family | None:
    """The joint null distribution of the differences of ``apart``."""
    whole = apart.over_magnifications
    found = paired(whole.value[:, 0], whole.left_out[:, 0], plan.case_class)
    return family(whole.resampled[:, 0], whole.value[:, 0], found.case_se, seed)


def _ratio(plan: Design) -> float | None:
    """n_test / n_train in cases with validation as the next fold, the mean over the replicates."""
    if plan.folds < FEWEST_FOLDS:
        return None
    return float(np.mean([rotating_ratio(fold) for fold in plan.fold]))


def compare_arms(
    arms: Mapping[str, Arm],
    *,
    reference: str,
    score: str = "case_auroc",
    primary: bool = True,
    draws: int = 2000,
    seed: int = 0,
    equal_budget: bool = True,
    test_train_ratio: float | None = None,
) -> dict[str, Any]:
    """Compare every arm with the reference over the same cases, as section 5 of the protocol asks.

    A score is computed by replicate and magnification (AUROC from pairs within a fold only) and averaged; the
    difference has a variance over cases, taken jointly at all magnifications, and one over training runs.

    Args:
        arms: by name, each with the same magnifications, replicates, images and folds.
        reference: the arm to compare against.
        score: one of ``named_scores.NAMES``.
        primary: a family fixed beforehand, which gets simultaneous intervals; False: exploratory, Holm only.
        draws: resamples of cases for the simultaneous intervals of two or more comparisons; seed: of the draws.
        equal_budget: whether the sentences may say "at equal budget".
        test_train_ratio: n_test / n_train of the Nadeau-Bengio and Bayesian lines; None: counted in cases with
            validation as the next fold. The official folds' by slide is ``corrected_t.OFFICIAL_RATIO``.

    Returns:
        Values that JSON can hold (null with a ``reason`` where undefined), described in ``docs/comparison.md``.
        Differences are arm minus reference, in units of the score.

    Raises:
        UserError: unknown score or reference; arms that may not be compared (see ``arm_checks.design``); a score that is
            undefined on an arm.
    """
    wanted = named_score(score)
    plan = design(arms, reference)
    resamples = draws if primary and len(plan.others) > 1 else 0
    scored = arm_scores(arms, plan, wanted, case_weights(plan.case_class, resamples, seed))
    apart = scored.less_reference
    together = _family(apart, plan, seed) if primary else None
    benign, malignant = (int(count) for count in plan.cases_by_class)
    setting = Setting(
        score=wanted,
        magnifications=len(plan.magnifications),
        cases=benign + malignant,
        benign=benign,
        replicates=plan.replicates,
        split_repeats=plan.split_repeats,
        simultaneous=together is not None,
        equal_budget=equal_budget,
    )
    by_arm = arm_records(scored, plan, wanted)
    ratio = _ratio(plan) if test_train_ratio is None else test_train_ratio
    pairs = pair_records(apart, plan, together, ratio, setting)
    return {
        "score": score,
        "reference": reference,
        "primary": primary,
        "comparisons": len(plan.others),
        "magnifications": list(plan.magnifications),
        "replicates": plan.replicates,
        "replicates_are": "repeats of the split" if plan.split_repeats else "seeds",
        "folds": plan.folds,
        "cases": {"benign": benign, "malignant": malignant},
        "level": LEVEL,
        "draws": resamples,
        "notes": notes(plan, simultaneous_missing=primary and together is None),
        "arms": {name: by_arm[name] for name in arms},
        "pairs": [pairs[name] for name in arms if name != reference],
        "friedman": rank_record(scored, plan, wanted),
    }
