"""Optimizers and schedules from their settings, and what Lightning wants to know about them."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from histo_lightning.config.targets import arguments, build, class_of
from histo_lightning.errors import UserError

LIGHTNING_KEYS = ("interval", "frequency", "monitor")  # of a schedule, beside its arguments


def build_optimizer(
    parameters: Iterable[Parameter], settings: Mapping[str, Any], *, fused: bool = True
) -> Optimizer:
    """An optimizer of the class that ``_target_`` names, over the parameters that learn; UserError where it refuses.

    ``fused``: one pass over the weights, where torch has it: on a CPU a sixth of the time of AdamW's plain loop.
    """
    kind = class_of(settings, Optimizer, "optimizer")
    given = _without_unknown_nulls(kind, arguments(settings))
    if fused and "fused" not in given and kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
        given["fused"] = True
    return build(kind, given, "optimizer", params=[p for p in parameters if p.requires_grad])  # type: ignore[no-any-return]


def _without_unknown_nulls(kind: type[Any], given: dict[str, Any]) -> dict[str, Any]:
    """Without ``optimizer.betas=null`` and its like, which take an argument of the chosen option out."""
    known = inspect.signature(kind).parameters
    return {name: value for name, value in given.items() if value is not None or name in known}


def build_scheduler(
    optimizer: Optimizer,
    settings: Mapping[str, Any],
    total_steps: float,
    steps_per_epoch: int,
    monitor: str,
    mode: str,
) -> dict[str, Any]:
    """Lightning's description of a schedule, named ``lr`` as the LR monitor's tag; UserError where it cannot be built.

    ``total_steps`` (may be infinite) and ``steps_per_epoch`` of the optimizer are filled in where the schedule's
    signature has them, and such a schedule changes with every step. ``max_lr`` is the optimizer's rate; ``monitor`` and
    ``mode`` are what a schedule that waits for improvement watches.
    """
    kind = class_of(settings, LRScheduler, "scheduler")
    endless = total_steps == float("inf")
    if issubclass(kind, OneCycleLR) and endless:
        raise UserError(f"scheduler={kind.__name__}: needs a fit with an end; set max_epochs or max_steps")
    parameters = inspect.signature(kind).parameters
    by_step = "total_steps" in parameters or "steps_per_epoch" in parameters
    filled: dict[str, Any] = {"total_steps": max(total_steps, 1), "steps_per_epoch": steps_per_epoch}
    if str(settings["_target_"]).startswith("torch."):
        filled = {"total_steps": None if endless else max(int(total_steps), 2), "steps_per_epoch": None}
    filled |= {"optimizer": optimizer, "max_lr": float(optimizer.param_groups[0]["lr"]), "mode": mode}
    given = _without_unknown_nulls(kind, arguments(settings, leave=LIGHTNING_KEYS))
    schedule = build(kind, given, "scheduler", **filled)
    described: dict[str, Any] = {
        "scheduler": schedule,
        "interval": settings.get("interval") or ("step" if by_step else "epoch"),
        "frequency": settings.get("frequency") or 1,
        "name": "lr",
    }
    if isinstance(schedule, ReduceLROnPlateau):
        described["monitor"] = settings.get("monitor") or monitor
    return described


def check_optimization(optimizer: Mapping[str, Any], scheduler: Mapping[str, Any]) -> None:
    """Build both over one number, so that what they refuse is a UserError before any work."""
    built = build_optimizer([Parameter(torch.zeros(1))], optimizer, fused=False)
    build_scheduler(built, scheduler, 10, 2, "val/loss", "min")
