"""Which runs say the same thing twice, and in what the others differ.

Runs are sorted by four questions. *World*: the data, the task, the kind of split and its label; only runs of one world
are ever compared. *Level*: of the compared factor, e.g. ``resnet34``. *Stratum*: every other setting that differs, held
equal in a comparison. *Place*: magnification, replicate (seed and repeat of the split) and fold inside it.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from histo_lightning.config.checks import unhashed_keys
from histo_lightning.run_reading import Run, defaults

REPLICATE_KEYS = ("seed", "split.repeat", "split.seed")
PLACE_KEYS = ("magnification", "split.fold", *REPLICATE_KEYS)
UNREAD_KEYS = ("test", "target_sensitivity")  # what is done after the training, not the training
ENVIRONMENT = "trainer."  # how fast, and on what: differences are told, not compared
GROUPED = ("case_kfold", "slide_kfold", "official", "image_random")  # whose split.group follows from the name
K_FOLDS = ("case_kfold", "slide_kfold", "image_random")


class Replicate(NamedTuple):
    """What makes another training of the same experiment: the run's seed, the split's repeat and seed."""

    seed: int
    repeat: int
    split_seed: int

    def __str__(self) -> str:
        more = f" repeat {self.repeat}" if self.repeat else ""
        return f"seed {self.seed}{more}" + (f" split seed {self.split_seed}" if self.split_seed else "")


class Arm(NamedTuple):
    """A level of the compared factor at fixed other settings."""

    level: str
    stratum: str

    def __str__(self) -> str:
        return f"{self.level} {self.stratum}".strip()


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """Runs of one arm at one magnification: replicate -> fold -> its runs, the newest first."""

    world: str
    arm: Arm
    magnification: str
    runs: Mapping[Replicate, Mapping[int, Sequence[Run]]]

    @property
    def all_runs(self) -> list[Run]:
        return [run for folds in self.runs.values() for runs in folds.values() for run in runs]


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """All cells, and how they were named.

    Attributes:
        factor: what is compared, a group (``model``) or a key (``optimizer.lr``).
        cells: in order of world, level, stratum, magnification.
        held: the other settings that differ: key or group to its values.
        unplaced: runs whose settings are unknown.
        settings: the config of one run of each arm.
    """

    factor: str
    cells: Sequence[Cell]
    held: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unplaced: Sequence[Run] = ()
    settings: Mapping[Arm, Mapping[str, Any]] = field(default_factory=dict)

    def levels(self) -> list[str]:
        return list(dict.fromkeys(cell.arm.level for cell in self.cells))


def magnification_order(name: str) -> tuple[int, str]:
    """40x, 100x, 200x, 400x, then ``all``."""
    digits = name.rstrip("x")
    return (int(digits) if digits.isdigit() else 10**6, name)


def natural(name: str) -> tuple[tuple[float, str], ...]:
    """Sorts numbers by size and ``resnet50`` before ``resnet101``."""
    parts = re.findall(r"[0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?|[^0-9]+", name)
    return tuple((float(part), "") if part[0] in ".0123456789" else (-1.0, part) for part in parts)


def label_kind(label: str) -> str:
    """``CASE-LEAKY (12 images)`` of one fold and ``CASE-LEAKY (9 images)`` of another are one kind."""
    return label.split(" (", 1)[0]


def is_of(key: str, factor: str) -> bool:
    """Whether a dotted key belongs to a factor: the key itself, or a key of the group."""
    return key == factor or key.startswith(f"{factor}.")


def replicate_of(run: Run) -> Replicate:
    return Replicate(*(int(run.config.get(key) or 0) for key in REPLICATE_KEYS))


def world_of(run: Run, kinds: Mapping[str, str], differing: Sequence[str]) -> str:
    """A name of data, task, split and label; runs of different worlds are never compared.

    Args:
        run: with a config.
        kinds: the split's name to the label of the runs that have one, for those that never got so far.
        differing: keys of the data and the split that are told apart by their values.
    """
    config = run.config
    split = str(config["split.name"])
    name = f"{config['dataset.name']}, {split}"
    name += f" of {config['split.folds']}" if split in K_FOLDS else ""
    name += ", cleaned" if config["split.clean"] else ""
    name += f", {config['task']}" if config["task"] != "binary" else ""
    name += ", all magnifications in one" if config["magnification"] == "all" else ""
    name += "".join(f", {key}={value_text(config[key])}" for key in differing if config.get(key) is not None)
    label = label_kind(run.label) if run.split else kinds.get(split, "")
    return f"{name}: {label}" if label else name


def varying(configs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Keys with more than one value, without those of place, of the environment and of where things go."""
    values: dict[str, set[str]] = defaultdict(set)
    for config in configs:
        for key, value in config.items():
            values[key].add(_text(value))
    left_out = {*PLACE_KEYS, *UNREAD_KEYS, *unhashed_keys()}
    kept = (key for key, found in values.items() if len(found) > 1 and key not in left_out)
    return sorted(key for key in kept if not is_of(key, "study"))


def environment_keys(configs: Sequence[Mapping[str, Any]], factor: str) -> list[str]:
    """Differing keys of ``trainer``, unless they are what is compared."""
    return [key for key in varying(configs) if key.startswith(ENVIRONMENT) and not is_of(key, factor)]


