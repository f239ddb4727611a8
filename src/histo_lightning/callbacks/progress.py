"""What an epoch leaves: a row of ``history.csv``, the train set's logits, a line on the screen; pruning by that curve."""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import RichProgressBar
from torch import Tensor

from histo_lightning.classifier import Classifier
from histo_lightning.runs import write_csv

COLUMNS = (
    *("epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy"),
    *("val_balanced_accuracy", "val_auroc", "val_case_auroc", "images_per_second"),
)
SHOWN = ("train/loss", "val/loss", "val/accuracy", "val/case_auroc")
Rows = tuple[NDArray[np.int64], NDArray[np.float64]]  # indices (N, ascending), logits (N x classes)
log = logging.getLogger("histo_lightning")


def epoch_scores(trainer: Trainer, module: LightningModule) -> dict[str, float]:
    """The scores of the epoch that has just ended, by logged name; NaN where undefined."""
    scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
    if isinstance(module, Classifier) and module.train_metrics.update_called:  # logged after the callbacks
        scores |= {f"train/{name}": float(value) for name, value in module.train_metrics.compute().items()}
    return scores


def merged(batches: Sequence[tuple[Tensor, Tensor]], trainer: Trainer) -> Rows:
    """Of the images of all processes' ``batches`` (indices, int64 B; logits, B x classes) the indices, ascending, each once, and logits."""
    own = [(index.cpu(), logits.detach().float().cpu()) for index, logits in batches]
    shares: list[Any] = [own] * trainer.world_size
    if trainer.world_size > 1:
        torch.distributed.all_gather_object(shares, own)
    index, logits = map(torch.cat, zip(*chain(*shares), strict=True))
    unique, first = np.unique(index.numpy(), return_index=True)  # a last batch may be filled up
    return unique, logits.double().numpy()[first]


def _tensors(rows: Rows) -> dict[str, Any]:
    return dict(zip(("index", "logits"), map(torch.from_numpy, rows), strict=True))


class History(Callback):
    """Writes the numbers of every epoch to ``path``. ``monitored`` is the curve of the score ``monitor``.

    ``trained`` and ``validated``: the ``index`` and ``logits`` that the images of the latest epoch's training batches and
    of the latest validation had, the second with the optimizer's ``step`` at which that was.
    """

    def __init__(self, path: Path, monitor: str, images_per_epoch: int, seed: int) -> None:
        self.path, self.monitor, self.images_per_epoch, self.seed = path, monitor, images_per_epoch, seed
        self.rows: list[dict[str, float]] = []
        self.monitored: list[float] = []
        self.seconds: list[float] = []
        self.trained: dict[str, Tensor] = {}
        self.validated: dict[str, Any] = {}
        self._lr = self._start = 0.0
        self._seconds: float | None = None  # of the epoch's training

    def state_dict(self) -> dict[str, Any]:
        begun = self._lr, self._seconds or time.perf_counter() - self._start
        names = ("rows", "monitored", "seconds", "trained", "validated")
        return {name: getattr(self, name) for name in names} | {"begun": begun}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in ("rows", "monitored", "seconds"):
            setattr(self, name, list(state_dict[name]))
        # Neither is in checkpoints of version 0.1.
        self.trained, self.validated = state_dict.get("trained", {}), state_dict.get("validated", {})
        self._lr, spent = state_dict.get("begun", (0.0, 0.0))  # an epoch that was left, and goes on
        self._start = time.perf_counter() - spent

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Dropout draws from torch's generator: seeded here, an epoch is the same after a resume.
        seed = (self.seed * 100_003 + trainer.current_epoch) * 1009 + trainer.global_rank
        on_cpu = pl_module.device.type == "cpu"  # torch.manual_seed would ask after every kind of device
        (torch.default_generator if on_cpu else torch).manual_seed(seed)
        self._lr = float(trainer.optimizers[0].param_groups[0]["lr"])
        self._start, self._seconds = time.perf_counter(), None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self._seconds = time.perf_counter() - self._start

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(pl_module, Classifier) and not trainer.sanity_checking:
            metrics: Any = pl_module.val_metrics  # which it starts anew after this
            rows = merged(list(zip(metrics.indices, metrics.logits, strict=True)), trainer)
            self.validated = _tensors(rows) | {"step": trainer.global_step}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seconds = time.perf_counter() - self._start
        scores = {name.replace("/", "_", 1): x for name, x in epoch_scores(trainer, pl_module).items()}
        rate = self.images_per_epoch / max(self._seconds or seconds, 1e-9)
        for logger in trainer.loggers:
            logger.log_metrics({"images_per_second": rate}, step=trainer.global_step - 1)
        scores |= {"epoch": trainer.current_epoch, "lr": self._lr, "images_per_second": rate}
        self.rows.append({name: scores.get(name, float("nan")) for name in COLUMNS})
        self.monitored.append(scores.get(self.monitor, float("nan")))
        self.seconds.append(seconds)
        if isinstance(pl_module, Classifier) and pl_module.train_metrics.seen:
            self.trained = _tensors(merged(pl_module.train_metrics.seen, trainer))
        if trainer.is_global_zero:
            rows = [[row[name] for name in COLUMNS] for row in self.rows]
            write_csv(self.path, [COLUMNS, *rows], durable=False)  # a checkpoint holds the rows too


class Pruned(Exception):
    """Raised out of a fit that was ended early; not an error."""


class Pruning(Callback):
    """Raises ``Pruned`` where ``judge`` of all monitored values so far (NaN where undefined) ends a fit before its ``epochs``."""

    def __init__(self, judge: Callable[[Sequence[float]], bool], epochs: int) -> None:
        self.judge, self.epochs = judge, epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # after History's
        history = next(one for one in trainer.callbacks if isinstance(one, History))  # type: ignore[attr-defined]
        if self.judge(history.monitored) and len(history.monitored) < self.epochs:
            raise Pruned(f"pruned after epoch {len(history.monitored)} of {self.epochs}")


class EpochProgress(RichProgressBar):
    """A line an epoch, also in ``train.log``, and a bar below: ``style`` is ``bar``, ``lines``, ``none``, ``auto`` (bar on a terminal)."""

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
