"""What runs have in common and in what they differ: the level of the factor, the other settings, the protocol.

*Protocol*: the data, the task, the kind of split and its label; only runs of one protocol are ever compared (the record
calls it ``world``). *Level*: of the compared factor, e.g. ``resnet34``. *Setting*: everything else that differs, held equal
in a comparison (``stratum`` in the record). *Replicate*: the seed, and the split's repeat and seed.
"""

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from histo_lightning.comparison.names import label_kind, magnification_order, natural, value_text
from histo_lightning.comparison.reading import FINISHED, settings_of
from histo_lightning.config import NOT_HASHED

REPLICATE_KEYS = ("seed", "split.repeat", "split.seed")
PLACE_KEYS = ("magnification", "split.fold", *REPLICATE_KEYS)
UNREAD_KEYS = ("test", "target_sensitivity")  # what is done after the training, not the training
ENVIRONMENT = "trainer."  # how fast, and on what: differences are warned about, not compared
K_FOLDS = ("case_kfold", "slide_kfold", "image_random")
GROUPED = (*K_FOLDS, "official")  # whose split.group follows from the name
IN_PROTOCOL = ("dataset.name", "split.name", "split.folds", "split.clean", "task")
CELL = ["protocol", "level", "setting", "magnification"]


def is_of(key: str, factor: str) -> bool:
    """Whether a dotted key belongs to a factor: the key itself, or a key of the group."""
    return key == factor or key.startswith(f"{factor}.")


def varying(settings: pd.DataFrame) -> list[str]:
    """Keys with more than one value, without those of place and of where things go, sorted."""
    texts = settings.map(
        lambda value: json.dumps(value, sort_keys=True, default=str) if value == value else None
    )
    left_out = {*PLACE_KEYS, *UNREAD_KEYS, *NOT_HASHED}
    keys = texts.columns[texts.nunique() > 1]
    return sorted(key for key in keys if key not in left_out and not is_of(key, "study"))


def default_factor(differing: Sequence[str]) -> str:
    """``model`` where it differs, else the first group or key that does."""
    keys = [key for key in differing if not _is_fixed(key)]
    return "model" if not keys or "model.name" in keys else _group_of(keys[0], keys)


def _group_of(key: str, keys: Sequence[str]) -> str:
    """``optimizer`` for ``optimizer.lr`` where ``optimizer.name`` differs too: a group was chosen, not a key."""
    group = key.split(".")[0]
    return group if f"{group}.name" in keys else key


def _is_fixed(key: str) -> bool:
    return key.startswith((ENVIRONMENT, "dataset.", "split.")) or key == "task"


def names_of(
    settings: pd.DataFrame, group: str, keys: Sequence[str], others: Sequence[str] = ()
) -> pd.Series:
    """A short name for each run's values of ``keys``: that of the group, with what tells equal names apart.

    A key is named by its last part (``momentum=0.9``), or as a whole where one of ``others`` ends in the same.
    """
    short = group.split(".")[-1]
    prefix = group if any(other != group and other.split(".")[-1] == short for other in others) else short
    named = f"{group}.name" in settings
    nothing = pd.Series("null", settings.index)
    base = settings.get(f"{group}.name" if named else group, nothing).map(value_text)
    names = base if named else f"{prefix}=" + base
    for _, own in settings[list(keys)].groupby(base):
        told = [key for key in varying(own) if key != f"{group}.name"]
        for index, values in zip(own.index, own[told].to_numpy(object), strict=True) if told else ():
            more = [
                f"{key.split('.')[-1]}={value_text(value)}" for key, value in zip(told, values, strict=True)
            ]
            names[index] += f" ({', '.join(more)})"
    return names


