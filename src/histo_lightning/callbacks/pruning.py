"""Ends a fit that does no better than others did at the same epoch."""

from collections.abc import Callable, Sequence

from pytorch_lightning import Callback, LightningModule, Trainer

from histo_lightning.callbacks.history import History


class Pruned(Exception):
    """Raised out of a fit that was ended early; not an error."""


class Pruning(Callback):
    """Hands the curve of the monitored value to ``judge`` after every epoch; raises ``Pruned`` where it says so.

    The whole curve is handed over, not its last value: after a resume the epochs before it count too. After the last
    epoch nothing is left to save, so the fit is not ended there.

    Args:
        judge: takes the values of all epochs so far (NaN where undefined) and says whether to end the fit.
        epochs: of a whole fit.
    """

    def __init__(self, judge: Callable[[Sequence[float]], bool], epochs: int) -> None:
        self.judge, self.epochs = judge, epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Runs after :class:`History`, which stands before it in the list of callbacks, and before checkpoints."""
        # Lightning lists callbacks behind the type of their base class only.
        history = next(found for found in trainer.callbacks if isinstance(found, History))  # type: ignore[attr-defined]
        if self.judge(history.monitored) and len(history.monitored) < self.epochs:
            raise Pruned(f"pruned after epoch {len(history.monitored)} of {self.epochs}")
