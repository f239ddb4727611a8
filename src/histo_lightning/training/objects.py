"""What a config describes, built or tried out: data module, classifier, callbacks, loggers, trainer."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint, ProgressBar
from pytorch_lightning.loggers import Logger

from histo_lightning.classifier import Classifier
from histo_lightning.classifier.checkpoint import AtomicCheckpointIO
from histo_lightning.classifier.hardware import Hardware
from histo_lightning.classifier.optimizers import check_optimization
from histo_lightning.config.checks import advice, nearest
from histo_lightning.config.identity import shortened
from histo_lightning.config.schema import MONITORS, Config, TrainerConfig
from histo_lightning.config.targets import arguments, build, check_arguments, class_of, parameters_of
from histo_lightning.data.augment import check_steps
from histo_lightning.data.datamodule import BreakHisDataModule
from histo_lightning.data.sources.folder import Progress
from histo_lightning.errors import UserError
from histo_lightning.models import load_weights
from histo_lightning.models.networks import OURS, check_network

OWN_FLAGS = {  # given to the Trainer by this module; conf/ has keys or groups of its own for them
    *("accelerator", "devices", "strategy", "precision", "deterministic"),
    *("max_epochs", "callbacks", "logger", "plugins", "default_root_dir", "use_distributed_sampler"),
    *("enable_checkpointing", "enable_progress_bar", "enable_model_summary"),
}
CLASSES = {"binary": 2, "subtype": 8}
LOGGER_PACKAGES = {"MLFlowLogger": "mlflow", "WandbLogger": "wandb"}
LOGGER_ARGUMENTS = ("save_dir", "name", "run_name", "tracking_uri", "artifact_location")  # filled in


def build_datamodule(config: Config, progress: Progress | None = None) -> BreakHisDataModule:
    """The data module that a config describes."""
    dataset = asdict(config.dataset)
    name, size, seed = (dataset.pop(key) for key in ("name", "image_size", "seed"))
    same = ("magnification", "task", "split", "image_size", "augment", "batch_size", "sampler", "cache_dir")
    settings: dict[str, Any] = dataset | {key: getattr(config, key) for key in (*same, "seed")}
    settings |= {"synthetic_size": size, "synthetic_seed": seed, "workers": config.trainer.workers}
    return BreakHisDataModule(name, progress=progress, **settings)


def monitor_name(name: str) -> str:
    """``val_loss`` as Lightning and TensorBoard know it: ``val/loss``."""
    return name.replace("_", "/", 1)


def network_options(config: Config) -> dict[str, Any]:
    """The arguments of a network and its head, as the classifier takes them."""
    head = config.head
    return {
        "model": {"_target_": config.model["_target_"], **arguments(config.model, leave=OURS)},
        "num_classes": CLASSES[config.task],
        "head": head.name,
        "hidden": head.hidden or 512,
        "dropout": 0.05 if head.dropout is None else head.dropout,
    }


def build_classifier(config: Config, data: BreakHisDataModule) -> Classifier:
    """A freshly initialised network with the metadata of its checkpoints; UserError if ``model.weights`` is unusable."""
    torch.manual_seed(config.seed)
    counts, weights = data.class_counts, None
    if config.class_weights == "balanced":
        present = sum(count > 0 for count in counts)
        weights = [sum(counts) / (present * count) if count else 0.0 for count in counts]
    alike = ("optimizer", "scheduler", "label_smoothing", "tta", "exact_predictions")
    options: Any = {key: getattr(config, key) for key in alike} | {"class_weights": weights}
    options["freeze_backbone"] = bool(config.model.get("freeze_backbone"))
    options["frozen_norm"] = str(config.model.get("frozen_norm") or "train")
    options |= {"monitor": monitor_name(config.monitor), "monitor_mode": MONITORS[config.monitor]}
    classifier = Classifier(**network_options(config), **options)
    if config.model.get("weights"):
        load_weights(classifier.network, config.model["weights"], cache_dir=data.cache_dir / "weights")
    classifier.metadata = {**data.describe(), "config": asdict(config), "shortened": shortened(config)}
    return classifier


def build_callbacks(config: Config, folder: Path) -> list[Callback]:
    """The callbacks of the group ``callbacks``, in its order; UserError where one refuses its arguments."""
    built = []
    filled: dict[str, Any] = {"dirpath": str(folder / "checkpoints"), "style": config.trainer.progress}
    filled |= {"save_best": config.scored_weights == "best"}
    for name, entry in config.callbacks.items():
        kind = class_of(entry, Callback, f"callbacks.{name}")
        if kind is LearningRateMonitor and not config.logger:  # it refuses to run where nothing can be logged
            continue
        given, monitor = arguments(entry), entry.get("monitor") or config.monitor
        if {"monitor", "mode"} <= parameters_of(kind).keys() and monitor in MONITORS:
            mode = entry.get("mode") or MONITORS[monitor]
            given |= {"monitor": monitor_name(monitor), "mode": mode}
        built.append(build(kind, given, f"callbacks.{name}", **filled))
    return built


def build_loggers(config: Config, folder: Path) -> list[Logger]:
    """The loggers of the group ``logger``, which write into the run folder unless they say otherwise."""
    built, path = [], folder.resolve()
    filled = {"save_dir": str(folder), **dict.fromkeys(("name", "run_name"), folder.name)}
    filled |= {"tracking_uri": f"sqlite:///{path}/mlflow.db", "artifact_location": f"{path}/mlruns"}  # MLflow
    for name, entry in config.logger.items():
        kind = class_of(entry, Logger, f"logger.{name}")
        given = arguments(entry) | ({"name": entry["name"]} if "name" in entry else {})
        built.append(build(kind, given, f"logger.{name}", **filled))
    return built


def check_targets(config: Config) -> None:
    """Try out what is built from ``_target_``; UserError for the first thing that cannot be built, with its key."""
    check_steps(config.augment.steps)
    for name, allowed in (("freeze_backbone", (True, False)), ("frozen_norm", ("train", "eval"))):
        if (value := config.model.get(name)) not in (*allowed, None):
            words = ", ".join(str(each).lower() for each in allowed)
            raise UserError(f"model.{name}={value}: allowed are {words}")
    check_network(size=config.image_size, **network_options(config))
    check_optimization(config.optimizer, config.scheduler)
    known, flags = parameters_of(Trainer), config.trainer.flags
    if unknown := [name for name in flags if name in OWN_FLAGS or name not in known]:
        possible = sorted({*known} - OWN_FLAGS | {*TrainerConfig.__dataclass_fields__} - {"flags"})
        hint = advice(f"trainer.{unknown[0]}") or nearest(unknown[0], possible)
        raise UserError(f"unknown key 'trainer.{unknown[0]}'{hint} (a flag of Lightning's Trainer is needed)")
    check_arguments(Trainer, flags, "trainer")
    build_callbacks(config, Path())  # nothing is written before a fit
    for name, entry in config.logger.items():
        kind = class_of(entry, Logger, f"logger.{name}")
        package = LOGGER_PACKAGES.get(kind.__name__)
        if package is not None and find_spec(package) is None:
            mend = "pip install 'histo-lightning[loggers]'"
            raise UserError(f"logger={name}: {package} is not installed; {mend}")
        check_arguments(kind, arguments(entry), f"logger.{name}", filled=LOGGER_ARGUMENTS)


def build_trainer(
    config: Config, folder: Path, hardware: Hardware, callbacks: Sequence[Callback], loggers: Sequence[Logger]
) -> Trainer:
    """Lightning's trainer with our defaults; its files go to ``folder``."""
    settings = config.trainer
    if hardware.accelerator == "gpu" and settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic matrix products need it
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("pytorch_lightning.profilers").setLevel(logging.INFO)  # the table of trainer.profiler
    sync_batchnorm = settings.strategy == "ddp" and hardware.accelerator == "gpu"
    ours: dict[str, Any] = {"num_sanity_val_steps": 0, "log_every_n_steps": 10**9}
    ours |= {"enable_model_summary": False, "sync_batchnorm": sync_batchnorm}
    ours |= {"callbacks": list(callbacks), "logger": list(loggers) or False, "default_root_dir": folder}
    ours["use_distributed_sampler"] = False  # our batches are shared out already
    ours["enable_checkpointing"] = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    ours["enable_progress_bar"] = any(isinstance(callback, ProgressBar) for callback in callbacks)
    ours |= {"accelerator": hardware.accelerator, "precision": hardware.precision}
    ours["max_epochs"] = config.epochs
    ours["devices"] = settings.devices if settings.gpu is None else [settings.gpu]
    ours["strategy"] = "ddp" if settings.strategy == "ddp" else "auto"
    ours |= {"plugins": [AtomicCheckpointIO()], "deterministic": settings.deterministic}
    return Trainer(**(ours | settings.flags))


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
            "You're resuming from a checkpoint that ended before the epoch ended.*",  # callbacks/checkpoints.py
            ".*Couldn't infer the batch indices fetched.*",  # predict_step returns them
        ):
            warnings.filterwarnings("ignore", message=text)
        yield
