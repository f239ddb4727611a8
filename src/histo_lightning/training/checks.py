"""What a run's keys must satisfy together, checked for all jobs of a sweep before the first one starts."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from histo_lightning.config.checks import flatten, nearest
from histo_lightning.config.schema import MONITORS, Config
from histo_lightning.config.targets import import_modules
from histo_lightning.data.splits import check_split_keys
from histo_lightning.errors import UserError

NOT_PILLOW = ("dihedral", "brightness", "contrast", "channel_gain", "stain_gain", "stain_shift", "steps")
# What is tried out depends on these keys and groups, and on the steps of augmentation.
TRIED = ("task", "image_size", "head", "trainer", "model", "optimizer", "scheduler", "callbacks", "logger")


def check_runs(configs: Sequence[Any]) -> None:
    """Raise UserError for the first key of any job that cannot work; equal settings are tried out once."""
    for names in {tuple(config.imports) for config in configs if config.imports}:
        import_modules(names)
    different: dict[str, Config] = {}
    for config in configs:
        check_keys(config)
        settings = [config.augment.steps, *(getattr(config, name) for name in (*TRIED, "monitor"))]
        different.setdefault(repr(settings), config)
    from histo_lightning.training.objects import check_targets  # torch and Lightning: seconds, so last

    for config in different.values():
        check_targets(config)


def check_keys(config: Config) -> None:
    """Refuse keys that contradict each other; imports nothing heavy."""
    dataset, augment, trainer = config.dataset, config.augment, config.trainer
    check_split_keys(config.split, dataset=dataset.name, task=config.task, magnification=config.magnification)
    if augment.name == "thesis_pillow":
        for name in NOT_PILLOW:
            if value := getattr(augment, name):
                mend = "with augment=thesis_pillow; use augment=thesis"
                raise UserError(f"augment.{name}={value}: has no effect {mend}")
        if augment.evaluate != "center":
            raise UserError("augment.evaluate=field: augment=thesis_pillow evaluates the centre square only")
    if dataset.download and dataset.name != "breakhis":
        raise UserError(f"dataset.download=true: dataset={dataset.name} is not downloaded; use breakhis")
    for key, monitor in aurocs(config).items():
        if config.task == "subtype" and monitor in MONITORS:
            allowed = ", ".join(name for name in MONITORS if not name.endswith("auroc"))
            raise UserError(f"{key}={monitor}: is not defined with task=subtype; allowed are {allowed}")
    if trainer.devices > 1 and trainer.strategy != "ddp":
        raise UserError(f"trainer.devices={trainer.devices}: several devices need trainer=ddp")
    if config.batch_size % (trainer.devices * int(trainer.flags.get("num_nodes") or 1)):
        problem = f"is shared by all devices, so it must be a multiple of trainer.devices={trainer.devices}"
        raise UserError(f"batch_size={config.batch_size}: {problem}")
    waits = "early_stopping" in config.callbacks or config.scheduler["name"] == "plateau"
    if trainer.flags.get("limit_val_batches") == 0 and waits:
        mend = "add ~callbacks.early_stopping, and no scheduler=plateau"
        raise UserError(f"trainer.limit_val_batches=0: leaves nothing to stop by; {mend}")
    factor, known = config.study.factor, sorted(factors(config))
    if factor not in known:
        raise UserError(f"study.factor={factor}: is no key or group{nearest(factor, known)}")


def aurocs(config: Config) -> dict[str, str]:
    """The keys that watch an AUROC, which needs two classes."""
    watched = {"monitor": config.monitor}
    for name, entry in config.callbacks.items():
        watched[f"callbacks.{name}.monitor"] = str(entry.get("monitor")) if isinstance(entry, dict) else ""
    return {key: score for key, score in watched.items() if score.endswith("auroc")}


def factors(config: Config) -> dict[str, Any]:
    """The keys and groups that a sweep can compare, with their values."""
    values = flatten(asdict(config))
    return {n.removesuffix(".name").replace("trainer.flags.", "trainer."): value for n, value in values}
