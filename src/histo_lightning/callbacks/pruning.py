"""Ends a fit that does no better than others did at the same epoch."""

from collections.abc import Callable, Sequence

from pytorch_lightning import Callback, LightningModule, Trainer

from histo_lightning.callbacks.history import History


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