def default_factor(runs: Sequence[Run]) -> str:
    """``model`` where it differs, else the first group or key that does."""
    keys = [key for key in varying(run.config for run in runs if run.config) if not _is_fixed(key)]
    return "model" if not keys or "model.name" in keys else group_of(keys[0], keys)


def group_of(key: str, keys: Sequence[str]) -> str:
    """``optimizer`` for ``optimizer.lr`` where ``optimizer.name`` differs too: a group was chosen, not a key."""
    group = key.split(".")[0]
    return group if f"{group}.name" in keys else key


def _is_fixed(key: str) -> bool:
    return key.startswith((ENVIRONMENT, "dataset.", "split.")) or key == "task"


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def value_text(value: Any) -> str:
    """A setting as a person writes it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def level_text(value: str) -> str:
    """A level's value as ``value_text`` has it: ``reference=true`` reaches us as Python's ``True``."""
    return {"True": "true", "False": "false", "None": "null"}.get(value, value)


def level_name(factor: str, value: str) -> str:
    """The level of a factor that a plan or a person calls ``value``: ``lr=0.1`` for the 0.1 of a key, else the choice."""
    short = f"{factor.split('.')[-1]}="
    is_key = factor in defaults() and not value.startswith(short)
    return f"{short}{level_text(value)}" if is_key else value


def names_of(
    configs: Sequence[Mapping[str, Any]], group: str, keys: Sequence[str], others: Sequence[str] = ()
) -> dict[str, str]:
    """A short name for each distinct setting of ``keys``: that of the group, with what tells equal names apart.

    A key is told by its last part (``momentum=0.9``), or as a whole where one of ``others`` ends in the same.

    Returns:
        The signature of a setting (see ``signature``) to its name.
    """
    distinct = {signature(config, keys): config for config in configs}
    grouped: dict[str, list[str]] = defaultdict(list)
    for sign, config in distinct.items():
        grouped[value_text(config.get(f"{group}.name", config.get(group)))].append(sign)
    short = group.split(".")[-1]
    told = group if any(other != group and other.split(".")[-1] == short for other in others) else short
    found = {}
    for name, signs in grouped.items():
        differing = varying(distinct[sign] for sign in signs)
        own = [key for key in keys if key in differing and key != f"{group}.name"]
        for sign in signs:
            more = ", ".join(f"{key.split('.')[-1]}={value_text(distinct[sign].get(key))}" for key in own)
            known = name if f"{group}.name" in distinct[sign] else f"{told}={name}"
            found[sign] = f"{known} ({more})" if more else known
    return found


def signature(config: Mapping[str, Any], keys: Sequence[str]) -> str:
    return _text([config.get(key) for key in keys])


def build_design(runs: Sequence[Run], factor: str) -> Design:
    """Sort runs into cells; a finished run comes before an unfinished one, then the newest first."""
    known = [run for run in runs if run.config]
    configs = [run.config for run in known]
    differing = [key for key in varying(configs) if not key.startswith(ENVIRONMENT) or is_of(key, factor)]
    own = sorted({key for config in configs for key in config if is_of(key, factor)} & set(differing))
    held_keys = [key for key in differing if not is_of(key, factor) and not _is_fixed(key)]
    groups = list(dict.fromkeys(group_of(key, held_keys) for key in held_keys))
    keys_of = {group: [key for key in held_keys if is_of(key, group)] for group in groups}
    levels = names_of(configs, factor, own)
    strata = {group: names_of(configs, group, keys, [factor, *groups]) for group, keys in keys_of.items()}

    def arm(run: Run) -> Arm:
        others = (strata[group][signature(run.config, keys)] for group, keys in keys_of.items())
        return Arm(levels[signature(run.config, own)], " ".join(others))

    kinds = {str(run.config["split.name"]): label_kind(run.label) for run in known if run.split}
    in_names = ("dataset.name", "split.name", "split.folds", "split.clean", "task")
    data_keys = [
        key for key in differing if _is_fixed(key) and key not in in_names and not is_of(key, factor)
    ]
    if all(str(config["split.name"]) in GROUPED for config in configs):
        data_keys = [key for key in data_keys if key != "split.group"]
    sorted_runs: dict[tuple[str, Arm, str], list[Run]] = defaultdict(list)
    settings: dict[Arm, Mapping[str, Any]] = {}
    for run in known:
        placed = arm(run)
        settings.setdefault(placed, run.config)
        world = world_of(run, kinds, data_keys)
        sorted_runs[world, placed, str(run.config["magnification"])].append(run)
    order = sorted(
        sorted_runs,
        key=lambda name: (name[0], *map(natural, name[1]), magnification_order(name[2])),
    )
    cells = [Cell(*name, _by_place(sorted_runs[name])) for name in order]
    held = {group: sorted(set(names.values()), key=natural) for group, names in strata.items()}
    return Design(factor, cells, held, [run for run in runs if not run.config], settings)


def _by_place(runs: Sequence[Run]) -> dict[Replicate, dict[int, list[Run]]]:
    found: dict[Replicate, dict[int, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in sorted(runs, key=lambda run: (run.finished, run.started), reverse=True):
        found[replicate_of(run)][int(run.config.get("split.fold") or 0)].append(run)
    return {replicate: dict(sorted(found[replicate].items())) for replicate in sorted(found)}
