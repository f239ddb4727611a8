"""Which kinds the values in a run's JSON files have. A file that somebody made by hand may hold anything."""

from typing import Any

NUMBER = (int, float)
NUMBERS = {"*": NUMBER}
SCORE = dict.fromkeys(("reason", "method"), str) | dict.fromkeys(("value", "low", "high", "cases"), NUMBER)
LEVEL: dict[str, Any] = {"n": NUMBER, "reason": str, "confusion": [[NUMBER]], "recall": {"*": SCORE}}
LEVEL |= {"*": SCORE, "missing_classes": [str], "headline_classes": [str]} | dict.fromkeys(
    ("units", "cases", "kish", "always_malignant"), NUMBERS
)
LEVEL |= {"binary": LEVEL, "at_threshold": LEVEL | {"threshold": NUMBER, "apparent": bool}}
POINT: dict[str, Any] = {"threshold": NUMBER, "temperature": NUMBER, "test": {"*": NUMBERS}}
METRICS: dict[str, Any] = {part: {"*": LEVEL} for part in ("train", "val", "test", "scores")}
METRICS |= {"operating_point": POINT, "temperature": POINT, "cost": {"device": str, "*": NUMBER}}
KINDS: dict[str, Any] = {  # None is allowed everywhere, and keys that are not named hold what they like
    "status.json": {"seconds": NUMBER, "test_read": NUMBER, "versions": {"*": str}, "data_fingerprint": str},
    "split.json": {"parts": {"*": [str]}, "partition_hash": str, "fold": int, "notes": [str]},
    "sweep.json": {"jobs": [{"run": str, "overrides": [str]}], "comparison": {"levels": [object]}},
    "metrics.json": METRICS | {"best_epoch": int, "train_seconds": NUMBER, "monitored": [NUMBER]},
}


def wrong_kind(value: Any, kind: Any, where: str = "") -> str:
    """What is not of its kind: a type, some, a list ``[kind]`` or an object ``{key: kind}`` (``*``: any other key); else empty."""
    inner = list[tuple[str, Any, Any]]()
    if isinstance(kind, dict) and isinstance(value, dict):
        inner = [(key, each, kind.get(key, kind.get("*", object))) for key, each in value.items()]
    elif isinstance(kind, list) and isinstance(value, list):
        inner = [(str(number), each, kind[0]) for number, each in enumerate(value)]
    elif value is not None and (isinstance(kind, dict | list) or not isinstance(value, kind)):
        return f"{where.removeprefix('.') or 'it'} is of a wrong kind"
    elif isinstance(value, int | float) and abs(value) > 1e300:
        return f"{where.removeprefix('.')} is too large"
    return next(filter(None, (wrong_kind(each, own, f"{where}.{key}") for key, each, own in inner)), "")
