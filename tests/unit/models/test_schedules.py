"""Learning-rate schedules against torch's own, by hand, and against what this package's first version gave."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, StepLR

from histo_lightning.models.schedules import Constant, Cosine, Step, Warmup

EPOCHS, STEPS = 8, 5


def rates(make: Any, count: int = EPOCHS * STEPS, every: int = 1) -> list[float]:
    """The rates of each step of a fit whose optimizer has a rate of 1; ``every`` how many steps it steps on."""
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule: LRScheduler = make(optimizer)
    values = []
    for step in range(count):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0:
            schedule.step()
    return values


def test_steps_fall_where_torch_s_do() -> None:
    ours = rates(lambda o: Step(o, EPOCHS * STEPS, STEPS, step_size=3, gamma=0.1))
    assert ours == pytest.approx(rates(lambda o: StepLR(o, 3, 0.1), every=STEPS))
    assert ours[3 * STEPS - 1 : 3 * STEPS + 1] == pytest.approx([1.0, 0.1])


def test_the_cosine_is_torch_s_after_the_warm_up() -> None:
    ours = rates(lambda o: Cosine(o, EPOCHS * STEPS, STEPS, warmup_epochs=2, final_ratio=0.1))
    assert ours[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert ours[10:] == pytest.approx(rates(lambda o: CosineAnnealingLR(o, 30, eta_min=0.1), 30))


def test_a_constant_rate_by_hand() -> None:
    assert rates(lambda o: Constant(o, 40, STEPS, warmup_epochs=1)) == pytest.approx(
        [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6] + [1.0] * 35
    )


def test_a_warm_up_longer_than_the_fit_ends_below_the_peak() -> None:
    assert rates(lambda o: Cosine(o, 8, 4, warmup_epochs=50), 8) == pytest.approx(
        [i / 8 for i in range(1, 9)]
    )


def test_a_fit_without_an_end() -> None:
    endless = rates(lambda o: Cosine(o, math.inf, STEPS, warmup_epochs=1, final_ratio=0.0))
    assert endless[:5] == pytest.approx([i / 6 for i in range(1, 6)])
    assert endless[5:] == [1.0] * 35
    stepped = rates(lambda o: Step(o, math.inf, STEPS, step_size=2, gamma=0.5))
    assert stepped[-1] == pytest.approx(0.5**3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: Step(o, 10, 5, step_size=0), "step_size=0 is below 1"),
        (lambda o: Cosine(o, 10, 5, final_ratio=2), "final_ratio=2 is not between 0 and 1"),
        (lambda o: Constant(o, 10, 5, warmup_epochs=-1), "warmup_epochs=-1 is negative"),
    ],
)
def test_wrong_numbers_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rates(make, 1)


def former_factor(settings: dict[str, Any], step: int, steps_per_epoch: int, epochs: int) -> float:
    """The factor as version 0.1 computed it: published runs were trained with it."""
    warmup = min(int(settings["warmup_epochs"]) * steps_per_epoch, epochs * steps_per_epoch - 1)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if settings["name"] == "step":
        return float(settings["gamma"]) ** (step // steps_per_epoch // int(settings["step_size"]))
    if settings["name"] == "cosine":
        final = float(settings["final_ratio"])
        done = min((step - warmup) / max(epochs * steps_per_epoch - warmup, 1), 1.0)
        return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2
    return 1.0


@given(
    st.integers(1, 9), st.integers(1, 7), st.integers(0, 4), st.integers(1, 4), st.sampled_from([0.0, 0.01, 0.3])
)  # fmt: skip
def test_factors_are_the_former_ones_to_the_last_bit(
    epochs: int, steps: int, warmup: int, size: int, ratio: float
) -> None:
    total = epochs * steps
    makers: list[tuple[dict[str, Any], Any]] = [
        ({"name": "constant"}, lambda o: Constant(o, total, steps, warmup)),
        ({"name": "step", "step_size": size, "gamma": ratio}, lambda o: Step(o, total, steps, size, ratio, warmup)),
        ({"name": "cosine", "final_ratio": ratio}, lambda o: Cosine(o, total, steps, warmup, ratio)),
    ]  # fmt: skip
    for settings, make in makers:
        schedule: Warmup = make(SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0))
        (factor,) = schedule.lr_lambdas
        for step in range(total + 2):
            assert factor(step) == former_factor({**settings, "warmup_epochs": warmup}, step, steps, epochs)
