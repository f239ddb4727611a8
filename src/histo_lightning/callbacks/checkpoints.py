"""``best.ckpt`` and ``last.ckpt``, nothing else, in a folder that may be moved."""

from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint


class BestAndLast(ModelCheckpoint):
    """Saves the best epoch by ``monitor`` (the first one of equals), and after it the last, at every epoch's end.

    Lightning's ``save_last=True`` writes only when the best changes, and forgets the best score where the folder has
    another name than when it was written.
    """

    def __init__(
        self, dirpath: str | Path | None = None, monitor: str = "val/loss", mode: str = "min"
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="best",
            monitor=monitor,
            mode=mode,
            save_top_k=1,
            auto_insert_metric_name=False,
            enable_version_counter=False,  # else a reused folder gets best-v1.ckpt
            save_on_train_epoch_end=True,
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]  # a property made by a function
            return
        if self.monitor in trainer.callback_metrics:  # not where validation was left out
            super().on_train_epoch_end(trainer, pl_module)
        trainer.save_checkpoint(Path(str(self.dirpath)) / "last.ckpt")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the best score over, and look for its file in this folder, wherever it was written."""
        for name in ("best_model_score", "kth_value", "current_score"):
            setattr(self, name, state_dict[name])
        for score in state_dict["best_k_models"].values():
            self.best_model_path = self.kth_best_model_path = str(Path(str(self.dirpath)) / "best.ckpt")
            self.best_k_models = {self.best_model_path: score}
