"""From a composed config to a checked one: unknown keys, types, choices, ranges, in one line that names the key.

:func:`to_config` merges what Hydra composed into a fresh schema, so a key that Hydra let pass is still found.
"""

import re
from collections.abc import Iterator
from dataclasses import Field, asdict, fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from histo_lightning.config.aliases import advice
from histo_lightning.config.schema import SCHEMAS, AnyConfig, Config, TuneConfig, short_name
from histo_lightning.errors import UserError

FREE = (
    "model",
    "optimizer",
    "scheduler",
    "callbacks",
    "logger",
)  # built from _target_: checked by its signature
OPEN = ("tune.space", "augment.steps", "trainer")  # checked by what reads them
TARGETS = ("model", "optimizer", "scheduler")  # one object each, so that it has a name


def nearest(given: str, allowed: list[str]) -> str:
    """``; did you mean 'x'?`` or nothing."""
    close = get_close_matches(given, allowed, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


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
        inner = entry.type if isinstance(entry.type, type) else None
        if inner is not None and is_dataclass(inner):
            yield from schema_fields(inner, f"{prefix}{entry.name}.")
        else:
            yield f"{prefix}{entry.name}", entry


def schema_keys(schema: type[AnyConfig] = Config) -> list[str]:
    """Every dotted key of a schema."""
    return [name for name, _ in schema_fields(schema)]


def is_known(name: str, schema: type[AnyConfig]) -> bool:
    """Whether a key is in a schema, or below a group whose inside is checked elsewhere."""
    allowed = schema_keys(schema)
    tops = {key.split(".")[0] for key in allowed}
    below = [free for free in (*FREE, *OPEN) if free.split(".")[0] in tops]
    return name in allowed or any(name.startswith(f"{free}.") for free in below)


def unknown_key(name: str, schema: type[AnyConfig]) -> UserError:
    """The refusal of a key: what it is called here, else the nearest."""
    allowed = schema_keys(schema)
    taught = advice(name)
    groups = sorted({key.split(".")[0] for key in allowed if "." in key} | {"experiment", "debug"})
    where = "every key is in conf/, with a comment; --help lists them"
    return UserError(f"unknown key {name!r}{taught or nearest(name, allowed + groups)} ({where})")


def to_config(composed: DictConfig, schema: type[AnyConfig] = Config) -> AnyConfig:
    """Merge what Hydra composed into a fresh schema and check it.

    Config groups set keys of training too (``dataset=breakhis`` sets ``epochs``); a command without them leaves them out.

    Raises:
        UserError: unknown key, wrong type, or value out of range.
    """
    try:
        given = OmegaConf.to_container(composed, resolve=False)
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0]) from error
    assert isinstance(given, dict)
    given.pop("hydra", None)
    trainer_keys = {entry.name for entry in fields(Config().trainer)}
    groups = {key.rsplit(".", 1)[0] for key in schema_keys() if "." in key}
    for name, _ in flatten(given):
        if not is_known(name, schema) and name not in groups and not is_known(name, Config):
            raise unknown_key(name, schema)
    wanted = {name: value for name, value in given.items() if name in {f.name for f in fields(schema)}}
    if isinstance(wanted.get("trainer"), dict):
        trainer: dict[str, Any] = wanted["trainer"]
        flags = {name: trainer.pop(name) for name in list(trainer) if name not in trainer_keys}
        trainer["flags"] = {**(trainer.get("flags") or {}), **flags}
    try:
        base = OmegaConf.structured(schema)
        for entry in fields(schema):  # what a group's file leaves out is off, not the default option's value
            if isinstance(wanted.get(entry.name), dict):
                base[entry.name] = entry.type() if is_dataclass(entry.type) else {}  # type: ignore[operator]
        config = OmegaConf.to_object(OmegaConf.merge(base, OmegaConf.create(wanted)))
    except OmegaConfBaseException as error:
        name = str(error.full_key or "?")
        raise UserError(
            f"{name}: {str(error.msg or error).splitlines()[0]}{_allowed(name, schema)}"
        ) from error
    assert isinstance(config, schema)
    if isinstance(config, Config):
        _check_names(config)
    if hasattr(config, "trainer"):
        config.trainer.compile = (
            config.trainer.compile.lower()
        )  # true and false come as YAML's True and False
    check(config)
    if not isinstance(config, Config) and hasattr(config, "trainer") and config.trainer.flags:
        raise unknown_key(f"trainer.{next(iter(config.trainer.flags))}", schema)
    return config


def _check_names(config: Config) -> None:
    for group in TARGETS:
        settings = getattr(config, group)
        target = settings.get("_target_")
        if not isinstance(target, str):
            raise UserError(f"{group}._target_ is missing: name a class, or choose {group}=<option>")
        if settings["name"] != short_name(target):
            raise UserError(
                f"{group}.name={settings['name']}: follows from {group}._target_; use {group}={settings['name']}"
            )


def _allowed(name: str, schema: type[AnyConfig]) -> str:
    metadata = dict(schema_fields(schema))[name].metadata if name in schema_keys(schema) else {}
    if "choices" in metadata:
        return f"; allowed are {', '.join(metadata['choices'])}"
    if "low" in metadata:
        return f"; allowed is a number from {metadata['low']:g} to {metadata['high']:g}"
    return ""


def check(config: AnyConfig) -> None:
    """Check every value against its field; raise UserError with the key, what was given and what is allowed."""
    values = dict(flatten(asdict(config)))
    for name, entry in schema_fields(type(config)):
        value = values.get(name)
        if value is not None and entry.metadata:
            _check_value(name, value, entry, values)


def _check_value(name: str, value: Any, entry: Field[Any], values: dict[str, Any]) -> None:
    rules = entry.metadata
    if "choices" in rules and value not in rules["choices"]:
        choices = list(rules["choices"])
        raise UserError(f"{name}={value}: allowed are {', '.join(choices)}{nearest(str(value), choices)}")
    if "items" in rules and not set(value) <= set(rules["items"]):
        raise UserError(f"{name}={value}: allowed are lists of {', '.join(rules['items'])}")
    if "low" in rules and not rules["low"] <= value <= rules["high"]:
        raise UserError(f"{name}={value}: allowed is a number from {rules['low']:g} to {rules['high']:g}")
    if "pattern" in rules and not re.fullmatch(rules["pattern"], value):
        raise UserError(f"{name}={value}: allowed are letters, digits, '.', '_' and '-', at most 100")
    if "only" in rules:
        group = name.split(".")[0]
        option = values[f"{group}.name"]
        if option not in rules["only"]:
            raise UserError(
                f"{name}={value}: has no effect with {group}={option}; it belongs to {', '.join(rules['only'])}"
            )
    if "pair" in rules:
        low, high = rules["pair"]
        if len(value) != 2 or value[0] > value[1] or not all(low <= number <= high for number in value):
            raise UserError(
                f"{name}={value}: allowed are two numbers from {low:g} to {high:g}, the smaller first"
            )


def as_text(tree: Any, *, resolve: bool = False) -> str:
    """A config, or a value of one, as YAML."""
    return OmegaConf.to_yaml(tree, resolve=resolve) if OmegaConf.is_config(tree) else f"{tree}\n"


def literal_keys() -> set[str]:
    """Keys whose value is taken from the command line as it is, whatever is in it."""
    return {
        name
        for schema in SCHEMAS.values()
        for name, entry in schema_fields(schema)
        if entry.metadata.get("literal")
    }


def unhashed_keys() -> set[str]:
    """Keys that change no result: where things go and how fast they run."""
    return {name for name, entry in schema_fields(TuneConfig) if entry.metadata.get("hashed") is False}
