"""Logits of whole sets: those that an epoch's training batches had, and those of a prediction; each image once."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter
from torch import Tensor

from histo_lightning.classifier import Classifier

Pairs = Iterable[
    tuple[Tensor, Tensor]
]  # of a batch: positions in the data set, int64 B, and logits, B x classes
Rows = tuple[NDArray[np.int64], NDArray[np.float64]]


def merged(batches: Sequence[Pairs], trainer: Trainer) -> list[Rows]:
    """Of all processes, a pair for each of ``batches``: positions (int64 N, ascending, each once) and logits (N x classes)."""
    own = [[(index.cpu(), logits.detach().float().cpu()) for index, logits in pairs] for pairs in batches]
    shares: list[Any] = [own] * trainer.world_size
    if trainer.world_size > 1:
        torch.distributed.all_gather_object(shares, own)
    rows = []
    for pairs in zip(*shares, strict=True):
        index, logits = map(torch.cat, zip(*chain(*pairs), strict=True))
        # The last batch may be filled up with images of its own.
        unique, first = np.unique(index.numpy(), return_index=True)
        rows.append((unique, logits.double().numpy()[first]))
    return rows


class PredictionWriter(BasePredictionWriter):
    """Calls ``write`` once on every process with the :func:`merged` logits of each data loader."""

    def __init__(self, write: Callable[[list[Rows]], None]) -> None:
        super().__init__("epoch")
        self.write = write

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Any], batch_indices: Any
    ) -> None:
        loaders = [predictions] if trainer.predict_loop.num_dataloaders == 1 else predictions
        self.write(merged([[(b["index"], b["logits"]) for b in batches] for batches in loaders], trainer))


class TrainingLogits(Callback):
    """The logits that the images of an epoch's training batches had, which a checkpoint of that epoch holds."""

    def __init__(self) -> None:
        self.rows: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        return self.rows

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        index, logits = merged([cast(Classifier, pl_module).train_metrics.seen], trainer)[0]
        self.rows = {"index": torch.from_numpy(index), "logits": torch.from_numpy(logits).float()}
