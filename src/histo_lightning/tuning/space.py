"""What is searched: keys of a training run with their ranges or choices, checked like every other key.

Nothing here needs Optuna or torch, so a wrong space stops at once.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from histo_lightning.config import SPACE, check, hashed, nearest, schema_keys
from histo_lightning.config.schema import Config, TuneConfig
from histo_lightning.errors import UserError

Scalar = bool | int | float | str | None
DEPTH = "model.name"  # the key that has a budget of its own for each value
FIELDS = ("low", "high", "log", "step", "choices")
EDGE = 0.05  # share of a range, at either end, that counts as its edge
# Keys that a search must not move, and why.
FIXED = {
    "split": "a study belongs to one split; give it on the command line",
    "dataset": "a study belongs to one data set; give it on the command line",
    "magnification": "trials are compared on the same images; start a study for each magnification",
    "task": "trials are compared on the same task",
    "monitor": "it is what trials are compared by",
    "early_stopping.monitor": "it belongs to what trials are compared by",
    "scored_weights": "it decides which epoch a trial is compared by",
    "target_sensitivity": "it does not change a network",
    "test": "trials never read the test part",
    "seed": "choosing the luckiest seed is not a better setting",
    "trainer": "it decides how fast a run is, not how good",
}
OWN = ("output_dir", "run_name", "sweep_name", "study_name", "json", "resume", "cache_dir", "study")


@dataclass(frozen=True, slots=True)
class Dimension:
    """One searched key. ``kind`` is float, int (``low`` to ``high``, both included) or choice."""

    key: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[Scalar, ...] = ()

    @property
    def ordered(self) -> bool:
        """Whether it has two ends: a range, or choices that are numbers."""
        return self.kind != "choice" or all(
            isinstance(choice, (int, float)) and not isinstance(choice, bool) for choice in self.choices
        )

    def position(self, value: Scalar) -> float | None:
        """Where ``value`` lies: 0 at the lower end, 1 at the upper one, on the scale that is searched; None if unordered."""
        if not self.ordered or not isinstance(value, (int, float)):
            return None
        if self.kind == "choice":
            grid = sorted(float(choice) for choice in self.choices if isinstance(choice, (int, float)))
            return grid.index(float(value)) / (len(grid) - 1) if len(grid) > 1 else None
        low, high, at = float(self.low), float(self.high), float(value)
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low)

    def edge(self, value: Scalar) -> str | None:
        """``low`` or ``high`` where ``value`` is the first or last of a grid, or within a twentieth of a range's end."""
        at = self.position(value)
        if at is None:
            return None
        margin = 0.0 if self.kind == "choice" or self.step else EDGE
        return "low" if at <= margin + 1e-12 else "high" if at >= 1 - margin - 1e-12 else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for ``study.json``."""
        if self.kind == "choice":
            return {"key": self.key, "kind": "choice", "choices": list(self.choices)}
        return {name: getattr(self, name) for name in ("key", "kind", "low", "high", "log", "step")}


@dataclass(frozen=True, slots=True)
class Arm:
    """One search with a budget of its own: a depth, or everything where the depth is not searched."""

    name: str
    fixed: Mapping[str, Scalar]
    dimensions: tuple[Dimension, ...]
    trials: int


def _leaves(space: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Dotted keys and their settings; a key set to null is left out."""
    allowed = schema_keys(Config)
    for name, value in space.items():
        key = f"{prefix}{name}"
        if value is None:
            continue
        if not isinstance(value, dict):
            raise UserError(f"{SPACE}.{key}={value}: give low and high, or choices ({', '.join(FIELDS)})")
        is_group = any(other.startswith(f"{key}.") for other in allowed)
        if is_group or (value and all(isinstance(item, dict) or item is None for item in value.values())):
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value


def _types(key: str) -> set[type]:
    """The types that the schema gives a key of a training run."""
    owner: Any = Config
    for part in key.split("."):
        owner = get_type_hints(owner)[part]
    kinds = get_args(owner) if isinstance(owner, UnionType) else (owner,)
    return {get_origin(kind) or kind for kind in kinds}


