"""From a composed config to a checked one: unknown keys, types, choices, ranges, in one line that names the key."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from histo_lightning.config.schema import SCHEMAS, AnyConfig, Config, TrainerConfig, short_name
from histo_lightning.errors import UserError

FREE = ("model", "optimizer", "scheduler", "callbacks", "logger")  # checked by the signature of _target_
S = TypeVar("S")
OPEN = ("tune.space", "augment.steps", "trainer")  # checked by what reads them
# What users of other projects type, behind what it is called here: it looks nothing like it, so this comes before the nearest.
ADVICE = {
    "epochs=<n>": "trainer.max_epochs max_epochs num_epochs",
    "callbacks.early_stopping.patience=<n>": "trainer.min_epochs early_stopping.patience patience",
    "trainer.devices=<n>, or trainer=gpu": "trainer.gpus gpus",
    "the group callbacks, for example callbacks=[default,ema]": "trainer.callbacks",
    "the group logger, for example logger=[tensorboard,csv]": "trainer.logger",
    "output_dir=<folder>": "trainer.default_root_dir",
    "trainer.progress=none": "trainer.enable_progress_bar trainer.enable_model_summary",
    "~callbacks.model_checkpoint": "trainer.enable_checkpointing",
    "callbacks: plugins are this project's own": "trainer.plugins",
    "nothing: every process takes its share of each batch already": "trainer.use_distributed_sampler",
    "resume=<checkpoint>": "trainer.resume_from_checkpoint resume_from_checkpoint",
    "optimizer.lr=<rate>": "lr learning_rate model.lr optimizer.learning_rate model.optimizer.lr",
    "optimizer.weight_decay=<number>": "weight_decay",
    "optimizer.momentum=<number>": "momentum",
    "trainer.gradient_clip_val=<norm>": "gradient_clip_val optimizer.clip_norm",
    "trainer.accumulate_grad_batches=<n>": "accumulate_grad_batches",
    "debug=fast_dev_run": "fast_dev_run",
    "debug=overfit": "overfit_batches",
    "resume=<checkpoint> (train) or checkpoint=<checkpoint> (the other commands)": "ckpt_path",
    "checkpoint=<checkpoint>": "ckpt",
    "seed=<n>": "seed_everything",
    "dataset.root=<folder>": "data_dir",
    "batch_size=<n>": "data.batch_size bs",
    "model=<option>": "net model.net arch backbone model.name",
    "optimizer=<option>": "optimizer.name",
    "scheduler=<option>": "scheduler.name",
    "class_weights and label_smoothing: the loss is cross entropy": "loss",
    "callbacks=[default,early_stopping]; ~callbacks.early_stopping takes it out": "early_stopping",
    "callbacks.early_stopping.monitor=<score>": "early_stopping.monitor",
    "callbacks=[default,ema]": "ema",
    "callbacks=[default,ema] callbacks.ema.decay=<decay>": "ema.decay",
    "callbacks.model_checkpoint.<argument>": "model_checkpoint",
    "python -m histo_lightning.tune, which searches with Optuna": "hydra/sweeper",
    "run_name=<name>": "task_name exp_name experiment_name tags",
    "magnification=<option>": "zoom",
}
ALIASES = {name: advice for advice, names in ADVICE.items() for name in names.split()}


def nearest(given: str, allowed: list[str]) -> str:
    """``; did you mean 'x'?`` or nothing."""
    close = get_close_matches(given, allowed, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def advice(name: str) -> str:
    """``; here it is ...`` for a key that has another name here, else nothing."""
    return f"; here it is {ALIASES[name]}" if name in ALIASES else ""


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a nested dict, with dotted keys."""
    for name, item in value.items():
        dotted = f"{prefix}{name}"
        if isinstance(item, dict) and item:
            yield from flatten(item, f"{dotted}.")
        else:
            yield dotted, item


