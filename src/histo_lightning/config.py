"""The checks that stop a run before any work, and what identifies a config.

Hydra composes; :func:`to_config` merges the result into :mod:`histo_lightning.schema`, so an unknown key, a wrong type or a
value out of range ends in one line that names the key, what was given, what is allowed and the nearest match.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from histo_lightning.data.split_plan import KINDS
from histo_lightning.errors import UserError
from histo_lightning.schema import AnyConfig, AuditConfig, CompareConfig, Config, ExportConfig, TuneConfig
from histo_lightning.split_config import check_split, split_words

MODEL_NAMES = [
    "resnet10",
    "resnet14",
    "resnet18",
    "resnet26",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "wide_resnet50_2",
    "wide_resnet101_2",
]
# What a sweep can compare its runs by.
STUDY_SCORES = (
    *(
        f"{level}_{score}"
        for level in ("case", "slide", "image")
        for score in (
            "auroc",
            "balanced_accuracy",
            "accuracy",
            "sensitivity",
            "specificity",
            "auprc",
            "log_loss",
            "brier",
        )
    ),
    "slide_patient_recognition_rate",
)
# What is watched, and whether more of it is better.
MONITORS = {
    "val_case_log_loss": "min",
    "val_loss": "min",
    "val_accuracy": "max",
    "val_balanced_accuracy": "max",
    "val_auroc": "max",
    "val_case_auroc": "max",
}
SUBTYPE_MONITORS = ("val_case_log_loss", "val_loss", "val_accuracy", "val_balanced_accuracy")
CHOICES: dict[str, tuple[str, ...]] = {
    "model.name": tuple(MODEL_NAMES),
    "model.stem": ("standard", "deep", "small"),
    "model.frozen_norm": ("train", "eval"),
    "head.name": ("linear", "mlp"),
    "optimizer.name": ("sgd", "adam", "adamw", "rmsprop"),
    "scheduler.name": ("constant", "step", "cosine", "onecycle", "plateau"),
    "dataset.name": ("synthetic", "breakhis", "folders"),
    "split.name": KINDS,
    "split.group": ("case", "slide", "image"),
    "augment.evaluate": ("field", "center"),
    "augment.normalisation": ("train", "imagenet"),
    "trainer.accelerator": ("auto", "cpu", "gpu"),
    "trainer.strategy": ("single", "ddp"),
    "trainer.precision": ("auto", "32-true", "bf16-mixed", "16-mixed"),
    "trainer.compile": ("auto", "true", "false"),
    "trainer.progress": ("auto", "bar", "lines", "none"),
    "magnification": ("40x", "100x", "200x", "400x", "all"),
    "task": ("binary", "subtype"),
    "monitor": tuple(MONITORS),
    "early_stopping.monitor": tuple(MONITORS),
    "scored_weights": ("best", "last"),
    "class_weights": ("none", "balanced"),
    "sampler": ("shuffle", "case_balanced"),
    "verify": ("fast", "full"),
    "suite": ("quick", "full"),
    "part": ("all", "unseen", "train", "val", "test"),
    "tta": ("none", "d4"),
    "study.score": STUDY_SCORES,
    "format": ("onnx", "torch_export", "safetensors"),
    "tune.sampler": ("tpe", "random"),
    "tune.pruner": ("median", "halving", "none"),
    "tune.keep": ("best", "all"),
}
RANGES: dict[str, tuple[float, float]] = {
    "head.hidden": (1, 65536),
    "head.dropout": (0, 0.99),
    "optimizer.lr": (0, 100),
    "optimizer.weight_decay": (0, 100),
    "optimizer.momentum": (0, 0.9999),
    "optimizer.alpha": (0, 0.99999),
    "optimizer.eps": (1e-16, 1),
    "optimizer.clip_norm": (1e-9, 1e9),
    "scheduler.warmup_epochs": (0, 100000),
    "scheduler.final_ratio": (0, 1),
    "scheduler.step_size": (1, 100000),
    "scheduler.gamma": (0, 1),
    "scheduler.factor": (0, 0.9999),
    "scheduler.patience": (0, 100000),
    "scheduler.pct_start": (0, 1),
    "dataset.images_per_slide": (1, 60),
    "dataset.image_size": (140, 1400),
    "dataset.short_side": (32, 4096),
    "split.injected": (0, 1),
    "split.repeat": (0, 10**6),
    "split.seed": (0, 2**31 - 1),
    "augment.rotation_degrees": (0, 180),
    "augment.brightness": (0, 0.9),
    "augment.contrast": (0, 0.9),
    "augment.channel_gain": (0, 0.9),
    "augment.stain_gain": (0, 0.9),
    "augment.stain_shift": (0, 0.5),
    "trainer.devices": (1, 1024),
    "trainer.threads": (1, 4096),
    "trainer.workers": (0, 256),
    "trainer.gpu": (0, 1023),
    "early_stopping.patience": (1, 100000),
    "early_stopping.min_delta": (0, 1),
    "ema.decay": (0, 0.999999),
    "seed": (0, 2**31 - 1),
    "epochs": (1, 100000),
    "batch_size": (2, 65536),
    "image_size": (32, 2048),
    "label_smoothing": (0, 0.9),
    "target_sensitivity": (0.01, 1),
    "tune.trials": (1, 100000),
    "tune.random_trials": (1, 100000),
    "tune.pruner_trials": (1, 100000),
    "tune.warmup_epochs": (1, 100000),
    "tune.max_failed": (1, 100000),
}
# Keys that only some choices of their group use: set elsewhere, they would be silently ignored.
MEANT_FOR: dict[str, tuple[str, ...]] = {
    "head.hidden": ("mlp",),
    "head.dropout": ("mlp",),
    "optimizer.momentum": ("sgd", "rmsprop"),
    "optimizer.nesterov": ("sgd",),
    "optimizer.betas": ("adam", "adamw"),
    "optimizer.alpha": ("rmsprop",),
    "optimizer.eps": ("adam", "adamw", "rmsprop"),
    "scheduler.warmup_epochs": ("constant", "step", "cosine"),
    "scheduler.final_ratio": ("cosine", "onecycle"),
    "scheduler.step_size": ("step",),
    "scheduler.gamma": ("step",),
    "scheduler.factor": ("plateau",),
    "scheduler.patience": ("plateau",),
    "scheduler.pct_start": ("onecycle",),
    "split.injected": ("injection",),
    "dataset.images_per_slide": ("synthetic",),
    "dataset.image_size": ("synthetic",),
    "dataset.seed": ("synthetic",),
    "dataset.url": ("breakhis",),
}
# Where things go and how fast they run, not what is computed: left out of the hash of a run.
NOT_HASHED = (
    "output_dir",
    "run_name",
    "sweep_name",
    "resume",
    "json",
    "cache_dir",
    "dataset.root",
    "dataset.download",
    "dataset.url",
    "trainer.devices",
    "trainer.threads",
    "trainer.workers",
    "trainer.gpu",
    "trainer.progress",
    "study.factor",
    "study.reference",
    "study.score",
    "study_name",
    "tune.trials",
    "tune.max_failed",
    "tune.final",
    "tune.keep",
)
# Free within: the keys below it are the search's own and are checked by ``tuning.space``.
SPACE = "tune.space"
# Taken literally from the command line, whatever stands in them.
LITERAL_KEYS = (
    "input",
    "checkpoint",
    "runs",
    "split_file",
    "json",
    "output_dir",
    "cache_dir",
    "dataset.root",
    "dataset.url",
    "split.path",
    "model.weights",
    "resume",
)


def nearest(given: str, allowed: list[str]) -> str:
    """``; did you mean 'x'?`` or nothing."""
    close = get_close_matches(given, allowed, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a nested dict, with dotted keys."""
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict) and item:
            yield from flatten(item, f"{name}.")
        else:
            yield name, item


