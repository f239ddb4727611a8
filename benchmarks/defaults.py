"""The trainer of a run as our defaults make it, without what writes checkpoints or lines: those have rows of their own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pytorch_lightning import Callback, Trainer

from histo_lightning.callbacks.progress import History
from histo_lightning.classifier.hardware import Hardware
from histo_lightning.config.schema import Config
from histo_lightning.training.objects import build_callbacks, build_loggers, build_trainer

LEFT_OUT = ("model_checkpoint", "early_stopping", "progress")


def default_trainer(
    config: Config, folder: Path, hardware: Hardware, images: int, more: Sequence[Callback]
) -> Trainer:
    """A trainer with history, loggers and the callbacks of ``config`` but those in :data:`LEFT_OUT`, and ``more``."""
    kept = {name: entry for name, entry in config.callbacks.items() if name not in LEFT_OUT}
    history = History(folder / "history.csv", config.monitor, images, config.seed)
    callbacks = [history, *build_callbacks(replace(config, callbacks=kept), folder), *more]
    return build_trainer(config, folder, hardware, callbacks, build_loggers(config, folder))
