"""The Optuna search in one SQLite file: every process that runs the same command takes its next trial from it.

A trial whose heartbeat stops is repeated with its values. Repetitions do not count as seeds: a killed study ends like any other.
"""

import gc
import hashlib
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from histo_lightning.callbacks.progress import Pruned
from histo_lightning.errors import UserError, error_line
from histo_lightning.tuning.space import Plan, Search

LOCK_SECONDS = 120.0  # SQLite lets one process write at a time; the others wait this long
POLL_SECONDS = 0.5
HEARTBEAT_SECONDS, GRACE_SECONDS = 4, 20  # a trial that was silent for longer has lost its process
MAX_RETRIES = 9  # a trial whose process dies more often has failed
DONE = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass
class Attempt:
    """A trial that this process works on; ``number`` counts the trials of its search without repetitions."""

    search: Search
    number: int
    values: Mapping[str, Any]
    trial: optuna.Trial
    reported: int = 0

    def judge(self, curve: Sequence[float]) -> bool:
        """Report what is new in the values of all steps so far (NaN where undefined); whether to prune."""
        prune = False
        for step in range(self.reported, len(curve)):
            self.reported = step + 1
            if curve[step] == curve[step]:
                self.trial.report(curve[step], step)
                prune = self.trial.should_prune() or prune
        return prune


Train = Callable[[Attempt], float]


@contextmanager
def _experimental() -> Iterator[None]:  # heartbeats, repetitions and multivariate TPE
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        yield


@_experimental()
def numbered(trials: Sequence[FrozenTrial]) -> list[list[FrozenTrial]]:
    """Trials in the order they were started, each with its repetitions behind it."""
    attempts: dict[int, list[FrozenTrial]] = {}
    for trial in trials:
        first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
        attempts.setdefault(trial.number if first is None else first, []).append(trial)
    return list(attempts.values())


class Studies:
    """The searches of a plan in ``study.db``; UserError where the file cannot be used or is of another ``identity`` (hashes, version)."""

    @_experimental()
    def __init__(self, plan: Plan, identity: Mapping[str, str]) -> None:
        self.plan, self.identity = plan, dict(identity)
        optuna.logging.set_verbosity(optuna.logging.CRITICAL)
        self.repeat = RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRIES)
        path = plan.folder / "study.db"  # opened without a URL: a path may hold anything
        connect = partial(sqlite3.connect, path, timeout=LOCK_SECONDS, check_same_thread=False)
        try:
            plan.folder.mkdir(parents=True, exist_ok=True)
            self.lock = FileLock(plan.folder / ".lock")
            with self.lock:
                storage = RDBStorage(
                    "sqlite:///study.db", {"creator": connect}, heartbeat_interval=HEARTBEAT_SECONDS,
                    grace_period=GRACE_SECONDS, heartbeat_stale_trial_callback=self.repeat,
                )  # fmt: skip
                self.by_name = {search.name: self._study(storage, search.name) for search in plan.searches}
        except (OSError, SQLAlchemyError, RuntimeError) as error:
            raise UserError(f"{path}: cannot be used ({error}); give another study_name") from error

    def _study(self, storage: RDBStorage, name: str) -> optuna.Study:
        plan, settings = self.plan, self.plan.config.tune
        first = 0 if len(plan.folds) > 1 else plan.warmup_epochs - 1  # a step is a fold or an epoch, from 0
        pruners = {
            "median": MedianPruner(settings.pruner_trials, n_warmup_steps=first),
            "halving": SuccessiveHalvingPruner(min_resource=first + 1, reduction_factor=3),
            "none": NopPruner(),
        }
        study = optuna.create_study(
            storage=storage, study_name=name, direction="minimize" if plan.minimise else "maximize",
            pruner=pruners[settings.pruner], load_if_exists=True,
        )  # fmt: skip
        known = study.user_attrs.get("identity", self.identity)
        if keys := sorted(key for key, text in self.identity.items() if known.get(key) != text):
            problem = f"this study was made with other settings or data (different: {', '.join(keys)})"
            mend = "give another study_name, or resume=never for a new folder"
            raise UserError(f"{plan.folder}: {problem}; {mend}")
        study.set_user_attr("identity", self.identity)
        return study

    @_experimental()
    def _sampler(self, number: int) -> BaseSampler:
        settings, text = self.plan.config.tune, f"{self.plan.config.seed}/{number}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")  # whichever process asks
        if settings.sampler == "random":
            return RandomSampler(seed)
        first = settings.random_trials
        return TPESampler(n_startup_trials=first, multivariate=True, constant_liar=True, seed=seed)

    def trials(self, search: Search, *states: TrialState) -> list[FrozenTrial]:
        """Trials of a search, repetitions too, in the order they were started."""
        return self.by_name[search.name].get_trials(deepcopy=False, states=states or None)

    def done(self) -> int:
        """How many trials count: completed and pruned ones."""
        return sum(len(self.trials(search, *DONE)) for search in self.plan.searches)

    def work(self, train: Train, announce: Callable[[Attempt, FrozenTrial], None]) -> None:
        """Train and ``announce`` trials until none is left, in other processes either, or ``tune.max_failed`` have failed here."""
        failed, before = 0, self._running()
        while before & self._running():  # of a killed process perhaps, whose trials come before new ones
            time.sleep(POLL_SECONDS)
        while failed < self.plan.config.tune.max_failed:
            with self.lock:
                running = self._running()
                attempt = self._run(train)
            if attempt is not None:
                trial = self.trials(attempt.search)[attempt.trial.number]
                if trial.state == TrialState.FAIL:
                    failed += 1
                    gc.collect()  # what a failed fit holds: a GPU that was full would fail the next trial too
                announce(attempt, trial)
            elif running:
                time.sleep(POLL_SECONDS)
            else:
                return

    @_experimental()
    def _running(self) -> set[tuple[str, int]]:
        """Trials whose process lives, as far as is known; those that were silent for too long are queued again."""
        for study in self.by_name.values():
            fail_stale_trials(study)
        searches = self.plan.searches
        return {(s.name, trial.number) for s in searches for trial in self.trials(s, TrialState.RUNNING)}

    def _run(self, train: Train) -> Attempt | None:
        """One trial of the search with the fewest, None where no more are needed; the lock is let go before it is trained."""
        taken = {s.name: len(self.trials(s, *DONE, TrialState.RUNNING)) for s in self.plan.searches}
        search = min(self.plan.searches, key=lambda search: taken[search.name])  # all are given as many
        if taken[search.name] >= search.trials:
            return None
        study, attempts = self.by_name[search.name], list[Attempt]()
        study.sampler = self._sampler(len(numbered(self.trials(search))))

        def objective(trial: optuna.Trial) -> float:
            values = dict(search.fixed)
            for key, d in search.space.items():
                kind = type(d).__name__.removesuffix("Distribution").lower()
                values[key] = getattr(trial, f"suggest_{kind}")(key, **vars(d))
            latest = [repetitions[-1].number for repetitions in numbered(self.trials(search))]
            attempts.append(Attempt(search, latest.index(trial.number), values, trial))
            self.lock.release()
            try:
                return train(attempts[0])
            except Pruned as pruned:
                raise optuna.TrialPruned(str(pruned)) from pruned
            except Exception as error:  # whatever a setting leads to belongs to that setting
                trial.set_user_attr("error", error_line(error)[:500])
                raise

        try:
            study.optimize(objective, n_trials=1, catch=(Exception,))
        except KeyboardInterrupt:
            if attempts:
                self.repeat(study, self.trials(search)[attempts[0].trial.number])
            raise
        return attempts[0]
