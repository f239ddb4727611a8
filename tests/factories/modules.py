"""A LightningModule whose scores are a list, for what watches or steers a fit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from torch.utils.data import DataLoader


class Scripted(LightningModule):
    """Logs ``val/loss`` from a list, an entry an epoch; its weight counts the steps."""

    def __init__(self, losses: Sequence[float]) -> None:
        super().__init__()
        self.losses = list(losses)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("train/loss", 0.5)
        return -self.weight.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", self.losses[self.current_epoch])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1.0)


def fit_scripted(
    folder: Path,
    losses: Sequence[float],
    callbacks: Sequence[Callback],
    start: Path | None = None,
    **flags: Any,
) -> Trainer:
    """Fit as many epochs as there are losses, two steps each."""
    trainer = Trainer(
        max_epochs=len(losses),
        accelerator="cpu",
        logger=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        callbacks=list(callbacks),
        log_every_n_steps=1,
        **flags,
    )
    loader: Any = DataLoader(range(2))  # type: ignore[arg-type]
    trainer.fit(Scripted(losses), loader, loader, ckpt_path=start, weights_only=True)
    return trainer
