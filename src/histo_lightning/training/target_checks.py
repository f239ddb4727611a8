"""What is built from ``_target_``, tried out before any work: networks, optimizers, schedules, callbacks, loggers, flags."""

import inspect
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import Logger

from histo_lightning.classifier.optimizers import check_optimization
from histo_lightning.config.aliases import advice
from histo_lightning.config.checks import nearest
from histo_lightning.config.schema import MONITORS, Config, TrainerConfig
from histo_lightning.config.targets import arguments, check_arguments, class_of
from histo_lightning.data.augment import check_steps
from histo_lightning.errors import UserError
from histo_lightning.models.networks import OURS, check_network
from histo_lightning.training.objects import OWN_FLAGS, build_callbacks

CLASSES = {"binary": 2, "subtype": 8}
LOGGER_PACKAGES = {
    "MLFlowLogger": "mlflow",
    "WandbLogger": "wandb",
    "CometLogger": "comet_ml",
    "NeptuneLogger": "neptune",
}


def check_targets(config: Config) -> None:
    """Raise UserError for the first thing that cannot be built, with its key."""
    check_steps(config.augment.steps)
    _check_model(config)
    check_optimization(config.optimizer, config.scheduler)
    _check_flags(config)
    for name, entry in config.callbacks.items():
        class_of(_mapping(f"callbacks.{name}", entry), Callback, f"callbacks.{name}")
        monitor = entry.get("monitor")
        if monitor in MONITORS and config.task == "subtype" and monitor.endswith("auroc"):
            raise UserError(f"callbacks.{name}.monitor={monitor}: is not defined with task=subtype")
    build_callbacks(config, Path())  # nothing is written before a fit
    for name, entry in config.logger.items():
        kind = class_of(_mapping(f"logger.{name}", entry), Logger, f"logger.{name}")
        package = LOGGER_PACKAGES.get(kind.__name__)
        if package is not None and find_spec(package) is None:
            raise UserError(
                f"logger={name}: {package} is not installed; pip install 'histo-lightning[loggers]'"
            )
        check_arguments(
            kind,
            arguments(entry),
            f"logger.{name}",
            filled=("save_dir", "name", "run_name", "tracking_uri", "artifact_location"),
        )


def _mapping(key: str, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise UserError(f"{key}={entry}: give _target_ and arguments, or ~{key} to take it out{advice(key)}")
    return entry


def _check_model(config: Config) -> None:
    settings = config.model
    for name, allowed in (("freeze_backbone", (True, False, None)), ("frozen_norm", ("train", "eval", None))):
        if settings.get(name) not in allowed:
            words = ", ".join(str(value).lower() for value in allowed if value is not None)
            raise UserError(f"model.{name}={settings[name]}: allowed are {words}")
    check_network(
        {"_target_": settings["_target_"], **arguments(settings, leave=OURS)},
        CLASSES[config.task],
        config.image_size,
        head=config.head.name,
        hidden=config.head.hidden or 512,
        dropout=config.head.dropout or 0.0,
    )


def _check_flags(config: Config) -> None:
    own = [name for name in TrainerConfig.__dataclass_fields__ if name != "flags"]
    known = list(inspect.signature(Trainer.__init__).parameters)
    for name in config.trainer.flags:
        key = f"trainer.{name}"
        if name in OWN_FLAGS or name not in known:
            allowed = sorted({*own, *known} - OWN_FLAGS - {"self"} | set(own))
            raise UserError(
                f"unknown key {key!r}{advice(key) or nearest(name, allowed)} (a flag of Lightning's Trainer is needed)"
            )
    check_arguments(Trainer, config.trainer.flags, "trainer")
