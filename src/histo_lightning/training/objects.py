"""What a config describes, built: data module, classifier, callbacks, loggers, trainer."""

import inspect
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint, ProgressBar
from pytorch_lightning.loggers import Logger

from histo_lightning.classifier import Classifier
from histo_lightning.classifier.checkpoint import AtomicCheckpointIO
from histo_lightning.classifier.hardware import Hardware
from histo_lightning.config.identity import shortened
from histo_lightning.config.schema import MONITORS, Config
from histo_lightning.config.targets import arguments, build, class_of
from histo_lightning.data.datamodule import BreakHisDataModule
from histo_lightning.data.sources.folder import Progress
from histo_lightning.models import load_weights
from histo_lightning.models.networks import OURS

OWN_FLAGS = {  # given to the Trainer by this module; conf/ has keys or groups of its own for them
    *("accelerator", "devices", "strategy", "precision", "deterministic"),
    *("max_epochs", "callbacks", "logger", "plugins", "default_root_dir", "use_distributed_sampler"),
    *("enable_checkpointing", "enable_progress_bar", "enable_model_summary"),
}


def build_datamodule(config: Config, progress: Progress | None = None) -> BreakHisDataModule:
    """The data module that a config describes."""
    dataset = config.dataset
    return BreakHisDataModule(
        dataset.name,
        dataset.root,
        magnification=config.magnification,
        task=config.task,
        split=config.split,
        image_size=config.image_size,
        augment=config.augment,
        batch_size=config.batch_size,
        sampler=config.sampler,
        short_side=dataset.short_side,
        images_per_slide=dataset.images_per_slide,
        synthetic_size=dataset.image_size,
        synthetic_seed=dataset.seed,
        download=dataset.download,
        url=dataset.url,
        seed=config.seed,
        workers=config.trainer.workers,
        cache_dir=config.cache_dir,
        progress=progress,
    )


def monitor_name(name: str) -> str:
    """``val_loss`` as Lightning and TensorBoard know it: ``val/loss``."""
    return name.replace("_", "/", 1)


def build_classifier(config: Config, data: BreakHisDataModule) -> Classifier:
    """A freshly initialised network with everything that travels in its checkpoint.

    Raises:
        UserError: ``model.weights`` cannot be used.
    """
    torch.manual_seed(config.seed)
    counts = data.class_counts
    weights = None
    if config.class_weights == "balanced":
        present = sum(count > 0 for count in counts)
        weights = [sum(counts) / (present * count) if count else 0.0 for count in counts]
    classifier = Classifier(
        {"_target_": config.model["_target_"], **arguments(config.model, leave=OURS)},
        len(counts),
        head=config.head.name,
        hidden=config.head.hidden or 512,
        dropout=0.05 if config.head.dropout is None else config.head.dropout,
        freeze_backbone=bool(config.model.get("freeze_backbone")),
        frozen_norm=str(config.model.get("frozen_norm") or "train"),
        optimizer=config.optimizer,
        scheduler=config.scheduler,
        class_weights=weights,
        label_smoothing=config.label_smoothing,
        monitor=monitor_name(config.monitor),
        monitor_mode=MONITORS[config.monitor],
    )
    if config.model.get("weights"):
        load_weights(classifier.network, config.model["weights"], cache_dir=data.cache_dir / "weights")
    classifier.metadata = {**data.describe(), "config": asdict(config), "shortened": shortened(config)}
    return classifier


def _monitored(config: Config, entry: dict[str, Any]) -> dict[str, Any]:
    """A callback's entry with the name of its score as Lightning knows it, and whether more of it is better."""
    watched = entry.get("monitor") or config.monitor
    if watched not in MONITORS:
        return entry
    mode = {} if entry.get("mode") else {"mode": MONITORS[watched]}
    return {**entry, "monitor": monitor_name(watched), **mode}


def build_callbacks(config: Config, folder: Path) -> list[Callback]:
    """The callbacks of the group ``callbacks``, in its order.

    Raises:
        UserError: one is no callback, or refuses its arguments.
    """
    built = []
    for name, entry in config.callbacks.items():
        key = f"callbacks.{name}"
        kind = class_of(entry, Callback, key)
        parameters = inspect.signature(kind).parameters
        if kind is LearningRateMonitor and not config.logger:  # it refuses to run where nothing can be logged
            continue
        watches = "monitor" in parameters and "mode" in parameters
        given = arguments(_monitored(config, entry) if watches else entry)
        built.append(
            build(kind, given, key, dirpath=str(folder / "checkpoints"), style=config.trainer.progress)
        )
    return built


def build_loggers(config: Config, folder: Path) -> list[Logger]:
    """The loggers of the group ``logger``; what they write goes into the run folder unless they say otherwise.

    Raises:
        UserError: one is no logger, refuses its arguments, or needs a package that is not installed.
    """
    built = []
    for name, entry in config.logger.items():
        key = f"logger.{name}"
        kind = class_of(entry, Logger, key)
        given = arguments(entry) | ({"name": entry["name"]} if "name" in entry else {})
        filled: dict[str, Any] = {"save_dir": str(folder), "run_name": folder.name, "name": folder.name}
        if "tracking_uri" in inspect.signature(kind).parameters:  # MLflow
            database, artifacts = folder.resolve() / "mlflow.db", folder.resolve() / "mlruns"
            filled = {
                "tracking_uri": f"sqlite:///{database}",
                "artifact_location": str(artifacts),
                "run_name": folder.name,
            }
        built.append(build(kind, given, key, **filled))
    return built


def build_trainer(
    config: Config,
    folder: Path,
    hardware: Hardware,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger],
) -> Trainer:
    """Lightning's trainer with our defaults; its files go to ``folder``."""
    settings = config.trainer
    if hardware.accelerator == "gpu" and settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic matrix products need it
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("pytorch_lightning.profilers").setLevel(
        logging.INFO
    )  # its table, where one is asked for
    ours: dict[str, Any] = {
        "num_sanity_val_steps": 0,
        "sync_batchnorm": settings.strategy == "ddp" and hardware.accelerator == "gpu",
        "log_every_n_steps": 10**9,
    }
    return Trainer(
        accelerator=hardware.accelerator,
        devices=settings.devices if settings.gpu is None else [settings.gpu],
        strategy="ddp" if settings.strategy == "ddp" else "auto",
        precision=hardware.precision,  # type: ignore[arg-type]  # checked against its choices
        max_epochs=config.epochs,
        callbacks=list(callbacks),
        logger=list(loggers) or False,
        plugins=[AtomicCheckpointIO()],
        deterministic=settings.deterministic,
        default_root_dir=folder,
        use_distributed_sampler=False,  # our batches are shared out already
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        enable_model_summary=False,
        **{**ours, **settings.flags},
    )


@contextmanager
def without_hints() -> Iterator[None]:
    """Silence what Lightning says about choices that are meant here."""
    with warnings.catch_warnings():
        for text in (
            ".*does not have many workers.*",  # batches come from memory; workers do not help
            ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run
            ".*The number of training batches .* is smaller than the logging interval.*",  # nothing is logged per step
            ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",  # Lightning 2.6 on current torch
            ".*module\\(s\\) in eval mode at the start of training.*",  # model.frozen_norm=eval
            ".*The `srun` command is available on your system but is not used.*",  # a run on a login node
            ".*`.fit\\(ckpt_path=.*\\)` .* resuming from .*",
        ):
            warnings.filterwarnings("ignore", message=text)
        yield
