"""Optimizers and learning-rate schedules, built from names and numbers."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}
SCHEDULERS = ("constant", "step", "cosine", "onecycle", "plateau")


def build_optimizer(
    parameters: Iterable[Parameter], settings: Mapping[str, Any], *, fused: bool = True
) -> Optimizer:
    """An optimizer from ``name`` and its numbers; entries that are None keep torch's default.

    Args:
        fused: one pass over the weights, where torch has it: on a CPU a sixth of the time of AdamW's plain loop.
    """
    chosen = {k: v for k, v in settings.items() if k not in ("name", "clip_norm") and v is not None}
    if "betas" in chosen:
        chosen["betas"] = tuple(chosen["betas"])
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if settings["name"] != "rmsprop" and fused:
        chosen["fused"] = True
    return OPTIMIZERS[settings["name"]](trained, **chosen)


def factor(settings: Mapping[str, Any], step: int, steps_per_epoch: int, epochs: int) -> float:
    """Learning rate at a step (0-based) as a factor of the optimizer's.

    Linear warm-up over ``warmup_epochs`` from 1/(steps + 1) of it; then constant, a drop by ``gamma`` every
    ``step_size`` epochs, or half a cosine to ``final_ratio`` (Loshchilov & Hutter 2017, without restarts).
    """
    warmup = min(int(settings.get("warmup_epochs") or 0) * steps_per_epoch, epochs * steps_per_epoch - 1)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if settings["name"] == "step":
        return float(settings["gamma"]) ** (step // steps_per_epoch // int(settings["step_size"]))
    if settings["name"] == "cosine":
        final = float(settings["final_ratio"])
        done = min((step - warmup) / max(epochs * steps_per_epoch - warmup, 1), 1.0)
        return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2
    return 1.0


def build_scheduler(
    optimizer: Optimizer,
    settings: Mapping[str, Any],
    *,
    steps_per_epoch: int,
    epochs: int,
    monitor: str,
    mode: str,
) -> dict[str, Any]:
    """Lightning's description of a schedule. Its name is ``lr``, so that the LR monitor logs that tag."""
    if settings["name"] == "plateau":
        plateau = ReduceLROnPlateau(
            optimizer,
            mode="max" if mode == "max" else "min",
            factor=float(settings["factor"]),
            patience=int(settings["patience"]),
        )
        return {"scheduler": plateau, "interval": "epoch", "monitor": monitor, "name": "lr"}
    if settings["name"] == "onecycle":
        peak = float(optimizer.param_groups[0]["lr"])
        cycle = OneCycleLR(
            optimizer,
            max_lr=peak,
            total_steps=max(steps_per_epoch * epochs, 2),
            pct_start=float(settings["pct_start"]),
            final_div_factor=1
            / (25 * max(float(settings["final_ratio"]), 1e-8)),  # torch counts from max_lr / 25
        )
        return {"scheduler": cycle, "interval": "step", "name": "lr"}
    schedule = LambdaLR(optimizer, lambda step: factor(settings, step, steps_per_epoch, epochs))
    return {"scheduler": schedule, "interval": "step", "name": "lr"}
