"""The TensorBoard logger: Lightning's own, without a curve of epoch numbers and without hyper-parameters that nobody chose."""

from collections.abc import Mapping
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only


class TensorBoard(TensorBoardLogger):
    """``every_n_steps``: also the loss of every n-th step, as ``train/step_loss``; it is read back from the device then."""

    def __init__(self, save_dir: str, every_n_steps: int | None = None, **kwargs: Any) -> None:
        super().__init__(save_dir, **kwargs)
        self.every_n_steps = every_n_steps

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics({name: value for name, value in metrics.items() if name != "epoch"}, step)

    @rank_zero_only
    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Nothing: settings and scores go to HParams once a run is scored (``callbacks/scored.py``)."""