def schema_fields(schema: type[Any], prefix: str = "") -> Iterator[tuple[str, Field[Any]]]:
    """Every dotted key of a schema with its field; a group that is a dict is one key."""
    for entry in fields(schema):
        if isinstance(entry.type, type) and is_dataclass(entry.type):
            yield from schema_fields(entry.type, f"{prefix}{entry.name}.")
        else:
            yield f"{prefix}{entry.name}", entry


@cache
def is_known(name: str, schema: Any) -> bool:
    """Whether a key is in a schema, or below a group whose inside is checked elsewhere."""
    allowed = dict(schema_fields(schema))
    tops = {key.split(".")[0] for key in allowed}
    below = [free for free in (*FREE, *OPEN) if free.split(".")[0] in tops]
    return name in allowed or any(name.startswith(f"{free}.") for free in below)


def unknown_key(name: str, schema: type[AnyConfig]) -> UserError:
    """The refusal of a key: what it is called here, else the nearest."""
    allowed = list(dict(schema_fields(schema)))
    groups = sorted({key.split(".")[0] for key in allowed if "." in key} | {"experiment", "debug"})
    hint = advice(name) or nearest(name, allowed + groups)
    return UserError(f"unknown key {name!r}{hint} (every key is in conf/, with a comment; --help lists them)")


@cache
def _structured(schema: Any, groups: tuple[str, ...]) -> DictConfig:
    """A schema's defaults, but nothing in ``groups``: what a group's file leaves out is off, not at the default."""
    base: DictConfig = OmegaConf.structured(schema)
    types: dict[str, Any] = {entry.name: entry.type for entry in fields(schema)}
    for name in groups:
        base[name] = types[name]() if is_dataclass(types[name]) else {}
    return base


def to_config(composed: DictConfig, schema: type[AnyConfig] = Config) -> AnyConfig:
    """Merge what Hydra composed into a fresh schema and check it; UserError for an unknown key or a wrong value."""
    given: Any = OmegaConf.to_container(composed, resolve=False)
    kind: Any = schema  # mypy takes the type of a dataclass for something without a hash
    given.pop("hydra", None)
    groups = {key.rsplit(".", 1)[0] for key, _ in schema_fields(Config) if "." in key}
    for name, _ in flatten(given):
        if not (is_known(name, kind) or is_known(name, Config) or name in groups):
            raise unknown_key(name, schema)
    top = {entry.name for entry in fields(schema)}
    own = {name: value for name, value in given.items() if name in top}  # dataset=breakhis sets epochs too
    if isinstance(trainer := own.get("trainer"), dict):
        if not isinstance(trainer.get("flags") or {}, dict):
            raise UserError("trainer.flags: arguments of Lightning's Trainer are given as trainer.<argument>")
        flags = [name for name in trainer if name not in TrainerConfig.__dataclass_fields__]
        trainer["flags"] = (trainer.get("flags") or {}) | {name: trainer.pop(name) for name in flags}
    try:
        base = _structured(kind, tuple(name for name, value in own.items() if isinstance(value, dict)))
        config = OmegaConf.to_object(OmegaConf.merge(base, own))
    except OmegaConfBaseException as error:
        name = str(error.full_key or "?")
        entry = dict(schema_fields(schema)).get(name)
        allowed = f"; {words}" if entry and (words := _allowed(entry.metadata)) else ""
        raise UserError(f"{name}: {str(error.msg or error).splitlines()[0]}{allowed}") from error
    assert isinstance(config, schema)
    if isinstance(config, Config):
        for group in ("model", "optimizer", "scheduler"):
            settings = getattr(config, group)
            if not isinstance(target := settings.get("_target_"), str):
                raise UserError(f"{group}._target_ is missing: name a class, or choose {group}=<option>")
            if (name := settings["name"]) != short_name(target):
                raise UserError(f"{group}.name={name}: follows from {group}._target_; use {group}={name}")
    if hasattr(config, "trainer"):
        config.trainer.compile = config.trainer.compile.lower()  # YAML's true comes as True
        if config.trainer.flags and not isinstance(config, Config):
            raise unknown_key(f"trainer.{next(iter(config.trainer.flags))}", schema)
    check(config)
    return config


