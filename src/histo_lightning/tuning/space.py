"""What a study searches: keys of a training run with ranges or choices, one search for each depth of network."""

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from optuna.distributions import CategoricalDistribution as Choices
from optuna.distributions import FloatDistribution as Floats
from optuna.distributions import IntDistribution as Integers

from histo_lightning.config.checks import flatten, nearest
from histo_lightning.config.compose import config_of
from histo_lightning.config.identity import readable_name
from histo_lightning.config.schema import MONITORS, Config, TuneConfig
from histo_lightning.config.tree import conf_dir
from histo_lightning.errors import UserError

Distribution = Choices | Floats | Integers
SPACE = "tune.space"
FIELDS = ["low", "high", "log", "step", "choices"]  # of a searched key
DEPTH = "model"  # the group that has a budget of its own for each choice
EDGE = 0.05  # share of a range, at either end, that counts as its edge
OWN = ("tune", "nested", "study_name")  # keys of the search itself, which a run does not have
# Keys that are the same in all trials, or no part of a run.
FIXED = re.compile(
    r"(split|dataset|magnification|task|monitor|scored_weights|target_sensitivity|test|seed|trainer|experiment|study|nested|"
    r"tune|output_dir|run_name|sweep_name|study_name|json|resume|cache_dir)(\..+)?|.+\.monitor"
)


@dataclass(frozen=True)
class Search:
    """One Optuna study: the keys that are searched for one depth, or for the only one."""

    name: str
    fixed: Mapping[str, Any]
    space: Mapping[str, Distribution]
    trials: int


