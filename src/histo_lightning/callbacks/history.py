"""``history.csv``: a row an epoch, carried through a resume; and pruning, which ends a fit by the curve that it holds."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from histo_lightning.classifier import Classifier
from histo_lightning.runs import write_csv

COLUMNS = (
    *("epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy"),
    *("val_balanced_accuracy", "val_auroc", "val_case_auroc", "images_per_second"),
)


def epoch_scores(trainer: Trainer, module: LightningModule) -> dict[str, float]:
    """The scores of the epoch that has just ended, by logged name; NaN where undefined.

    Callbacks run before the module logs its training scores, so those are asked for here.
    """
    scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
    if isinstance(module, Classifier) and module.train_metrics.update_called:
        scores |= {f"train/{name}": float(value) for name, value in module.train_metrics.compute().items()}
    return scores


class History(Callback):
    """Writes the numbers of every epoch to ``path``. ``monitored`` is the curve of the score ``monitor``."""

    def __init__(self, path: Path, monitor: str, images_per_epoch: int, seed: int) -> None:
        self.path, self.monitor, self.images_per_epoch, self.seed = path, monitor, images_per_epoch, seed
        self.rows: list[dict[str, float]] = []
        self.monitored: list[float] = []
        self.seconds: list[float] = []
        self._lr = self._start = 0.0
        self._seconds: float | None = None  # of the epoch's training

    def state_dict(self) -> dict[str, Any]:
        begun = self._lr, self._seconds or time.perf_counter() - self._start
        return {"rows": self.rows, "monitored": self.monitored, "seconds": self.seconds, "begun": begun}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in ("rows", "monitored", "seconds"):
            setattr(self, name, list(state_dict[name]))
        self._lr, spent = state_dict.get("begun", (0.0, 0.0))  # an epoch that was left, and goes on
        self._start = time.perf_counter() - spent

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Dropout draws from torch's generator: seeded here, an epoch is the same after a resume.
        seed = (self.seed * 100_003 + trainer.current_epoch) * 1009 + trainer.global_rank
        on_cpu = (
            pl_module.device.type == "cpu"
        )  # torch.manual_seed asks after every kind of device, which takes time
        (torch.default_generator if on_cpu else torch).manual_seed(seed)
        self._lr = float(trainer.optimizers[0].param_groups[0]["lr"])
        self._start, self._seconds = time.perf_counter(), None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self._seconds = time.perf_counter() - self._start

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
        if trainer.is_global_zero:
            rows = [[row[name] for name in COLUMNS] for row in self.rows]
            write_csv(self.path, [COLUMNS, *rows], durable=False)  # a checkpoint holds the rows too


class Pruned(Exception):
    """Raised out of a fit that was ended early; not an error."""


class Pruning(Callback):
    """Raises ``Pruned`` after an epoch where ``judge`` wants the fit ended; not after the last: nothing is left to save.

    ``judge`` takes the monitored values of all epochs (NaN where undefined), also of those before a resume; ``epochs`` is
    the number of a complete fit.
    """

    def __init__(self, judge: Callable[[Sequence[float]], bool], epochs: int) -> None:
        self.judge, self.epochs = judge, epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Runs after :class:`History`, which comes before it in the list of callbacks, and before checkpoints."""
        history = next(one for one in trainer.callbacks if isinstance(one, History))  # type: ignore[attr-defined]
        if self.judge(history.monitored) and len(history.monitored) < self.epochs:
            raise Pruned(f"pruned after epoch {len(history.monitored)} of {self.epochs}")