def schema_keys(schema: type[AnyConfig] = Config) -> list[str]:
    """Every dotted key of a schema."""
    return [key for key, _ in flatten(asdict(schema()))]


def is_known(key: str, allowed: list[str]) -> bool:
    """Whether a key stands in a schema, or below the one key whose inside is free."""
    return key in allowed or (SPACE in allowed and key.startswith(f"{SPACE}."))


def to_config(composed: DictConfig, schema: type[AnyConfig] = Config) -> AnyConfig:
    """Merge what Hydra composed into a fresh schema and check it.

    Config groups set keys of training too (``dataset=breakhis`` sets ``epochs``); a command without them leaves them out.

    Raises:
        UserError: unknown key, wrong type, value out of range, or keys that contradict each other.
    """
    given = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(given, dict)
    given.pop("hydra", None)
    allowed = schema_keys(schema)
    groups = {key.rsplit(".", 1)[0] for key in allowed if "." in key}
    for key, _ in flatten(given):
        if not is_known(key, allowed) and key not in groups and key not in schema_keys():
            raise UserError(f"unknown key {key!r}{nearest(key, allowed)} (all keys stand in conf/train.yaml)")
    fields = {key.split(".")[0] for key in allowed}
    wanted = {key: value for key, value in given.items() if key in fields}
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.create(wanted))
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = str(error.full_key or "?")
        raise UserError(f"{key}: {str(error.msg or error).splitlines()[0]}{_allowed(key)}") from error
    assert isinstance(config, schema)
    if not isinstance(config, (AuditConfig, CompareConfig, ExportConfig)):
        config.trainer.compile = (
            config.trainer.compile.lower()
        )  # true and false come as YAML's True and False
    check(config)
    return config


