"""What a run's keys must satisfy together, checked for all jobs of a sweep before the first one starts."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from histo_lightning.config.checks import flatten, nearest
from histo_lightning.config.schema import Config
from histo_lightning.config.targets import import_modules
from histo_lightning.data.splits import check_split_keys
from histo_lightning.errors import UserError

SUBTYPE_MONITORS = ("val_case_log_loss", "val_loss", "val_accuracy", "val_balanced_accuracy")


def check_runs(configs: Sequence[Any]) -> None:
    """Check the configs of all jobs; what is built from ``_target_`` once for each way it is described.

    Raises:
        UserError: with the key, what was given and what is allowed.
    """
    for names in {tuple(config.imports) for config in configs if config.imports}:
        import_modules(names)
    for config in configs:
        check_keys(config)
    from histo_lightning.training.target_checks import check_targets  # torch and Lightning: seconds, so last

    seen = set()
    for config in configs:
        described = repr(
            [
                asdict(config.head),
                asdict(config.trainer),
                [config.task, config.image_size, config.monitor],
                config.model,
                config.optimizer,
                config.scheduler,
                config.callbacks,
                config.logger,
                config.augment.steps,
            ]
        )
        if described not in seen:
            seen.add(described)
            check_targets(config)


def check_keys(config: Config) -> None:
    """Refuse keys that contradict each other; imports nothing heavy."""
    dataset, augment = config.dataset, config.augment
    check_split_keys(config.split, dataset=dataset.name, task=config.task, magnification=config.magnification)
    if augment.name == "thesis_pillow":
        for name in (
            "dihedral",
            "brightness",
            "contrast",
            "channel_gain",
            "stain_gain",
            "stain_shift",
            "steps",
        ):
            if getattr(augment, name):
                raise UserError(
                    f"augment.{name}={getattr(augment, name)}: has no effect with augment=thesis_pillow; use augment=thesis"
                )
        if augment.evaluate != "center":
            raise UserError("augment.evaluate=field: augment=thesis_pillow evaluates the centre square only")
    if dataset.download and dataset.name != "breakhis":
        raise UserError(
            f"dataset.download=true: dataset={dataset.name} is not downloaded; use dataset=breakhis"
        )
    if config.task == "subtype" and config.monitor not in SUBTYPE_MONITORS:
        raise UserError(
            f"monitor={config.monitor}: with task=subtype allowed are {', '.join(SUBTYPE_MONITORS)}"
        )
    if config.trainer.devices > 1 and config.trainer.strategy != "ddp":
        raise UserError(f"trainer.devices={config.trainer.devices}: several devices need trainer=ddp")
    processes = config.trainer.devices * int(config.trainer.flags.get("num_nodes") or 1)
    if config.batch_size % processes:
        raise UserError(
            f"batch_size={config.batch_size}: is shared by all devices, so it must be a multiple of "
            f"trainer.devices={config.trainer.devices}"
        )
    if config.trainer.flags.get("limit_val_batches") == 0 and (
        "early_stopping" in config.callbacks or config.scheduler["name"] == "plateau"
    ):
        raise UserError(
            "trainer.limit_val_batches=0: leaves nothing to stop by; add ~callbacks.early_stopping, and no scheduler=plateau"
        )
    factors = factor_names(config)
    if config.study.factor not in factors:
        raise UserError(
            f"study.factor={config.study.factor}: is no key or group{nearest(config.study.factor, factors)}"
        )


def factor_names(config: Config) -> list[str]:
    """The keys and groups that a sweep can compare."""
    return sorted(
        {
            name.removesuffix(".name").replace("trainer.flags.", "trainer.")
            for name, _ in flatten(asdict(config))
        }
    )
