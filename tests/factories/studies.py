"""A study whose fits are a formula: what processes of the tests do. Imports little, since a started process imports it."""

import math
import os
import random
import signal
import time
from pathlib import Path

from histo_lightning.tuning.store import Claim, Store

from histo_lightning.tuning.plan import Plan

EPOCHS = 5  # of a fit


def curve_of(claim: Claim, epochs: int = EPOCHS) -> list[float]:
    """A fit's validation losses, a function of the setting and the slot alone."""
    noise = random.Random(claim.slot)
    good = 0.4 + 0.1 * (math.log10(claim.values["optimizer.lr"]) + 3) ** 2
    return [good + 0.4 * math.exp(-epoch / 2) + noise.gauss(0, 0.01) for epoch in range(epochs)]


def fit(plan: Plan, store: Store, claim: Claim) -> None:
    """What ``run_trial`` does, on a scripted curve."""
    curve: list[float] = []
    for value in curve_of(claim):
        curve.append(value)
        if claim.judge(curve) and len(curve) < EPOCHS:
            return store.prune(claim)
    value = plan.objective(curve)
    assert value is not None
    return store.complete(claim, value)


def die(plan: Plan, epochs: int) -> None:
    """A worker that is killed after ``epochs`` of the trial that it takes."""
    claim = Store(plan).claim()
    assert isinstance(claim, Claim)
    claim.judge(curve_of(claim)[:epochs])
    os.kill(os.getpid(), signal.SIGKILL)


def work(plan: Plan, name: str) -> None:
    """A worker that leaves a file for each trial that it takes."""
    store = Store(plan)
    while (claim := store.claim()) not in ("done", "stopped"):
        if isinstance(claim, Claim):
            Path(plan.folder / f"{claim.slot}.{name}").touch()
            fit(plan, store, claim)
        else:
            time.sleep(0.01)
