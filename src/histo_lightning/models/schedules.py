"""Learning-rate schedules with a warm-up: factors of the optimizer's rate, which change with each of its steps."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class Warmup(LambdaLR):
    """Linear warm-up over ``warmup_epochs`` from 1/(steps + 1) of the optimizer's rate; then :meth:`factor`.

    ``total_steps`` are those of the fit, infinite where it has no end; it and ``steps_per_epoch`` come from the trainer.
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: float, steps_per_epoch: int, warmup_epochs: int = 0
    ):
        if warmup_epochs < 0:
            raise ValueError(f"warmup_epochs={warmup_epochs} is negative")
        self.total_steps, self.steps_per_epoch = total_steps, steps_per_epoch
        self.warmup_steps = min(warmup_epochs * steps_per_epoch, total_steps - 1)
        super().__init__(optimizer, self._factor)

    def _factor(self, step: int) -> float:
        return (step + 1) / (self.warmup_steps + 1) if step < self.warmup_steps else self.factor(step)

    def factor(self, step: int) -> float:
        """Share of the rate at a step (0-based) after the warm-up."""
        return 1.0


class Constant(Warmup):
    """The rate stays."""


class Step(Warmup):
    """The rate is multiplied by ``gamma`` every ``step_size`` epochs."""

    def __init__(
        self, optimizer: Optimizer, total_steps: float, steps_per_epoch: int, step_size: int, gamma: float = 0.1,
        warmup_epochs: int = 0,
    ) -> None:  # fmt: skip
        if step_size < 1:
            raise ValueError(f"step_size={step_size} is below 1")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, total_steps, steps_per_epoch, warmup_epochs)

    def factor(self, step: int) -> float:
        return float(self.gamma) ** (step // self.steps_per_epoch // self.step_size)


class Cosine(Warmup):
    """Half a cosine to ``final_ratio`` of the rate (Loshchilov & Hutter 2017, no restarts); without an end it stays at its peak."""

    def __init__(
        self, optimizer: Optimizer, total_steps: float, steps_per_epoch: int, warmup_epochs: int = 0,
        final_ratio: float = 0.0,
    ) -> None:  # fmt: skip
        if not 0 <= final_ratio <= 1:
            raise ValueError(f"final_ratio={final_ratio} is not between 0 and 1")
        self.final_ratio = final_ratio
        super().__init__(optimizer, total_steps, steps_per_epoch, warmup_epochs)

    def factor(self, step: int) -> float:
        if math.isinf(self.total_steps):
            return 1.0
        share = min((step - self.warmup_steps) / max(self.total_steps - self.warmup_steps, 1), 1.0)
        return self.final_ratio + (1 - self.final_ratio) * (1 + math.cos(math.pi * share)) / 2
