"""Reads the study's data base into plain rows, and asks Optuna which keys mattered."""

import warnings
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from histo_lightning.tuning.plan import Plan
from histo_lightning.tuning.results import TrialRow
from histo_lightning.tuning.space import Arm
from histo_lightning.tuning.store import Store

STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
ENOUGH = 10  # completed trials, below which an importance would be noise
TOP = 0.25  # share of the completed trials that counts as good


def rows(plan: Plan, store: Store) -> list[TrialRow]:
    """A row for each slot, in their order; of several attempts the last."""
    found: dict[int, tuple[Arm, list[FrozenTrial]]] = {}
    for arm in plan.arms:
        for trial in store.trials(arm):
            found.setdefault(int(trial.user_attrs["slot"]), (arm, []))[1].append(trial)
    return [_row(plan, slot, arm, attempts) for slot, (arm, attempts) in sorted(found.items())]


def _row(plan: Plan, slot: int, arm: Arm, attempts: list[FrozenTrial]) -> TrialRow:
    last = attempts[-1]
    seconds = [trial.duration.total_seconds() for trial in attempts if trial.duration is not None]
    folders = sorted((plan.folder / "trials").glob(f"trial_{slot:04d}_*"))
    return TrialRow(
        trial=slot,
        depth=arm.name,
        state=STATES.get(last.state, "running"),
        value=last.value if last.state == TrialState.COMPLETE else None,
        values={**arm.fixed, **last.params},
        curve=tuple(value for _, value in sorted(last.intermediate_values.items())),
        attempts=len(attempts),
        seconds=round(sum(seconds), 3) if seconds else None,
        runs=tuple(folder.name for folder in folders),
        error=str(last.user_attrs.get("error", "")),
    )


def importances(plan: Plan, store: Store) -> dict[str, Any]:
    """By depth: how much each key decides whether a trial is among the best quarter.

    PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023) of the completed trials; the values of a depth sum to 1.
    ``values`` is None with a ``reason`` where too few trials were completed.
    """
    found: dict[str, Any] = {}
    for arm in plan.arms:
        study = store.studies[arm.name]
        count = sum(trial.state == TrialState.COMPLETE for trial in store.trials(arm))
        about: dict[str, Any] = {
            "method": "PED-ANOVA, best quarter",
            "trials": count,
            "values": None,
            "reason": None,
        }
        if count < ENOUGH:
            about["reason"] = f"{ENOUGH} completed trials are needed, there are {count}"
        elif len(arm.dimensions) < 2:
            about["reason"] = "one key was searched"
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                evaluator = PedAnovaImportanceEvaluator(target_quantile=TOP)
                values = get_param_importances(study, evaluator=evaluator)
            about["values"] = {key: float(value) for key, value in values.items()}
        found[arm.name] = about
    return found