def _check_key(key: str) -> None:
    allowed = schema_keys(Config)
    for name, reason in FIXED.items():
        if key == name or key.startswith(f"{name}."):
            raise UserError(f"{SPACE}.{key}: cannot be searched: {reason}")
    if key.split(".")[0] in OWN:
        raise UserError(f"{SPACE}.{key}: cannot be searched: it says where things go, not what is computed")
    if key.endswith(".name") and key != DEPTH:
        raise UserError(
            f"{SPACE}.{key}: cannot be searched: each choice has keys of its own; start a study for each {key.split('.')[0]}"
        )
    if key not in allowed:
        raise UserError(
            f"{SPACE}: unknown key {key!r}{nearest(key, allowed)} (all keys stand in conf/train.yaml)"
        )
    if list in _types(key):
        raise UserError(f"{SPACE}.{key}: cannot be searched: it is a list; numbers, names and switches can")


def _number(key: str, name: str, value: Any, whole: bool) -> float:
    if isinstance(value, str):  # YAML reads 1e-5 as text
        with suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(f"{SPACE}.{key}.{name}={value}: a number is needed")
    if whole and value != int(value):
        raise UserError(f"{SPACE}.{key}.{name}={value}: {key} takes whole numbers")
    return int(value) if whole else float(value)


def _dimension(key: str, given: Mapping[str, Any]) -> Dimension:
    _check_key(key)
    for name in given:
        if name not in FIELDS:
            raise UserError(
                f"{SPACE}.{key}: unknown key {str(name)!r}{nearest(str(name), list(FIELDS))}; allowed are {', '.join(FIELDS)}"
            )
    if given.get("choices") is not None:
        return _choice(key, given)
    types = _types(key) - {NoneType}
    if not types <= {int, float}:
        raise UserError(f"{SPACE}.{key}: is no number, so give choices=[...]")
    for name in ("low", "high"):
        if given.get(name) is None:
            raise UserError(f"{SPACE}.{key}: {name} is missing; give low and high, or choices")
    whole = types == {int}
    low, high = (_number(key, name, given[name], whole) for name in ("low", "high"))
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise UserError(f"{SPACE}.{key}.log={log}: allowed are true and false")
    step = None if given.get("step") is None else _number(key, "step", given["step"], whole)
    if not low < high:
        raise UserError(f"{SPACE}.{key}: low={low:g} must be below high={high:g}")
    if log and low <= 0:
        raise UserError(f"{SPACE}.{key}: low={low:g} must be above 0 on a logarithmic scale")
    if step is not None and (log or not 0 < step <= high - low):
        raise UserError(f"{SPACE}.{key}.step={step:g}: allowed is a number up to high - low, without log")
    if step is not None and abs((high - low) / step - round((high - low) / step)) > 1e-9:
        raise UserError(f"{SPACE}.{key}.step={step:g}: high - low = {high - low:g} must be a multiple of it")
    return Dimension(key, "int" if whole else "float", low, high, log, step)


def _choice(key: str, given: Mapping[str, Any]) -> Dimension:
    choices = given["choices"]
    others = [name for name in given if name != "choices" and given[name] is not None]
    if others:
        raise UserError(f"{SPACE}.{key}: choices and {others[0]} exclude each other")
    if not isinstance(choices, list) or len(choices) < 2:
        raise UserError(f"{SPACE}.{key}.choices={choices}: a list of two or more is needed")
    types = _types(key)
    if types - {NoneType} <= {int, float}:
        whole = types - {NoneType} == {int}
        choices = [
            None if c is None and NoneType in types else _number(key, "choices", c, whole) for c in choices
        ]
    for choice in choices:
        if type(choice) not in types and not {int, float} & types:
            raise UserError(f"{SPACE}.{key}.choices={choices}: {choice!r} is of a wrong type for {key}")
    if len(set(choices)) < len(choices):
        raise UserError(f"{SPACE}.{key}.choices={choices}: one stands there twice")
    return Dimension(key, "choice", choices=tuple(choices))