@dataclass(frozen=True)
class Plan:
    """A study in its folder; ``hydra`` holds texts for the ``.hydra/`` of run folders, ``overrides.yaml`` among them."""

    folder: Path
    config: TuneConfig
    hydra: Mapping[str, str]

    @cached_property
    def searches(self) -> tuple[Search, ...]:
        return searches(self.config)

    @property
    def folds(self) -> tuple[int, ...]:
        """The outer folds whose validation sets the objective reads: one, or several with ``nested=false``."""
        return tuple(self.config.tune.folds or (self.config.split.fold,))

    @property
    def minimise(self) -> bool:
        return MONITORS[self.config.monitor] == "min"

    @property
    def warmup_epochs(self) -> int:
        """Epochs before a trial can be pruned."""
        return self.config.tune.warmup_epochs or max(1, self.config.epochs // 4)

    def run_config(self, values: Mapping[str, Any], fold: int, **changes: Any) -> Config:
        """The checked config of a run: the command line's, with a setting, a fold and ``changes`` in its place; UserError."""
        settings = {**values, "json": None, "resume": "auto", "split.fold": fold, **changes}
        about_hydra = yaml.safe_load(self.hydra.get("hydra.yaml", "hydra: {overrides: {hydra: []}}"))
        given = [line for line in about_hydra["hydra"]["overrides"]["hydra"] if "searchpath" in line]
        for override in yaml.safe_load(self.hydra["overrides.yaml"]):
            key = override.partition("=")[0].lstrip("+~")
            if key.split(".")[0] not in OWN and key not in settings:
                given.append(override)
        config = config_of("train", overrides(settings), prepared=given)
        assert isinstance(config, Config)
        return config

    def run_name(self, search: Search, number: int) -> str:
        """A trial's run folder without its hash, by which a trial that is taken up again finds its run."""
        return f"trial_{search.name}_{number:04d}" if len(self.searches) > 1 else f"trial_{number:04d}"


def _distribution(key: str, value: Mapping[str, Any], present: Mapping[str, Any]) -> Distribution:
    """Numbers are whole where the key's present value is, or where it has none and all are written without a point."""
    group = (conf_dir() / key).is_dir()
    if FIXED.fullmatch(key):
        problem = "cannot be searched: trials share data, split, seed and what compares them"
        raise UserError(f"{SPACE}.{key}: {problem}")
    if key not in present and not group:
        raise UserError(f"{SPACE}: unknown key {key!r}{nearest(key, list(present))}")
    try:
        choices, log = value.get("choices"), value.get("log", False)
        numbers = {name: float(value[name]) for name in ("low", "high", "step") if name in value}
        if not isinstance(log, bool):
            raise ValueError(f"log={log} is not a valid bool")
        if choices is not None:
            if numbers or log:
                raise ValueError("choices and a range exclude each other")
            if not isinstance(choices, list) or len(set(map(repr, choices))) < max(2, len(choices)):
                raise ValueError(f"choices={choices}: two or more are needed, each once")
            return Choices(choices)
        if group or isinstance(present[key], (str, bool, list)):
            raise ValueError("is no number, so give choices=[...]")
        if not {"low", "high"} <= set(numbers):
            raise ValueError("low or high is missing; give both, or choices")
        unset = present[key] is None and all(type(value[name]) is int for name in numbers)
        with warnings.catch_warnings(action="error"):  # Optuna's, of a step that does not fit
            if not unset and type(present[key]) is not int:
                return Floats(**numbers, log=log)
            if not all(number.is_integer() for number in numbers.values()):
                raise ValueError("takes whole numbers")
            return Integers(**{name: int(number) for name, number in numbers.items()}, log=log)
    except (TypeError, ValueError, UserWarning) as error:
        raise UserError(f"{SPACE}.{key}: {str(error).splitlines()[0]}") from error


def searches(config: TuneConfig) -> tuple[Search, ...]:
    """One search for each depth, each with the same number of trials, or a single one; UserError where that cannot be."""
    present, trials = dict(flatten(asdict(config))), config.tune.trials
    given: dict[str, dict[str, Any]] = {}
    for path, value in flatten(config.tune.space):
        key, _, field = path.rpartition(".")
        if value is not None:
            if field not in FIELDS:
                hint = f"{nearest(field, FIELDS)}; give low and high, or choices"
                raise UserError(f"{SPACE}.{path}={value}: unknown key {field!r}{hint}")
            given.setdefault(key, {})[field] = value
    space = {key: _distribution(key, value, present) for key, value in sorted(given.items())}
    depth = space.pop(DEPTH, None)
    if not space:
        raise UserError(f"{SPACE}: nothing to search{' but the depth' if depth else ''}; choose tune=<space>")
    if not isinstance(depth, Choices):
        return (Search(config.model["name"], {}, space, trials),)
    count = len(depth.choices)
    if trials % count:
        multiple = -(-trials // count) * count
        raise UserError(f"tune.trials={trials}: {count} depths share them equally; a multiple is {multiple}")
    return tuple(Search(str(name), {DEPTH: name}, space, trials // count) for name in depth.choices)


def check_tuning(config: TuneConfig) -> None:
    """Check the protocol and the space; raise UserError. The ends of its ranges are checked as configs of runs later."""
    folds = config.tune.folds or []
    if len(set(folds)) < len(folds):
        raise UserError(f"tune.folds={folds}: a fold is given twice")
    if len(folds) > 1 and config.nested:
        reason = "a study belongs to one outer fold, since the validation cases of one fold are test cases of another"
        mend = "nested=false allows it and marks the result as optimistic"
        raise UserError(f"tune.folds={folds}: {reason}; {mend}")
    if config.trainer.strategy == "ddp":
        raise UserError("trainer=ddp: a trial runs in one process; use trainer=gpu, the command once a GPU")
    if config.resume not in ("auto", "never"):
        raise UserError(f"resume={config.resume}: a study takes auto or never")
    searches(config)


def corners(search: Search) -> list[dict[str, Any]]:
    """Settings that hold both ends of every range and each choice at least once."""
    ends = {key: d.choices if isinstance(d, Choices) else (d.low, d.high) for key, d in search.space.items()}
    return [
        {**search.fixed} | {key: values[min(number, len(values) - 1)] for key, values in ends.items()}
        for number in range(max(map(len, ends.values())))
    ]


def edge(distribution: Distribution, value: Any) -> str | None:
    """``low`` or ``high`` at the least or greatest of numeric choices, or in a range's outer twentieth as searched; else None."""
    if isinstance(distribution, Choices):
        numbers: Any = distribution.choices
        if any(isinstance(choice, (bool, str, type(None))) for choice in numbers):
            return None
        return {min(numbers): "low", max(numbers): "high"}.get(value)
    scale = math.log if distribution.log else float
    low, high, margin = scale(distribution.low), scale(distribution.high), EDGE + 1e-12
    position = (scale(value) - low) / (high - low) if high > low else 0.5
    return "low" if position <= margin else "high" if position >= 1 - margin else None


def overrides(values: Mapping[str, Any]) -> list[str]:
    """A setting as a command line takes it."""
    plain = {"True": "true", "False": "false", "None": "null"}
    return [f"{key}={plain.get(str(value), value)}" for key, value in values.items()]


def study_name(config: TuneConfig) -> str:
    """``study_name``, or the space's and a readable name of the settings with their hash, not of the budget, behind it."""
    name = readable_name(replace(config, test=True, run_name=None))
    if config.tune.space.get(DEPTH):
        name = name.replace(f"{config.model['name']}_", "", 1)
    return config.study_name or f"{config.tune.name}_{name}"
