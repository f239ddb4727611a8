"""Predictions of a Trainer, gathered over processes, each image once."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter

Rows = tuple[NDArray[np.int64], NDArray[np.float64]]


class PredictionWriter(BasePredictionWriter):
    """Calls ``write`` once on every process with what ``predict_step`` returned, a pair for each data loader:
    positions in its data set (int64 N, ascending, each once) and logits (float64 N x classes).
    """

    def __init__(self, write: Callable[[list[Rows]], None]) -> None:
        super().__init__("epoch")
        self.write = write

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Any], batch_indices: Any
    ) -> None:
        loaders = [predictions] if trainer.predict_loop.num_dataloaders == 1 else predictions
        pairs = [[(batch["index"], batch["logits"]) for batch in batches] for batches in loaders]
        shares: list[Any] = [pairs]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            shares = [None] * trainer.world_size
            torch.distributed.all_gather_object(shares, pairs)
        self.write([_merged(list(chain(*batches))) for batches in zip(*shares, strict=True)])


def _merged(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> Rows:
    """One row an image: the last batch may be filled up with images of its own."""
    index = torch.cat([indices for indices, _ in batches]).numpy()
    logits = torch.cat([logits for _, logits in batches]).double().numpy()
    unique, first = np.unique(index, return_index=True)
    return unique, logits[first]