def _allowed(key: str) -> str:
    if key in CHOICES:
        return f"; allowed are {', '.join(CHOICES[key])}"
    if key in RANGES:
        return f"; allowed is a number from {RANGES[key][0]:g} to {RANGES[key][1]:g}"
    return ""


def check(config: AnyConfig) -> None:
    """Check values and combinations; raise UserError with the key, what was given and what is allowed."""
    values = dict(flatten(asdict(config)))
    for key, choices in CHOICES.items():
        if values.get(key) is not None and values[key] not in choices:
            given = str(values[key])
            raise UserError(f"{key}={given}: allowed are {', '.join(choices)}{nearest(given, list(choices))}")
    for key, (low, high) in RANGES.items():
        if values.get(key) is not None and not low <= values[key] <= high:
            raise UserError(f"{key}={values[key]}: allowed is a number from {low:g} to {high:g}")
    for key, names in MEANT_FOR.items():
        group = key.split(".")[0]
        if values.get(key) is not None and values[f"{group}.name"] not in names:
            raise UserError(
                f"{key}={values[key]}: has no effect with {group}={values[f'{group}.name']}; it belongs to {', '.join(names)}"
            )
    for key in ("run_name", "sweep_name", "study_name"):
        if values.get(key) is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", values[key]):
            raise UserError(
                f"{key}={values[key]}: allowed are letters, digits, '.', '_' and '-', at most 100"
            )
    if isinstance(config, Config):
        factors = sorted({key.removesuffix(".name") for key in values})
        if config.study.factor not in factors:
            raise UserError(
                f"study.factor={config.study.factor}: is no key or group{nearest(config.study.factor, factors)}"
            )
        _check_lists(config)
        _check_combinations(config)
    if isinstance(config, TuneConfig):
        from histo_lightning.tuning.space import check_tuning  # it checks settings by this very function

        check_tuning(config)


def _check_lists(config: Config) -> None:
    for key, pair, low, high in (
        ("augment.crop_scale", config.augment.crop_scale, 0.01, 1.0),
        ("augment.crop_ratio", config.augment.crop_ratio, 0.1, 10.0),
        ("optimizer.betas", config.optimizer.betas, 0.0, 0.99999),
    ):
        if pair is None:
            continue
        ordered = key == "optimizer.betas" or (len(pair) == 2 and pair[0] <= pair[1])
        if len(pair) != 2 or not ordered or not all(low <= value <= high for value in pair):
            raise UserError(
                f"{key}={pair}: allowed are two numbers from {low:g} to {high:g}, the smaller first"
            )


def _check_combinations(config: Config) -> None:
    check_split(config)
    dataset = config.dataset
    augment = config.augment
    if augment.name == "thesis_pillow":
        for key in ("dihedral", "brightness", "contrast", "channel_gain", "stain_gain", "stain_shift"):
            if getattr(augment, key):
                raise UserError(
                    f"augment.{key}={getattr(augment, key)}: has no effect with augment=thesis_pillow; use augment=thesis"
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
    if config.batch_size % config.trainer.devices:
        raise UserError(
            f"batch_size={config.batch_size}: is shared by all devices, so it must be a multiple of "
            f"trainer.devices={config.trainer.devices}"
        )


def hashed(config: Config) -> str:
    """Eight hex digits of the config without what does not change the result."""
    values = {key: value for key, value in flatten(asdict(config)) if key not in NOT_HASHED}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def readable_name(config: Config) -> str:
    """``resnet18_adamw_40x_case_kfold-0_s0``, or ``run_name``, with the hash behind it; ``[A-Za-z0-9._-]`` only."""
    parts = [
        config.model.name,
        config.optimizer.name,
        config.magnification,
        split_words(config.split),
    ]
    if config.dataset.name != "synthetic":
        parts.insert(0, config.dataset.name)
    if config.task != "binary":
        parts.append(config.task)
    name = config.run_name or "_".join([*parts, f"s{config.seed}"])
    return f"{name}_{hashed(config)}"


def as_primitives(config: Any) -> dict[str, Any]:
    """A dataclass of the schema as a nested plain dict."""
    if not is_dataclass(config) or isinstance(config, type):
        raise TypeError("a dataclass instance is needed")
    return asdict(config)