def _allowed(rules: Mapping[str, Any]) -> str:
    if "choices" in rules:
        return f"allowed are {', '.join(rules['choices'])}"
    return f"allowed is a number from {rules['low']:g} to {rules['high']:g}" if "low" in rules else ""


def fits(value: Any, kind: Any) -> bool:
    """Whether a plain value is of an annotated type, to the last item; numbers must be finite and below 2^63."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if origin is list:
        return isinstance(value, list) and all(fits(item, inner[0]) for item in value)
    if origin is dict:
        pairs = value.items() if isinstance(value, dict) else ((None, None),)
        return all(fits(name, inner[0]) and fits(item, inner[1]) for name, item in pairs)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool) and abs(value) < 2**63
    return kind is Any or isinstance(value, kind)


def from_stranger(schema: type[S], values: Mapping[str, Any]) -> S:
    """A schema's object from values that somebody else wrote, checked like a config; keys that it lacks are left out."""
    given = {}
    for entry in fields(schema):  # type: ignore[arg-type]
        if entry.name in values:
            given[entry.name] = value = values[entry.name]
            if not fits(value, entry.type):
                raise UserError(f"{entry.name}={value!r:.80}: is of another type; needed is {entry.type}")
        elif entry.default is MISSING and entry.default_factory is MISSING:
            raise UserError(f"{entry.name} is missing")
    made = schema(**given)
    check(made)
    return made


def stored_config(stored: Mapping[str, Any]) -> Config:
    """The part of a checkpoint's config that says how it sees images, checked; UserError with the key that is wrong."""
    keys = ("dataset", "split", "augment", "image_size", "magnification", "task")
    own = {name: stored[name] for name in keys if name in stored}
    if "${" in str(own):
        raise UserError("config: a value refers to another one, which no checkpoint of ours does")
    try:
        config = to_config(OmegaConf.create(own))
    except (UserError, OmegaConfBaseException, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"config.{error}") from error
    assert isinstance(config, Config)
    return config


def check(config: Any) -> None:
    """Check every value against its field; raise UserError with the key, what was given and what is allowed."""
    values = dict(flatten(asdict(config)))
    for name, entry in schema_fields(type(config)):
        value, rules = values.get(name), entry.metadata
        if value is None:
            continue
        group, problem = name.split(".")[0], ""
        low, high = rules.get("pair", (0, 0))
        if "choices" in rules and value not in rules["choices"]:
            problem = f"{_allowed(rules)}{nearest(str(value), list(rules['choices']))}"
        elif "low" in rules and not rules["low"] <= value <= rules["high"]:
            problem = _allowed(rules)
        elif "items" in rules and not set(value) <= set(rules["items"]):
            problem = f"allowed are lists of {', '.join(rules['items'])}"
        elif "pattern" in rules and not re.fullmatch(rules["pattern"], value):
            problem = "allowed are letters, digits, '.', '_' and '-', at most 100, the first no '.'"
        elif "only" in rules and (option := values[f"{group}.name"]) not in rules["only"]:
            problem = f"has no effect with {group}={option}; it belongs to {', '.join(rules['only'])}"
        elif "pair" in rules and not (len(value) == 2 and low <= value[0] <= value[1] <= high):
            problem = f"allowed are two numbers from {low:g} to {high:g}, the smaller first"
        if problem:
            raise UserError(f"{name}={value}: {problem}")


@cache
def keys_with(rule: str, value: Any) -> set[str]:
    """Keys of all commands whose field has a rule with this value."""
    entries = [entry for schema in SCHEMAS.values() for entry in schema_fields(schema)]
    return {name for name, entry in entries if entry.metadata.get(rule) == value}
