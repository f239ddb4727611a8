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
Option = Mapping[str, Any]  # the content of its file: ``_target_`` and arguments


def build_optimizer(parameters: Iterable[Parameter], settings: Option, *, fused: bool = True) -> Optimizer:
    """An optimizer of the class that ``_target_`` names, over the parameters that learn; UserError where it refuses."""
    kind = class_of(settings, Optimizer, "optimizer")
    given = _given(kind, settings)
    if fused and "fused" not in given and kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
        given["fused"] = True  # one pass over the weights: on a CPU a sixth of the time of AdamW's plain loop
    return build(kind, given, "optimizer", params=[p for p in parameters if p.requires_grad])  # type: ignore[no-any-return]


def _given(kind: type[Any], settings: Option, leave: Iterable[str] = ()) -> dict[str, Any]:
    """The arguments among settings; ``optimizer.betas=null`` takes one that the class does not know out."""
    known = inspect.signature(kind).parameters
    return {k: value for k, value in arguments(settings, leave).items() if value is not None or k in known}


def build_scheduler(
    optimizer: Optimizer, settings: Option, total_steps: float, steps_per_epoch: int, monitor: str, mode: str
) -> dict[str, Any]:
    """Lightning's description of a schedule, named ``lr`` as the LR monitor's tag; UserError where it cannot be built.

    ``total_steps`` (may be infinite) and ``steps_per_epoch`` of the optimizer are filled in where the schedule's signature has
    them, and such a schedule changes with every step. ``monitor`` and ``mode`` are for one that waits for improvement.
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
    given = _given(kind, settings, LIGHTNING_KEYS)
    described: dict[str, Any] = {
        "scheduler": build(kind, given, "scheduler", **filled),
        "interval": settings.get("interval") or ("step" if by_step else "epoch"),
        "frequency": settings.get("frequency") or 1,
        "name": "lr",
    }
    if issubclass(kind, ReduceLROnPlateau):
        described["monitor"] = settings.get("monitor") or monitor
    return described


def check_optimization(optimizer: Option, scheduler: Option) -> None:
    """Build both over one number, so that what they refuse is a UserError before any work."""
    built = build_optimizer([Parameter(torch.zeros(1))], optimizer, fused=False)
    build_scheduler(built, scheduler, 10, 2, "val/loss", "min")
