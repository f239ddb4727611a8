"""Optimizers and schedules from their settings: torch's own, or anybody's subclass."""

from typing import Any

import pytest
import torch
from torch.nn import Parameter
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from histo_lightning.classifier import Classifier
from histo_lightning.classifier.optimizers import build_optimizer, build_scheduler, check_optimization
from histo_lightning.config.tree import conf_dir, option
from histo_lightning.errors import UserError

SGD = {"_target_": "torch.optim.SGD", "lr": 1.0}
COSINE = option("scheduler", "cosine")
FIT = {"total_steps": 40, "steps_per_epoch": 5, "monitor": "val/loss", "mode": "min"}


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


@pytest.mark.parametrize("name", options("optimizer"))
def test_every_shipped_optimizer_takes_a_step(name: str) -> None:
    parameter = Parameter(torch.ones(3))
    optimizer = build_optimizer([parameter], option("optimizer", name))
    assert f"{type(optimizer).__module__}".startswith("torch.optim")
    parameter.sum().backward()
    optimizer.step()
    assert (parameter < 1).all()


def test_optimizers_are_torch_s_with_the_config_s_numbers() -> None:
    parameters = [Parameter(torch.ones(3))]
    built = build_optimizer(parameters, option("optimizer", "adamw"))
    (group,) = built.param_groups
    assert type(built) is torch.optim.AdamW
    assert (group["lr"], group["betas"], group["weight_decay"], group["fused"]) == (
        1e-3,
        (0.9, 0.999),
        0.05,
        True,
    )
    assert not build_optimizer(parameters, option("optimizer", "adamw"), fused=False).param_groups[0]["fused"]
    assert (
        type(build_optimizer(parameters, {"_target_": "torch.optim.NAdam", "betas": [0.8, 0.9]}))
        is torch.optim.NAdam
    )


def test_null_takes_an_argument_of_the_option_out() -> None:
    settings = {**option("optimizer", "adamw"), "_target_": "torch.optim.SGD", "betas": None, "eps": None}
    assert type(build_optimizer([Parameter(torch.ones(1))], settings)) is torch.optim.SGD
    with pytest.raises(UserError, match=r"optimizer.betas: SGD has no such argument"):
        build_optimizer([Parameter(torch.ones(1))], {**settings, "betas": [0.9, 0.99]})


def test_only_what_learns_is_given_to_the_optimizer() -> None:
    classifier = Classifier("resnet10", 2, head="mlp", freeze_backbone=True)
    optimizer = build_optimizer(classifier.network.parameters(), SGD)
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in classifier.network.fc.parameters()}


@pytest.mark.parametrize("name", options("scheduler"))
def test_every_shipped_schedule_is_described_to_lightning(name: str) -> None:
    optimizer = build_optimizer([Parameter(torch.zeros(1))], SGD)
    described = build_scheduler(optimizer, option("scheduler", name), **FIT)
    assert described["name"] == "lr"
    assert described["interval"] == ("epoch" if name == "plateau" else "step")
    assert described.get("monitor") == ("val/loss" if name == "plateau" else None)


def test_one_cycle_rises_to_the_optimizer_s_rate() -> None:
    optimizer = build_optimizer([Parameter(torch.zeros(1))], SGD)
    cycle = build_scheduler(optimizer, option("scheduler", "onecycle"), **FIT)["scheduler"]
    assert isinstance(cycle, OneCycleLR)
    rates = []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cycle.step()
    assert rates[0] == pytest.approx(1 / 25)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.001)  # 1 / 25 / 40: what version 0.1 called a final ratio of 0.001
    with pytest.raises(UserError, match=r"needs a fit with an end; set max_epochs or max_steps"):
        build_scheduler(optimizer, option("scheduler", "onecycle"), **{**FIT, "total_steps": float("inf")})


def test_plateau_watches_what_the_run_watches_or_its_own() -> None:
    optimizer = build_optimizer([Parameter(torch.zeros(1))], SGD)
    settings = option("scheduler", "plateau")
    described = build_scheduler(optimizer, settings, **{**FIT, "monitor": "val/auroc", "mode": "max"})
    assert isinstance(described["scheduler"], ReduceLROnPlateau)
    assert (described["scheduler"].mode, described["monitor"]) == ("max", "val/auroc")
    assert build_scheduler(optimizer, {**settings, "monitor": "train/loss"}, **FIT)["monitor"] == "train/loss"


def test_any_schedule_of_torch_with_an_interval_of_its_own() -> None:
    optimizer = build_optimizer([Parameter(torch.zeros(1))], SGD)
    settings = {"_target_": "torch.optim.lr_scheduler.ExponentialLR", "gamma": 0.5}
    assert build_scheduler(optimizer, settings, **FIT)["interval"] == "epoch"
    by_step = build_scheduler(optimizer, {**settings, "interval": "step", "frequency": 3}, **FIT)
    assert (by_step["interval"], by_step["frequency"]) == ("step", 3)


@pytest.mark.parametrize(
    ("optimizer", "scheduler", "message"),
    [
        ({**SGD, "lr": -1.0}, COSINE, "optimizer: SGD refuses its arguments"),
        ({**SGD, "nesterov": True}, COSINE, "optimizer: SGD refuses its arguments"),
        (SGD, {**COSINE, "final_ratio": 2.0}, "scheduler: Cosine refuses its arguments"),
        (SGD, {"_target_": "torch.optim.lr_scheduler.StepLR"}, "scheduler.step_size is missing"),
        (SGD, {"_target_": "torch.optim.lr_scheduler.Optimizer"}, "is no LRScheduler"),
    ],
)
def test_what_cannot_be_built_is_refused_before_any_work(
    optimizer: dict[str, Any], scheduler: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_optimization(optimizer, scheduler)
