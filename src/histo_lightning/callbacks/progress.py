"""The progress bar and the line of each epoch; nothing is read from the device during an epoch."""

import logging
import sys
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import RichProgressBar

from histo_lightning.callbacks.history import epoch_scores

SHOWN = ("train/loss", "val/loss", "val/accuracy", "val/case_auroc")
log = logging.getLogger("histo_lightning")


class EpochProgress(RichProgressBar):
    """A line an epoch, on the screen and in ``train.log``, and on a terminal a bar below the lines.

    ``style`` is ``bar``, ``lines``, ``none``, or ``auto``: a bar on a terminal.
    """

    def __init__(self, style: str = "auto") -> None:
        super().__init__(leave=False)
        self.style = style
        self.bar = style == "bar" or (style == "auto" and sys.stdout.isatty())
        if not self.bar:
            self.disable()

    def enable(self) -> None:
        """Lightning enables bars on the first process; without ``bar`` it stays off."""
        if self.bar:
            super().enable()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if not trainer.is_global_zero:
            return
        scores = epoch_scores(trainer, pl_module)
        texts = [f"{name.replace('/', '_', 1)} {scores[name]:.3f}" for name in SHOWN if name in scores]
        line = "  ".join([f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", *texts])
        log.info("%s", line)
        if self.bar and self.progress is not None:
            self.progress.console.print(line, highlight=False)  # stays above the bar
        elif self.style != "none":
            print(line, flush=True)

    def get_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Nothing on the bar itself: its numbers would be read from the device at every step."""
        return {}
