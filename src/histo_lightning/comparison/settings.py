"""What runs have in common and in what they differ: the level of the factor, the other settings, the protocol.

*Protocol*: data, task, kind of split and its label; only runs of one protocol are compared (``world`` in the record).
*Level*: of the compared factor, e.g. ``resnet34``. *Setting*: everything else that differs, held equal (``stratum`` in the
record). *Replicate*: the seed, and the split's repeat and seed.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from histo_lightning.comparison.reading import COSTS, FACTS, FINISHED, PARTS, defaults
from histo_lightning.config.checks import keys_with
from histo_lightning.data.splits.official import Official
from histo_lightning.evaluation.levels import LEVELS

CELL = ["protocol", "level", "setting", "magnification"]
REPLICATE_KEYS = ("seed", "split.repeat", "split.seed")
REPETITION_KEYS = ("magnification", "split.fold", *REPLICATE_KEYS)
UNREAD_KEYS = ("test", "target_sensitivity")  # what is done after the training, not the training
ENVIRONMENT = "trainer."  # how fast, and on what: differences are warned about, not compared
K_FOLDS = ("case_kfold", "slide_kfold", "image_random")
GROUPED = (*K_FOLDS, Official.name)  # whose split.group follows from the name
IN_PROTOCOL = ("dataset.name", "split.name", "split.folds", "split.clean", "task")
SYNTHETIC = "synthetic"


def settings_of(runs: pd.DataFrame) -> pd.DataFrame:
    """The settings of the runs whose config is known, a column a key."""
    scores = tuple(f"{part}_{level}_" for part in PARTS for level in LEVELS)
    others = {*FACTS, *COSTS, *CELL[:3], "title", "replicate", "fold"}
    keys = [key for key in runs if key not in others and not str(key).startswith(scores)]
    return runs.loc[runs["magnification"].notna(), keys]


def is_of(key: str, factor: str) -> bool:
    """Whether a dotted key belongs to a factor: the key itself, or a key of the group."""
    return key == factor or key.startswith(f"{factor}.")


def varying(settings: pd.DataFrame) -> list[str]:
    """Keys with more than one value, without those of repetitions and of where things go, sorted; a name says its target."""
    left_out = {*REPETITION_KEYS, *UNREAD_KEYS, *keys_with("hashed", False)}
    keys = [str(key) for key in settings if key not in left_out and not str(key).endswith("._target_")]
    texts = {
        key: {json.dumps(value, sort_keys=True, default=str) for value in settings[key] if value == value}
        for key in keys
        if not is_of(key, "study")
    }
    return sorted(key for key, values in texts.items() if len(values) > 1)


def default_factor(settings: pd.DataFrame) -> str:
    """``model`` where it differs, else the first group or key that does."""
    keys = [key for key in varying(settings) if not _is_fixed(key)]
    return "model" if not keys or "model.name" in keys else _group_of(keys[0], keys)


def _group_of(key: str, keys: Sequence[str]) -> str:
    """``optimizer`` for ``optimizer.lr`` where ``optimizer.name`` differs too: a group was chosen, not a key."""
    group = key.split(".")[0]
    return group if f"{group}.name" in keys else key


def _is_fixed(key: str) -> bool:
    return key.startswith((ENVIRONMENT, "dataset.", "split.")) or key == "task"


def names_of(
    settings: pd.DataFrame, group: str, keys: Sequence[str], others: Sequence[str] = ()
) -> "pd.Series[str]":
    """A short name for each run's values of ``keys``: that of the group, with what distinguishes equal names.

    A key is named by its last part (``momentum=0.9``), or as a whole where one of ``others`` ends in the same.
    """
    short = group.split(".")[-1]
    if any(other != group and other.split(".")[-1] == short for other in others):
        short = group
    choice = f"{group}.name"
    column, prefix = (choice, "") if choice in settings else (group, f"{short}=")
    names = prefix + settings.get(column, pd.Series(None, settings.index, dtype=object)).map(value_text)
    for _, own in settings[list(keys)].groupby(names):
        differing = [key for key in varying(own) if key != choice]
        texts = [[f"{key.split('.')[-1]}={value_text(value)}" for value in own[key]] for key in differing]
        if differing:
            names[own.index] += [f" ({', '.join(each)})" for each in zip(*texts, strict=True)]
    return names


def describe_runs(runs: pd.DataFrame, factor: str) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Runs of known settings with the columns of ``CELL``, ``title``, ``replicate`` and ``fold``, sorted by them.

    Of several runs of one cell, replicate and fold a finished one is first, then the newest. ``title`` is level and setting
    in one text. And the other settings that differ: key or group to its values.
    """
    settings = settings_of(runs)
    described = runs.loc[settings.index].copy()
    differing = [key for key in varying(settings) if not key.startswith(ENVIRONMENT) or is_of(key, factor)]
    others = [key for key in differing if not is_of(key, factor)]
    crossed = [key for key in others if not _is_fixed(key)]
    groups = list(dict.fromkeys(_group_of(key, crossed) for key in crossed))
    names = {
        group: names_of(settings, group, [key for key in crossed if is_of(key, group)], [factor, *groups])
        for group in groups
    }
    described["level"] = names_of(settings, factor, [key for key in differing if is_of(key, factor)])
    described["setting"] = [" ".join(each) for each in zip(*names.values(), strict=True)] if names else ""
    described["title"] = (described["level"].astype(object) + " " + described["setting"]).str.strip()
    described["protocol"] = _protocols(described, [key for key in others if _is_fixed(key)])
    keys = described[list(REPLICATE_KEYS)].map(lambda value: int(value or 0))
    described["replicate"] = list(keys.itertuples(index=False, name=None))
    described["fold"] = [int(fold or 0) for fold in described["split.fold"]]
    # Magnifications by size, ``all`` last.
    size = pd.to_numeric(described["magnification"].str.rstrip("x"), errors="coerce").fillna(np.inf)
    natural_names = (described[name].map(natural) for name in ("level", "setting"))
    columns = [described["protocol"], *natural_names, size, described["replicate"], described["fold"]]
    order = dict(zip(described.index, zip(*columns, strict=True), strict=True))
    started = [str(status.get("started") or "") for status in described["status"]]
    newest = dict(
        zip(described.index, zip(described["state"] == FINISHED, started, strict=True), strict=True)
    )
    held = {group: sorted(set(own), key=natural) for group, own in names.items()}
    indices = sorted(sorted(described.index, key=newest.__getitem__, reverse=True), key=order.__getitem__)
    return described.loc[indices], held