def place_runs(runs: pd.DataFrame, factor: str) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Runs of known settings with the columns of ``CELL``, ``title``, ``replicate`` and ``fold``, sorted by them.

    ``title`` is level and setting in one text. Of several runs of one place a finished one comes before an unfinished one,
    then the newest first.

    Returns:
        The placed runs; and the other settings that differ: key or group to its values.
    """
    settings = settings_of(runs)
    placed = runs.loc[settings.index].copy()
    differing = [key for key in varying(settings) if not key.startswith(ENVIRONMENT) or is_of(key, factor)]
    others = [key for key in differing if not is_of(key, factor) and not _is_fixed(key)]
    groups = list(dict.fromkeys(_group_of(key, others) for key in others))
    names = {
        group: names_of(settings, group, [key for key in others if is_of(key, group)], [factor, *groups])
        for group in groups
    }
    placed["level"] = names_of(settings, factor, [key for key in differing if is_of(key, factor)])
    placed["setting"] = pd.DataFrame(names, index=placed.index).agg(" ".join, axis=1) if names else ""
    placed["title"] = (placed["level"] + " " + placed["setting"]).str.strip()
    placed["protocol"] = _protocols(
        placed, [key for key in differing if _is_fixed(key) and not is_of(key, factor)]
    )
    replicates = settings[list(REPLICATE_KEYS)].map(lambda value: int(value or 0))
    placed["replicate"] = list(replicates.itertuples(index=False, name=None))
    placed["fold"] = settings["split.fold"].map(lambda value: int(value or 0))
    places = placed.to_dict("index")
    order = sorted(places, key=lambda i: (places[i]["state"] == FINISHED, started(places[i])), reverse=True)
    order.sort(key=lambda i: _order(places[i]))
    held = {group: sorted(set(found), key=natural) for group, found in names.items()}
    return placed.loc[order], held


def started(run: Any) -> str:
    """ISO time of a run's last start, empty where it is unknown."""
    return str(run["status"].get("started") or "")


def _order(run: Any) -> tuple[Any, ...]:
    magnification = magnification_order(str(run["magnification"]))
    names = natural(run["level"]), natural(run["setting"])
    return run["protocol"], *names, magnification, run["replicate"], run["fold"]


def _protocols(runs: pd.DataFrame, differing: Sequence[str]) -> pd.Series:
    """A name of data, task, split and label; keys of the data and the split that differ are told apart by value."""
    told = [key for key in differing if key not in IN_PROTOCOL]
    if runs["split.name"].isin(GROUPED).all():
        told = [key for key in told if key != "split.group"]
    # Runs that never got a split have the label of the others.
    kinds = {run["split.name"]: label_kind(run["label"]) for _, run in runs.iterrows() if run["split"]}

    def protocol(run: "pd.Series[Any]") -> str:
        split = str(run["split.name"])
        name = f"{run['dataset.name']}, {split}"
        name += ", drawn images" if is_synthetic(run) and run["dataset.name"] != SYNTHETIC else ""
        name += f" of {run['split.folds']}" if split in K_FOLDS else ""
        name += ", cleaned" if run["split.clean"] else ""
        name += f", {run['task']}" if run["task"] != "binary" else ""
        name += ", all magnifications in one" if run["magnification"] == "all" else ""
        name += "".join(f", {key}={value_text(run[key])}" for key in told if run[key] is not None)
        label = label_kind(run["label"]) if run["split"] else kinds.get(split, "")
        return f"{name}: {label}" if label else name

    return runs.apply(protocol, axis=1)


SYNTHETIC = "synthetic"


def is_synthetic(run: Any) -> bool:
    """Whether a run saw drawn images: its result says nothing about tissue."""
    return SYNTHETIC in (run["metrics"].get("data"), run["dataset.name"])


def replicate_text(replicate: tuple[int, int, int]) -> str:
    """``seed 0 repeat 1``."""
    seed, repeat, split_seed = replicate
    more = f" repeat {repeat}" if repeat else ""
    return f"seed {seed}{more}" + (f" split seed {split_seed}" if split_seed else "")
