"""The proof that no group appears on both sides of a split, and the label of what does."""

from collections.abc import Mapping, Sequence

from histo_lightning.config.schema import SplitConfig
from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.splits.grouping import GROUPS, Parts
from histo_lightning.data.splits.registry import SplitKind
from histo_lightning.errors import UserError

SHUFFLED = "SHUFFLED LABELS"


def label_of(parts: Parts, kind: SplitKind, config: SplitConfig) -> str:
    """Check disjointness by what the kind lets sets share, and say in a label what they share.

    Raises:
        UserError: a case, slide or image is in two parts that must not share it.
    """
    leak = _leak_label(parts, kind, config)
    return "; ".join(filter(None, (leak, SHUFFLED if config.shuffle_labels else "")))


def _leak_label(parts: Parts, kind: SplitKind, config: SplitConfig) -> str:
    if any(not r.case for members in parts.values() for r in members):
        return "GROUPING UNKNOWN"
    for unit in GROUPS[GROUPS.index(kind.unshared(config)) :]:
        _refuse_shared(parts, unit, config.name)
    if kind.clean_validation:
        _refuse_shared(
            {"val": parts["val"], "the others": parts["train"] + parts["test"]}, "case", config.name
        )
    if (kind.group or config.group) == "image":
        return "LEAKY"
    seen = {r.case for part in ("train", "val") for r in parts[part]}
    touched = sum(r.case in seen for r in parts["test"])
    return f"CASE-LEAKY ({touched} images)" if touched else ""


def _refuse_shared(parts: Mapping[str, Sequence[Record]], unit: str, kind: str) -> None:
    first: dict[str, str] = {}
    shared: dict[str, str] = {}
    for part, members in parts.items():
        for name in {getattr(record, unit) for record in members}:
            if first.setdefault(name, part) != part:
                shared[name] = f"{first[name]} and {part}"
    if shared:
        name = min(shared)
        raise UserError(
            f"split={kind}: {len(shared)} {unit}(s) are in two parts, e.g. {unit} {name} in {shared[name]}: that is a leak; "
            "move them to one side (split.group=slide or split.group=image runs it all the same, labelled)"
        )
