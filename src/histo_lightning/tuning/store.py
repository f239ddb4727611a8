"""The study in SQLite: who works on which trial, which trials died with their process, and how many are left.

Every trial has a slot (0, 1, ...), which fixes its random numbers. A trial whose process died is recorded as killed and
its slot is taken up again with the same values, so a study that was killed ends like one that was not. A process shows
that it lives by a lock on a file, which the system lets go when it dies: no waiting, and a slow trial is never taken for
a dead one. The processes must run on one machine, or on a file system whose locks hold across machines.
"""

import hashlib
import sqlite3
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from histo_lightning.errors import UserError
from histo_lightning.tuning.plan import Plan, try_lock
from histo_lightning.tuning.space import Arm, Dimension

LOCK_SECONDS = 120.0  # SQLite lets one process write at a time; the others wait this long
FRUITLESS = 3  # a trial whose process dies this often without finishing one more epoch has failed
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
Answer = Literal["wait", "done", "stopped"]


@dataclass
class Claim:
    """A trial that this process works on: its slot, its search, all its values; ``lock`` is held until it is told."""

    arm: Arm
    slot: int
    trial: optuna.Trial
    values: Mapping[str, Any]
    lock: IO[Any]
    reported: int = 0
    fold_values: list[float] = field(default_factory=list)

    def judge(self, curve: Sequence[float]) -> bool:
        """Report the steps of ``curve`` that were not reported yet; whether the pruner gives the trial up."""
        give_up = False
        for step in range(self.reported, len(curve)):
            self.reported = step + 1
            if curve[step] == curve[step]:
                self.trial.report(curve[step], step)
                give_up = give_up or self.trial.should_prune()
        return give_up

    def judge_fold(self, value: float) -> bool:
        """Report one more fold, as the mean over those so far: every trial takes the folds in the same order."""
        self.fold_values.append(value)
        self.trial.report(sum(self.fold_values) / len(self.fold_values), len(self.fold_values) - 1)
        return self.trial.should_prune()


def distribution(dimension: Dimension) -> BaseDistribution:
    """A searched key as Optuna describes it."""
    if dimension.kind == "choice":
        return CategoricalDistribution(dimension.choices)
    if dimension.kind == "int":
        step = int(dimension.step or 1)
        return IntDistribution(int(dimension.low), int(dimension.high), dimension.log, step)
    return FloatDistribution(dimension.low, dimension.high, dimension.log, dimension.step)


def make_sampler(plan: Plan, slot: int) -> BaseSampler:
    """The sampler of one slot: seeded by the study's seed and the slot, so it does not matter which process asks."""
    text = f"{plan.config.seed}/{slot}".encode()
    seed = int.from_bytes(hashlib.sha256(text).digest()[:4], "big")
    if plan.config.tune.sampler == "random":
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # multivariate is the default from Optuna 5 on
        return TPESampler(
            n_startup_trials=plan.config.tune.random_trials, multivariate=True, constant_liar=True, seed=seed
        )


def make_pruner(plan: Plan) -> BasePruner:
    """The pruner of every search. With several folds a step is a fold, so the first one can be pruned."""
    settings = plan.config.tune
    first = 0 if len(plan.folds) > 1 else plan.warmup_epochs - 1  # steps count from 0
    if settings.pruner == "median":
        return MedianPruner(n_startup_trials=settings.pruner_trials, n_warmup_steps=first)
    if settings.pruner == "halving":
        return SuccessiveHalvingPruner(min_resource=first + 1, reduction_factor=3)
    return NopPruner()


