"""What a person sees while a network trains. Neither class asks the device for anything during an epoch."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import RichProgressBar

SHOWN = ("train/loss", "val/loss", "val/accuracy", "val/case_auroc")


def _shown(trainer: Trainer) -> dict[str, str]:
    metrics = trainer.callback_metrics
    return {name.replace("/", "_"): f"{float(metrics[name]):.3f}" for name in SHOWN if name in metrics}


class EpochBar(RichProgressBar):
    """Lightning's rich bar with the last epoch's numbers, read once an epoch (``prog_bar=True`` would sync each step)."""

    def __init__(self) -> None:
        super().__init__(leave=False)
        self._values: dict[str, str] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._values = _shown(trainer)
        super().on_train_epoch_end(trainer, pl_module)

    def get_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return dict(self._values)


class EpochLines(Callback):
    """A line an epoch, for logs and pipes."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            values = "  ".join(f"{name} {value}" for name, value in _shown(trainer).items())
            print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {values}", flush=True)
