"""``history.csv``: a row an epoch, written atomically, carried through a resume."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from histo_lightning.classifier import Classifier
from histo_lightning.runs import write_atomic

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
        return {"rows": self.rows, "monitored": self.monitored, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in ("rows", "monitored", "seconds"):
            setattr(self, name, list(state_dict[name]))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Dropout draws from torch's generator: seeded here, an epoch is the same after a resume.
        torch.manual_seed((self.seed * 100_003 + trainer.current_epoch) * 1009 + trainer.global_rank)
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
        pl_module.log("images_per_second", rate, sync_dist=trainer.world_size > 1)
        scores |= {"epoch": trainer.current_epoch, "lr": self._lr, "images_per_second": rate}
        self.rows.append({name: scores.get(name, float("nan")) for name in COLUMNS})
        self.monitored.append(scores.get(self.monitor, float("nan")))
        self.seconds.append(seconds)
        if trainer.is_global_zero:
            write_atomic(self.path, history_text(self.rows))


def history_text(rows: list[dict[str, float]]) -> str:
    """Rows as CSV; a score that is undefined (NaN) is an empty cell."""
    cells = [["" if math.isnan(row[name]) else str(row[name]) for name in COLUMNS] for row in rows]
    return "".join(f"{','.join(line)}\n" for line in [COLUMNS, *cells])
