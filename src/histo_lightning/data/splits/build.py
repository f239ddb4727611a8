"""From records to a split of any kind, with the proof that no group is on both sides and the label of what is."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from histo_lightning.config.schema import SplitConfig
from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.data.breakhis.records import PARTS, Record, select_magnification, without_twins
from histo_lightning.data.splits.groups import GROUPS, Groups, content_hash, keyed_order
from histo_lightning.data.splits.official import GivenKind
from histo_lightning.data.splits.registry import KINDS, SplitKind, check_split_keys
from histo_lightning.errors import UserError


@dataclass(frozen=True)
class Split:
    """Image names by part (each sorted), with what a reader must know about them.

    ``label``: empty for a split by case, else LEAKY, CASE-LEAKY (n images) or GROUPING UNKNOWN; and SHUFFLED LABELS.
    ``partition_hash`` identifies the assignment of groups to folds over all magnifications.
    """

    kind: str
    label: str
    seed: int
    fold: int
    folds: int
    repeat: int
    group: str
    shuffled_labels: bool
    injection: Mapping[str, float | int] | None
    partition_hash: str
    notes: tuple[str, ...]
    parts: Mapping[str, tuple[str, ...]]
    cases: Mapping[str, tuple[str, ...]]

    @property
    def hash(self) -> str:
        """SHA-256 of the parts as hexadecimal text; another one with shuffled labels, so that nothing pools such runs."""
        shuffled = {"labels": [f"shuffled by case, seed {self.seed}"]} if self.shuffled_labels else {}
        return content_hash({**self.parts, **shuffled})

    def as_dict(self) -> dict[str, Any]:
        """The content of ``split.json``."""
        return dict(json.loads(json.dumps({**asdict(self), "hash": self.hash})))


def build_split(
    records: Sequence[Record], config: SplitConfig, *, magnification: str = "all", task: str = "binary"
) -> Split:
    """Split a data set.

    ``records``: every image of the copy. ``magnification`` (``40x`` ... ``400x`` or ``all``) filters after the groups are
    assigned; ``task`` is ``binary`` or ``subtype`` (leaves out both copies of slide 13412). UserError for a fold out of
    range, too few groups, a leak, no image of that magnification, an empty part or class.
    """
    check_split_keys(config, magnification=magnification, task=task)
    kind = KINDS[config.name]
    records = sorted(labelled(records, config), key=lambda record: record.image)
    members, notes = (records, []) if kind.keeps_twins and task == "binary" else without_twins(records, task)
    if not select_magnification(members, magnification):
        present = ", ".join(f"{m}x" for m in sorted({r.magnification for r in members})) or "nothing"
        raise UserError(f"magnification={magnification}: the data set has no such image; it holds {present}")
    if kind.needs_cases and any(not r.case for r in members):
        advice = "use split=folders or split=file"
        raise UserError(f"split={config.name}: some names do not say their case; {advice}")
    if isinstance(kind, GivenKind):
        draft = kind.draft(members, config, {r.image for r in records} - {r.image for r in members})
    else:
        draft = kind.assign(members, config)
    draft.parts = {part: select_magnification(draft.parts[part], magnification) for part in PARTS}
    draft = kind.refine(draft, config)
    parts = draft.parts
    labels = (_label(parts, kind, config), "SHUFFLED LABELS" if config.shuffle_labels else "")
    return Split(
        kind=config.name,
        label="; ".join(filter(None, labels)),
        **{name: getattr(config, name) for name in ("seed", "fold", "folds", "repeat")},
        group=kind.group or config.group,
        shuffled_labels=config.shuffle_labels,
        injection=draft.injection,
        partition_hash=draft.partition,
        notes=(*notes, *draft.notes, *_class_notes(parts, task)),
        parts={part: tuple(sorted(r.image for r in parts[part])) for part in PARTS},
        cases={part: tuple(sorted({r.case for r in parts[part] if r.case})) for part in PARTS},
    )


def labelled(records: Sequence[Record], config: SplitConfig) -> list[Record]:
    """The records with their own classes or, with ``shuffle_labels``, with shuffled ones: a control of leakage.

    The cases of a copy get each other's classes, by ``config.seed``: the number of cases of each class stays, and the new
    benign cases are the same share of the truly benign as of the truly malignant, as far as whole cases allow: else a
    class would go along with the true one. Subtypes are emptied. UserError where a name does not say its case.
    """
    if not config.shuffle_labels:
        return list(records)
    true_class = {r.case: r.class_name for r in records}
    if "" in true_class:
        raise UserError("split.shuffle_labels=true: some names do not say their case; use BreakHis names")
    cases = [[case for case, true in true_class.items() if true == name] for name in CLASSES]
    benign, malignant = (keyed_order(names, "shuffled labels", config.seed) for names in cases)
    still_benign = math.floor(len(benign) ** 2 / len(true_class) + 0.5)
    now_benign = {*benign[:still_benign], *malignant[: len(benign) - still_benign]}
    return [replace(r, class_name=CLASSES[r.case not in now_benign], subtype="") for r in records]


def _class_notes(parts: Groups, task: str) -> list[str]:
    """Refuse an empty part and a train set without a class; say which classes other sets lack."""
    binary = task == "binary"
    present = {part: {r.class_name if binary else r.subtype for r in parts[part]} for part in PARTS}
    classes = set.union(set(CLASSES if binary else ()), *present.values())
    notes = []
    for part in PARTS:
        if not parts[part]:
            advice = "choose another, or more images"
            raise UserError(f"part {part} is empty at this magnification and fold: {advice}")
        absent = sorted(classes - present[part])
        if absent and part == "train" and binary:
            problem = f"class {absent[0]} is absent from train: nothing can be learned"
            raise UserError(f"{problem}; choose another fold or split")
        if absent:
            notes.append(f"{part} holds no image of {', '.join(absent)}")
    return notes


def _label(parts: Groups, kind: SplitKind, config: SplitConfig) -> str:
    """Check disjointness by what the kind lets sets share, and say in a label what they share."""
    if any(not r.case for members in parts.values() for r in members):
        return "GROUPING UNKNOWN"
    for unit in GROUPS[GROUPS.index(kind.unshared(config)) :]:
        _refuse_shared(parts, unit, config.name)
    if kind.clean_validation:
        others = parts["train"] + parts["test"]
        _refuse_shared({"val": parts["val"], "the others": others}, "case", config.name)
    if (kind.group or config.group) == "image":
        return "LEAKY"
    seen = {r.case for part in ("train", "val") for r in parts[part]}
    touched = sum(r.case in seen for r in parts["test"])
    return f"CASE-LEAKY ({touched} images)" if touched else ""


def _refuse_shared(parts: Groups, unit: str, kind: str) -> None:
    first: dict[str, str] = {}
    shared: dict[str, str] = {}
    for part, members in parts.items():
        for name in {getattr(record, unit) for record in members}:
            if first.setdefault(name, part) != part:
                shared[name] = f"{first[name]} and {part}"
    if shared:
        name = min(shared)
        problem = f"{len(shared)} {unit}(s) are in two parts, e.g. {unit} {name} in {shared[name]}"
        advice = "move them to one side (split.group=slide or image runs it all the same, labelled)"
        raise UserError(f"split={kind}: {problem}: that is a leak; {advice}")