class Store:
    """A worker's view of the study's data base.

    Raises:
        UserError: the study was made with other settings, data or package version.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path = plan.folder / "study.db"

        def connect() -> sqlite3.Connection:  # not by URL: a path may hold anything
            return sqlite3.connect(path, timeout=LOCK_SECONDS, check_same_thread=False)

        with plan.locked("claim"):
            try:
                storage = RDBStorage("sqlite:///study.db", engine_kwargs={"creator": connect})
                self.studies = {arm.name: self._study(storage, arm) for arm in plan.arms}
            except (SQLAlchemyError, RuntimeError) as error:
                raise UserError(f"{path}: cannot be used ({error}); give another study_name") from error

    def _study(self, storage: RDBStorage, arm: Arm) -> optuna.Study:
        study = optuna.create_study(
            storage=storage,
            study_name=arm.name,
            direction="minimize" if self.plan.minimise else "maximize",
            pruner=make_pruner(self.plan),
            load_if_exists=True,
        )
        found, wanted = study.user_attrs.get("identity"), dict(self.plan.identity)
        if found is None:
            study.set_user_attr("identity", wanted)
        elif found != wanted:
            names = ", ".join(sorted(name for name in wanted if found.get(name) != wanted[name]))
            raise UserError(
                f"{self.plan.folder}: this study was made with other settings or data (different: {names}); "
                "give another study_name, or resume=never for a new folder"
            )
        return study

    def trials(self, arm: Arm) -> list[FrozenTrial]:
        """Trials that have a slot, every attempt of it, in the order they were started."""
        found = self.studies[arm.name].get_trials(deepcopy=False)
        return [trial for trial in found if "slot" in trial.user_attrs]

    def failed(self) -> int:
        """Slots given up: their setting, or their process, failed."""
        return sum(is_failure(trial) for arm in self.plan.arms for trial in self.trials(arm))

    def done(self) -> int:
        """Trials that count: completed and pruned."""
        return sum(trial.state in DONE for arm in self.plan.arms for trial in self.trials(arm))

    def claim(self) -> Claim | Answer:
        """The next trial to work on; or ``wait`` (others work on the last ones), ``done``, ``stopped`` (too many failed)."""
        plan = self.plan
        with plan.locked("claim"):
            for arm in plan.arms:
                self._reap(arm)
            for arm in plan.arms:
                if any(trial.state == TrialState.WAITING for trial in self.trials(arm)):
                    return self._ask(arm)
            if self.failed() - plan.failed_before >= plan.config.tune.max_failed:
                return "wait" if self._running() else "stopped"
            taken = {
                arm.name: sum(trial.state in (*DONE, TrialState.RUNNING) for trial in self.trials(arm))
                for arm in plan.arms
            }
            free = [arm for arm in plan.arms if taken[arm.name] < arm.trials]
            if free:
                return self._ask(min(free, key=lambda arm: taken[arm.name]))
            return "wait" if self._running() else "done"

    def _running(self) -> bool:
        return any(trial.state == TrialState.RUNNING for arm in self.plan.arms for trial in self.trials(arm))

    def _lock_of(self, arm: Arm, number: int) -> IO[Any] | None:
        return try_lock(self.plan.folder / ".locks" / f"{arm.name}-{number}")

    def _ask(self, arm: Arm) -> Claim:
        slots = {trial.user_attrs["slot"] for each in self.plan.arms for trial in self.trials(each)}
        study = self.studies[arm.name]
        new = max(slots, default=-1) + 1
        waiting = [trial for trial in self.trials(arm) if trial.state == TrialState.WAITING]
        slot = waiting[0].user_attrs["slot"] if waiting else new
        study.sampler = make_sampler(self.plan, slot)
        trial = study.ask({dimension.key: distribution(dimension) for dimension in arm.dimensions})
        slot = trial.user_attrs.get("slot", new)
        lock = self._lock_of(arm, trial.number)
        if lock is None:
            raise RuntimeError(
                f"trial {trial.number} of {arm.name} is new, yet another process holds its lock"
            )
        trial.set_user_attr("slot", slot)
        return Claim(arm, slot, trial, {**arm.fixed, **trial.params}, lock)

    def _reap(self, arm: Arm) -> None:
        """Record trials whose process died as killed, and have their slots taken up again."""
        study = self.studies[arm.name]
        for seen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            lock = self._lock_of(arm, seen.number)
            if lock is None:
                continue  # its process lives
            with lock:
                trial = study.get_trials(deepcopy=False)[seen.number]
                if trial.state != TrialState.RUNNING:
                    continue  # it ended between the two looks
                if "slot" in trial.user_attrs:  # else it died before it was a trial of ours
                    self._bury(study, trial)
                study.tell(trial.number, state=TrialState.FAIL)

    def _bury(self, study: optuna.Study, trial: FrozenTrial) -> None:
        epochs = len(trial.intermediate_values)
        progressed = epochs > trial.user_attrs.get("epochs_before", 0)
        fruitless = 0 if progressed else trial.user_attrs.get("fruitless", 0) + 1
        record = optuna.Trial(
            study, trial._trial_id
        )  # Optuna's own way to write to a trial of another process
        record.set_user_attr("killed", fruitless < FRUITLESS)
        if fruitless >= FRUITLESS:
            record.set_user_attr(
                "error",
                f"its process died {FRUITLESS} times without finishing an epoch; is the memory enough?",
            )
            return
        record.set_user_attr("error", "its process died; taken up again")
        slot = trial.user_attrs["slot"]
        later = study.get_trials(deepcopy=False)[trial.number + 1 :]
        if not any(
            other.user_attrs.get("slot") == slot for other in later
        ):  # else a burial was cut short here
            again = {"slot": slot, "fruitless": fruitless, "epochs_before": epochs}
            study.enqueue_trial(dict(trial.params), user_attrs=again)

    def complete(self, claim: Claim, value: float) -> None:
        """Record a trial's objective."""
        self._tell(claim, TrialState.COMPLETE, value)

    def prune(self, claim: Claim) -> None:
        """Record that a trial was given up."""
        self._tell(claim, TrialState.PRUNED)

    def fail(self, claim: Claim, error: str) -> None:
        """Record why a trial has no result."""
        claim.trial.set_user_attr("error", error)
        self._tell(claim, TrialState.FAIL)

    def _tell(self, claim: Claim, state: TrialState, value: float | None = None) -> None:
        self.studies[claim.arm.name].tell(claim.trial, value, state)
        claim.lock.close()


def is_failure(trial: FrozenTrial) -> bool:
    """Whether a trial was given up, not merely interrupted."""
    return trial.state == TrialState.FAIL and not trial.user_attrs.get("killed", False)
