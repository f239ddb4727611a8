"""Predictions of a Trainer, gathered over processes, each image once."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningModule, Trainer

Rows = tuple[NDArray[np.int64], NDArray[np.float64]]


class PredictionWriter(Callback):
    """Collects what ``predict_step`` returns; calls ``write`` once on every process, with a pair for each data loader:
    positions in its data set (int64 N, ascending, each once) and logits (float64 N x classes).
    """

    def __init__(self, write: Callable[[list[Rows]], None]) -> None:
        self.write = write
        self._batches: dict[int, list[Any]] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._batches = {}

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        pair = outputs["index"].tolist(), outputs["logits"].double().tolist()
        self._batches.setdefault(dataloader_idx, []).append(pair)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        shares: list[Any] = [self._batches]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            shares = [None] * trainer.world_size
            torch.distributed.all_gather_object(shares, self._batches)
        self.write([_merged([share.get(i, []) for share in shares]) for i in sorted(self._batches)])


def _merged(shares: list[list[tuple[list[int], list[list[float]]]]]) -> Rows:
    """One row an image: the last batch may be filled up with images of its own."""
    batches = [batch for share in shares for batch in share]
    index = np.array([i for indices, _ in batches for i in indices], dtype=np.int64)
    logits = np.array([row for _, rows in batches for row in rows], dtype=np.float64)
    unique, first = np.unique(index, return_index=True)
    return unique, logits[first]
