"""Splits: which image is in which part, and the proof that no group stands on both sides.

Every way to split ends in one :class:`Split`. Groups (cases or slides) are assigned over all magnifications
and filtered afterwards, so the partition does not depend on the magnification.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from histo_lightning.data.assignment import assign, keyed_order
from histo_lightning.data.given_parts import given_parts
from histo_lightning.data.injection import Injected, injection_parts
from histo_lightning.data.names import CLASSES
from histo_lightning.data.official import official_parts, size_matched
from histo_lightning.data.records import PARTS, Record
from histo_lightning.data.shuffling import labelled
from histo_lightning.data.split_checks import label_of
from histo_lightning.data.split_files import read_parts
from histo_lightning.data.split_plan import KINDS, SHUFFLED_KINDS, Parts, by_group, group_of
from histo_lightning.data.split_plan import SplitPlan as SplitPlan
from histo_lightning.errors import UserError

TWIN_KEPT, TWIN_DROPPED = "DC-14-13412", "LC-14-13412"
MOST_FOLDS = 16  # the full set has 16 benign cases


@dataclass(frozen=True)
class Split:
    """Image names by part (each sorted), with what a reader must know about them.

    ``label`` is empty for a split by case, else LEAKY, CASE-LEAKY (n images) or GROUPING UNKNOWN, and SHUFFLED LABELS
    after it where classes were shuffled. ``injection`` says what was put into train (``kind="injection"`` only).
    ``partition_hash`` identifies the assignment of groups to folds over all magnifications.
    """

    kind: str
    seed: int
    fold: int
    folds: int
    repeat: int
    group: str
    label: str
    parts: Mapping[str, tuple[str, ...]]
    cases: Mapping[str, tuple[str, ...]]
    partition_hash: str
    notes: tuple[str, ...] = field(default=())
    shuffled_labels: bool = False
    injection: Mapping[str, float | int] | None = None

    @property
    def hash(self) -> str:
        """SHA-256 of the parts, as hexadecimal text: the same images in the same parts give the same hash.

        Shuffled labels make it another one, so that nothing can pool or compare such runs with others.
        """
        shuffled = {"labels": [f"shuffled by case, seed {self.seed}"]} if self.shuffled_labels else {}
        return content_hash({**self.parts, **shuffled})

    def as_dict(self) -> dict[str, Any]:
        """The content of ``split.json``."""
        return {
            "kind": self.kind,
            "label": self.label,
            "seed": self.seed,
            "fold": self.fold,
            "folds": self.folds,
            "repeat": self.repeat,
            "group": self.group,
            "shuffled_labels": self.shuffled_labels,
            "injection": None if self.injection is None else dict(self.injection),
            "hash": self.hash,
            "partition_hash": self.partition_hash,
            "notes": list(self.notes),
            "parts": {part: list(names) for part, names in self.parts.items()},
            "cases": {part: list(cases) for part, cases in self.cases.items()},
        }


def content_hash(parts: Mapping[str, Iterable[str]]) -> str:
    """SHA-256 of image names by part, independent of their order."""
    canonical = json.dumps({part: sorted(names) for part, names in parts.items()}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def without_twins(records: Sequence[Record], task: str) -> tuple[list[Record], list[str]]:
    """Drop what slide 13412 doubles: its LC copy where DC is present, both for ``task=subtype``."""
    present = {r.slide for r in records if r.slide in (TWIN_KEPT, TWIN_DROPPED)}
    if task == "subtype" and present:
        kept = [r for r in records if r.slide not in present]
        return kept, [
            f"slide 13412 stands in the set as DC and as LC: {len(records) - len(kept)} images left out"
        ]
    if present == {TWIN_KEPT, TWIN_DROPPED}:
        kept = [r for r in records if r.slide != TWIN_DROPPED]
        return kept, [
            f"slide 13412 stands in the set twice: its LC copy ({len(records) - len(kept)} images) left out"
        ]
    return list(records), []


def _folds(records: Sequence[Record], plan: SplitPlan) -> list[list[Record]]:
    """The folds of a k-fold split, over all magnifications."""
    if not 2 <= plan.folds <= MOST_FOLDS:
        raise UserError(
            f"split.folds={plan.folds}: give 3 to {MOST_FOLDS} (the full set has 16 benign cases)"
        )
    if plan.folds == 2:
        raise UserError(
            "split.folds=2 leaves no training part (one fold tests, the next validates): give at least 3"
        )
    if not 0 <= plan.fold < plan.folds:
        raise UserError(f"split.fold={plan.fold}: out of range, allowed are 0 to {plan.folds - 1}")
    if plan.kind == "image_random":
        order = keyed_order([r.image for r in records], "image_random", plan.seed, plan.repeat)
        turn = {image: i % plan.folds for i, image in enumerate(order)}
        return [[r for r in records if turn[r.image] == fold] for fold in range(plan.folds)]
    members = by_group(records, plan.group)
    rarest = Counter(group[0].class_name for group in members.values())
    for class_name in CLASSES:
        if rarest[class_name] < plan.folds:
            raise UserError(
                f"split.folds={plan.folds}: the copy holds only {rarest[class_name]} {class_name} {plan.group}(s) and "
                f"every fold needs one: give split.folds={max(rarest[class_name], 3)} or more images"
            )
    names = assign(members, plan.folds, seed=plan.seed, repeat=plan.repeat)
    return [[r for name in fold for r in members[name]] for fold in names]


def _kfold_parts(records: Sequence[Record], plan: SplitPlan) -> tuple[Parts, str]:
    folds = _folds(records, plan)
    validating = (plan.fold + 1) % plan.folds
    parts: Parts = {
        "train": [r for k, fold in enumerate(folds) if k not in (plan.fold, validating) for r in fold],
        "val": folds[validating],
        "test": folds[plan.fold],
    }
    if (
        plan.kind == "slide_kfold"
    ):  # validation must share no case: slides with siblings elsewhere go to train
        elsewhere = {r.case for part in ("train", "test") for r in parts[part]}
        parts["train"] = parts["train"] + [r for r in parts["val"] if r.case in elsewhere]
        parts["val"] = [r for r in parts["val"] if r.case not in elsewhere]
    return parts, content_hash({str(k): [group_of(r, plan.group) for r in f] for k, f in enumerate(folds)})


def select_magnification(records: Sequence[Record], magnification: str) -> list[Record]:
    """Records of one magnification (``40x``); ``all`` and names without magnification stay."""
    if magnification == "all":
        return list(records)
    wanted = int(magnification.rstrip("x"))
    return [r for r in records if r.magnification in (wanted, 0)]


def build_split(
    records: Sequence[Record],
    plan: SplitPlan,
    *,
    magnification: str = "all",
    task: str = "binary",
    folder_parts: Mapping[str, Sequence[str]] | None = None,
) -> Split:
    """Split a data set.

    Args:
        records: every image of the copy, all magnifications.
        plan: how; see :class:`SplitPlan`.
        magnification: ``40x`` ... ``400x`` or ``all``; filters after the groups are assigned.
        task: ``binary`` or ``subtype`` (leaves out both copies of slide 13412).
        folder_parts: image names by part, for ``kind="folders"``.

    Raises:
        UserError: fold out of range, too few groups, a leak in a given split, no image of that magnification,
            a class absent from train, or an empty part.
    """
    if plan.kind not in KINDS:
        raise UserError(f"split.kind={plan.kind}: allowed are {', '.join(KINDS)}")
    if plan.shuffle_labels and plan.kind not in SHUFFLED_KINDS:
        raise UserError(f"split.shuffle_labels=true: is for split={', '.join(SHUFFLED_KINDS)}")
    if plan.kind == "injection" and magnification == "all":
        raise UserError(
            "split=injection: a field is photographed at every magnification, so siblings are told apart at one only; "
            "give magnification=40x, 100x, 200x or 400x"
        )
    records = labelled(records, plan)
    keeps_twins = plan.kind == "official" and task == "binary"
    members, notes = (list(records), []) if keeps_twins else without_twins(records, task)
    if magnification != "all" and not select_magnification(members, magnification):
        there = ", ".join(f"{m}x" for m in sorted({r.magnification for r in members}))
        raise UserError(
            f"magnification={magnification}: the data set holds no such image; it holds {there or 'nothing'}"
        )
    more: list[str] = []
    if plan.kind in ("case_kfold", "slide_kfold", "image_random", "injection"):
        if plan.kind != "image_random" and any(not r.case for r in members):
            raise UserError(
                f"split={plan.kind}: some names do not say their case; use split=folders or split=file"
            )
        parts, partition = _kfold_parts(members, plan)
        if plan.folds > 5:
            more.append(
                f"{plan.folds} folds leave fewer than 3 benign test cases in each: intervals will be wide"
            )
    elif plan.kind == "official":
        parts, more = official_parts(members, plan)
        partition = content_hash({part: {r.slide for r in parts[part]} for part in PARTS})
    else:
        if plan.kind == "folders" and folder_parts is None:
            raise UserError(
                "split=folders needs dataset=folders: a tree train/, val/, test/ of class folders"
            )
        given = folder_parts if plan.kind == "folders" else read_parts(plan.path)
        dropped = {r.image for r in records} - {r.image for r in members}
        kept = {part: [i for i in names if i not in dropped] for part, names in (given or {}).items()}
        parts, more = given_parts(members, kept, plan.path or "dataset.root")
        partition = content_hash(kept)
    parts = {part: select_magnification(parts[part], magnification) for part in PARTS}
    injected: Injected | None = None
    if plan.kind == "injection":
        parts, injected, noted = injection_parts(parts, plan.injected or 0.0, plan.seed)
        partition = content_hash({"folds": [partition], "injection": [f"seed {plan.seed}"]})
        more += noted
    if plan.matched:
        parts, noted = size_matched(parts, plan.seed)
        partition = content_hash({"folds": [partition], "matched": [f"seed {plan.seed}"]})
        more += noted
    label = label_of(parts, plan)
    return Split(
        kind=plan.kind,
        seed=plan.seed,
        fold=plan.fold,
        folds=plan.folds,
        repeat=plan.repeat,
        group=plan.group,
        label=label,
        parts={part: tuple(sorted(r.image for r in parts[part])) for part in PARTS},
        cases={part: tuple(sorted({r.case for r in parts[part] if r.case})) for part in PARTS},
        partition_hash=partition,
        notes=tuple(notes + more + _class_notes(parts, task)),
        shuffled_labels=plan.shuffle_labels,
        injection=None if injected is None else injected.as_dict(),
    )


def _class_notes(parts: Parts, task: str) -> list[str]:
    """Refuse a train part without a class; say which classes other parts lack."""
    key: Callable[[Record], str] = (lambda r: r.subtype) if task == "subtype" else (lambda r: r.class_name)
    classes = sorted(
        {key(r) for members in parts.values() for r in members}
        | (set(CLASSES) if task == "binary" else set())
    )
    notes = []
    for part in PARTS:
        if not parts[part]:
            raise UserError(
                f"part {part} is empty at this magnification and fold: choose another, or more images"
            )
        absent = sorted(set(classes) - {key(r) for r in parts[part]})
        if absent and part == "train" and task == "binary":
            raise UserError(
                f"class {absent[0]} is absent from train: nothing can be learned; choose another fold or split"
            )
        if absent:
            notes.append(f"{part} holds no image of {', '.join(absent)}")
    return notes


def load_split(path: str | Path, records: Sequence[Record]) -> Split:
    """Read a ``split.json`` back and prove it again: content hash, known images, disjointness.

    Raises:
        UserError: the file is damaged, was edited, or does not fit the data set.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        parts = {part: tuple(str(i) for i in data["parts"][part]) for part in PARTS}
        split = Split(
            **{
                k: data[k]
                for k in ("kind", "seed", "fold", "folds", "repeat", "group", "label", "partition_hash")
            },
            parts=parts,
            cases={part: tuple(data["cases"][part]) for part in PARTS},
            notes=tuple(data["notes"]),
            shuffled_labels=bool(data.get("shuffled_labels")),
            injection=data.get("injection"),
        )
        stated = data["hash"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not a split.json of ours ({error}); delete it, or start with resume=never"
        ) from error
    if stated != split.hash:
        raise UserError(
            f"{path}: its parts do not match its hash: it was edited or damaged; delete it to split anew"
        )
    held, _ = given_parts(records, parts, str(path))
    injected = split.injection or {}
    plan = SplitPlan(
        kind=split.kind,
        group=split.group,
        injected=injected.get("share"),
        shuffle_labels=split.shuffled_labels,
    )
    relabelled = label_of(held, plan)
    if relabelled != split.label:
        raise UserError(
            f"{path}: its label {split.label!r} should read {relabelled!r}: it was edited; delete it to split anew"
        )
    if injected:
        tested = {r.case for r in held["test"]}
        siblings = sum(r.case in tested for r in held["train"])
        if (siblings, len(held["test"])) != (injected.get("images"), injected.get("probe")):
            raise UserError(
                f"{path}: {siblings} siblings of {len(held['test'])} test images stand in train, its injection says "
                f"otherwise: it was edited; delete it to split anew"
            )
    return split
