"""How settings, levels and magnifications are written and sorted."""

import re
from dataclasses import asdict
from functools import cache
from typing import Any

from histo_lightning.config.checks import flatten
from histo_lightning.config.schema import Config


@cache
def defaults() -> dict[str, Any]:
    """Every key of a training config with the schema's value: what a run of an older version used."""
    return dict(flatten(asdict(Config())))


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
