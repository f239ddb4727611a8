"""How numbers, counts, parts and labels read wherever a person meets them."""

import re
from collections.abc import Mapping
from typing import Any

from histo_lightning.evaluation.levels import is_grouped
from histo_lightning.evaluation.table import Table

Json = Mapping[str, Any]
PART_NAMES = {"train": "train", "val": "validation", "test": "test"}
NOTHING = "\N{EN DASH}"
COVERS = "other cases from the same source, these trained models only"
SYNTHETIC = "SYNTHETIC IMAGES: says nothing about tissue"
SHUFFLED = "SHUFFLED LABELS"
COLLAPSED = "eight subtypes as malignant or benign"
_MODELS = {"resnet": "ResNet", "resnext": "ResNeXt", "wide_resnet": "Wide ResNet"}
_OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop"}


def level_scores(metrics: Json, part: str, level: str) -> Json:
    """Benign-against-malignant scores of a level of ``metrics.json``, empty where the part or level was not scored."""
    scores: Json = (metrics.get(part) or {}).get(level) or {}
    return scores.get("binary") or scores


def score_value(metrics: Json, part: str, level: str, score: str) -> float | None:
    """One score of ``metrics.json``, or None."""
    value = (level_scores(metrics, part, level).get(score) or {}).get("value")
    return None if value is None else float(value)


def part_of(table: Table) -> str:
    """``test set``, ``validation set``, ... of a table of one part."""
    part = str(table.part[0]) if len(table) else "empty"
    return f"{PART_NAMES.get(part, part)} set"


def levels_of(table: Table) -> list[str]:
    """The levels that a picture shows: images, and cases where they are known."""
    return ["image", "case"] if is_grouped(table) else ["image"]


def fixed(value: float | None, decimals: int = 3) -> str:
    """A number with a minus sign that cannot be read as a dash; a dash for None."""
    return NOTHING if value is None else f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def signed(value: float | None, decimals: int = 3) -> str:
    """A difference with its sign."""
    return ("+" if value is not None and value > 0 else "") + fixed(value, decimals)


def counted(count: int, what: str) -> str:
    """``1 case``, ``3 cases``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """``4.2 s``, ``1 min 33 s``, ``2 h 5 min``."""
    if seconds is None:
        return "not recorded"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def interval_text(score: Json, decimals: int = 3) -> str:
    """``0.834 (0.80 to 0.86)`` of an entry of ``metrics.json``; a dash where it is undefined."""
    low, high = score.get("low"), score.get("high")
    interval = "" if low is None or high is None else f" ({fixed(low, 2)} to {fixed(high, 2)})"
    return f"{fixed(score.get('value'), decimals)}{interval}"


def is_synthetic(record: Json, config: Json | None = None) -> bool:
    """Whether results rest on drawn images, as ``data`` says or, in older records, the config."""
    return (record.get("data") or ((config or {}).get("dataset") or {}).get("name")) == "synthetic"


def labels_of(record: Json, split_label: str = "", config: Json | None = None) -> list[str]:
    """What must be seen beside a result: drawn images, a shortened run, a leaky split; empty for a plain one."""
    drawn = SYNTHETIC if is_synthetic(record, config) else ""
    return [label for label in (drawn, str(record.get("shortened") or ""), split_label) if label]


def model_title(name: str) -> str:
    """``resnet34`` as ``ResNet-34``, ``resnext50_32x4d`` as ``ResNeXt-50 32x4d``; other names as they are."""
    parts = re.fullmatch(r"([a-z_]+?)(\d+)(?:_(\w+))?", name)
    if parts is None or parts[1] not in _MODELS:
        return name
    return f"{_MODELS[parts[1]]}-{parts[2]}" + (f" {parts[3]}" if parts[3] else "")


def option_name(group: Json) -> str:
    """The name of a config group's option: its ``name``, else the last part of its ``_target_``."""
    return str(group.get("name") or str(group.get("_target_") or "").rpartition(".")[2])


def run_title(config: Json, split: Json) -> str:
    """``ResNet-34, SGD, 40X, fold 0 of 5``: empty parts are left out."""
    optimizer = option_name(config.get("optimizer") or {})
    magnification = str(config.get("magnification") or "").replace("x", "X")
    parts = [model_title(option_name(config.get("model") or {})), _OPTIMIZERS.get(optimizer, optimizer)]
    parts.append("all magnifications" if magnification == "all" else magnification)
    if isinstance(split.get("fold"), int):
        folds = f" of {split['folds']}" if isinstance(split.get("folds"), int) else ""
        parts.append(f"fold {split['fold']}{folds}")
    return ", ".join(part for part in parts if part)
