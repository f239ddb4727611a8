"""Studies whose fits are a formula, and the configs that they need; started processes of the tests import this too."""

import copy
import math
import os
import random
import signal
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from histo_lightning.callbacks.progress import Pruned
from histo_lightning.config.checks import to_config
from histo_lightning.config.schema import TuneConfig
from histo_lightning.config.tree import conf_dir
from histo_lightning.tuning import search
from histo_lightning.tuning.results import Row, trial_rows
from histo_lightning.tuning.search import Attempt, Studies
from histo_lightning.tuning.space import Plan, check_tuning
from histo_lightning.tuning.study import objective

EPOCHS = 5  # of a fit
IDENTITY = {"settings": "the same"}


@cache
def _composed(*groups: str):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("tune", overrides=list(groups))


def settled(*arguments: str) -> TuneConfig:
    """What a command line gives, through every check before work, without Hydra's grammar: a tenth of the time."""
    groups = tuple(a for a in arguments if a.split("=")[0] in ("tune", "scheduler", "trainer", "experiment"))
    config = copy.deepcopy(_composed(*groups))
    OmegaConf.set_struct(config, False)
    for argument in (a for a in arguments if a not in groups):
        key, _, value = argument.partition("=")
        OmegaConf.update(config, key, yaml.safe_load(value.replace(":", ": ")), force_add=True)
    found = to_config(config, TuneConfig)
    assert isinstance(found, TuneConfig)
    check_tuning(found)
    return found


def plan_of(folder: Path, *arguments: str) -> Plan:
    return Plan(folder, settled(*arguments), {"overrides.yaml": "[]"})


def curve_of(attempt: Attempt) -> list[float]:
    """A fit's validation losses, a function of the setting and the trial's number alone."""
    noise = random.Random(attempt.number)
    good = 0.4 + 0.1 * (math.log10(attempt.values["optimizer.lr"]) + 3) ** 2
    return [good + 0.4 * math.exp(-epoch / 2) + noise.gauss(0, 0.01) for epoch in range(EPOCHS)]


def fit(plan: Plan, attempt: Attempt) -> float:
    """What ``train_trial`` does, on a scripted curve."""
    curve = curve_of(attempt)
    for epochs in range(1, EPOCHS + 1):
        if attempt.judge(curve[:epochs]) and epochs < EPOCHS:
            raise Pruned(f"pruned after epoch {epochs}")
    return objective(plan, curve)


def finish(plan: Plan, train: Callable[[Attempt], float] | None = None) -> list[Row]:
    """Work on a study until it is done or stops; its trials."""
    studies = Studies(plan, IDENTITY)
    studies.work(train or partial(fit, plan), lambda attempt, trial: None)
    return trial_rows(studies)


def quicken() -> None:
    """In a started process: hearts beat faster, so that a dead one is noticed sooner."""
    search.HEARTBEAT_SECONDS, search.GRACE_SECONDS, search.POLL_SECONDS = 1, 3, 0.02


def die(plan: Plan, number: int, epochs: int) -> None:
    """A worker that is killed in a trial after some epochs of it."""
    quicken()

    def train(attempt: Attempt) -> float:
        if attempt.number == number:
            attempt.judge(curve_of(attempt)[:epochs])
            os.kill(os.getpid(), signal.SIGKILL)
        return fit(plan, attempt)

    finish(plan, train)


def work(plan: Plan, name: str, slow: int) -> None:
    """A worker that leaves a file for each trial that it takes, and is slow to train one of them."""
    quicken()

    def train(attempt: Attempt) -> float:
        (plan.folder / f"{attempt.number}.{name}").touch()
        time.sleep(search.GRACE_SECONDS + 2 if attempt.number == slow else 0.02)
        return fit(plan, attempt)

    finish(plan, train)