def read_space(config: TuneConfig) -> tuple[Dimension, ...]:
    """The searched keys in alphabetical order.

    Raises:
        UserError: an unknown key or field, a wrong type, a value out of range, nothing to search.
    """
    found = sorted((_dimension(key, given) for key, given in _leaves(config.tune.space)), key=lambda d: d.key)
    if not [dimension for dimension in found if dimension.key != DEPTH]:
        raise UserError(
            f"{SPACE}: nothing to search{' but the depth' if found else ''}; choose a space with tune=..., "
            "or give tune.space.optimizer.lr.low=1e-4 and .high=1e-1"
        )
    return tuple(found)


def apply(config: TuneConfig, values: Mapping[str, Any]) -> Config:
    """The config of a run with dotted keys set to ``values``; checked, so it raises UserError like a command line."""
    found = Config(**{field.name: deepcopy(getattr(config, field.name)) for field in fields(Config)})
    for key, value in values.items():
        *path, last = key.split(".")
        place: Any = found
        for part in path:
            place = getattr(place, part)
        setattr(place, last, value)
    check(found)
    return found


def arms(config: TuneConfig, dimensions: Sequence[Dimension]) -> tuple[Arm, ...]:
    """One search for each depth, each with the same number of trials; or a single one.

    Raises:
        UserError: the trials cannot be divided equally.
    """
    depth = next((dimension for dimension in dimensions if dimension.key == DEPTH), None)
    others = tuple(dimension for dimension in dimensions if dimension.key != DEPTH)
    trials = config.tune.trials
    if depth is None:
        return (Arm(config.model.name, {}, others, trials),)
    count = len(depth.choices)
    if trials % count:
        lower, upper = trials // count * count, (trials // count + 1) * count
        allowed = f"{lower} or {upper}" if lower else str(upper)
        raise UserError(
            f"tune.trials={trials}: {count} depths share the trials equally, so it must be a multiple of {count} ({allowed})"
        )
    return tuple(Arm(str(name), {DEPTH: name}, others, trials // count) for name in depth.choices)


def folds(config: TuneConfig) -> tuple[int, ...]:
    """The outer folds whose validation parts the objective reads: one, or several with ``nested=false``."""
    return tuple(config.tune.folds or (config.split.fold,))


def check_tuning(config: TuneConfig) -> None:
    """Check the space and the protocol, each end of each range within the whole config; raise UserError."""
    chosen = folds(config)
    if len(set(chosen)) < len(chosen):
        raise UserError(f"tune.folds={list(chosen)}: one stands there twice")
    if len(chosen) > 1 and config.nested:
        raise UserError(
            f"tune.folds={list(chosen)}: a study belongs to one outer fold, since the validation cases of one fold are test "
            "cases of another; nested=false allows it and marks the result as optimistic"
        )
    if config.trainer.strategy == "ddp":
        raise UserError("trainer=ddp: a trial runs in one process; use trainer=gpu tune.workers=<GPUs>")
    if config.resume not in ("auto", "never"):
        raise UserError(
            f"resume={config.resume}: a study takes auto or never; model.weights starts from weights"
        )
    dimensions = read_space(config)
    arms(config, dimensions)
    for dimension in dimensions:
        ends = dimension.choices if dimension.kind == "choice" else (dimension.low, dimension.high)
        for value in ends:
            try:
                apply(config, {dimension.key: value})
            except UserError as error:
                raise UserError(f"{SPACE}.{dimension.key}: {error}") from error
    for fold in chosen:
        apply(config, {"split.fold": fold})


def study_name(config: TuneConfig) -> str:
    """``study_name``, or a readable name of the settings with their hash behind it; ``[A-Za-z0-9._-]`` only."""
    if config.study_name:
        return config.study_name
    searched = {dimension.key for dimension in read_space(config)}
    chosen = "-".join(str(fold) for fold in folds(config))
    parts = [
        config.tune.name,
        *([config.dataset.name] if config.dataset.name != "synthetic" else []),
        *([config.model.name] if DEPTH not in searched else []),
        config.optimizer.name,
        config.magnification,
        f"{config.split.name}-{chosen}",
        *([config.task] if config.task != "binary" else []),
        f"s{config.seed}",
    ]
    return f"{'_'.join(parts)}_{study_hash(config)}"


def study_hash(config: TuneConfig) -> str:
    """Eight hex digits of what decides the trials: not the budget, the workers, ``test`` or where things go."""
    return hashed(replace(config, test=True))