def _protocols(runs: pd.DataFrame, differing: Sequence[str]) -> list[str]:
    """A name of data, task, split and label; keys of the data and the split that differ are in it with their values."""
    follows = {*IN_PROTOCOL, *(["split.group"] if runs["split.name"].isin(GROUPED).all() else [])}
    shown = [key for key in differing if key not in follows]
    # Runs that never got a split have the label of the others.
    has_split = runs[runs["split"].astype(bool)]
    kinds = dict(zip(has_split["split.name"], has_split["label"].map(label_kind), strict=True))
    protocols = []
    for _, run in runs.iterrows():
        kind = str(run["split.name"])
        extras = {
            "drawn images": is_synthetic(run) and run["dataset.name"] != SYNTHETIC,
            "cleaned": run["split.clean"],
            str(run["task"]): run["task"] != "binary",
            "all magnifications in one": run["magnification"] == "all",
        }
        parts = [run["dataset.name"], f"{kind} of {run['split.folds']}" if kind in K_FOLDS else kind]
        parts += [text for text, holds in extras.items() if holds]
        parts += [f"{key}={value_text(run[key])}" for key in shown if run[key] is not None]
        label = label_kind(run["label"]) if run["split"] else kinds.get(kind, "")
        protocols.append(", ".join(parts) + (f": {label}" if label else ""))
    return protocols


def is_synthetic(run: Any) -> bool:
    """Whether a run saw drawn images: its result says nothing about tissue."""
    return SYNTHETIC in (run["metrics"].get("data"), run["dataset.name"])


def replicate_text(replicate: Any) -> str:
    """``seed 0 repeat 1`` from (seed, repeat of the split, seed of the split)."""
    names = zip(("seed", "repeat", "split seed"), replicate, strict=True)
    return " ".join(f"{name} {value}" for name, value in names if value or name == "seed")


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


def natural(name: str) -> tuple[tuple[float, str], ...]:
    """Sorts numbers by size, ``resnet50`` before ``resnet101``."""
    parts = re.findall(r"[0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?|[^0-9]+", name)
    return tuple((float(part), "") if part[0] in ".0123456789" else (-1.0, part) for part in parts)


def label_kind(label: str) -> str:
    """``CASE-LEAKY (12 images)`` of one fold and ``CASE-LEAKY (9 images)`` of another are one kind."""
    return label.split(" (", 1)[0]
