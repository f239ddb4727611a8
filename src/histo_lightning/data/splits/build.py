"""From records to a proved split, and back from ``split.json``.

Every kind ends here. Groups (cases or slides) are assigned over all magnifications and filtered afterwards, so the
partition does not depend on the magnification.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from histo_lightning.config.schema import SplitConfig
from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.data.breakhis.records import PARTS, Record, select_magnification, without_twins
from histo_lightning.data.splits.disjoint import label_of
from histo_lightning.data.splits.given import given_draft
from histo_lightning.data.splits.grouping import Parts
from histo_lightning.data.splits.label_shuffling import labelled
from histo_lightning.data.splits.registry import Draft, SplitKind, check_options, split_kind
from histo_lightning.data.splits.split import Split
from histo_lightning.errors import UserError


def build_split(
    records: Sequence[Record],
    config: SplitConfig,
    *,
    magnification: str = "all",
    task: str = "binary",
    folder_parts: Mapping[str, Sequence[str]] | None = None,
) -> Split:
    """Split a data set.

    Args:
        records: every image of the copy, all magnifications.
        config: how.
        magnification: ``40x`` ... ``400x`` or ``all``; filters after the groups are assigned.
        task: ``binary`` or ``subtype`` (leaves out both copies of slide 13412).
        folder_parts: image names by part, where the folders of the data set say them.

    Raises:
        UserError: fold out of range, too few groups, a leak in a given split, no image of that magnification,
            a class absent from train, or an empty part.
    """
    kind = check_options(config, magnification)
    records = sorted(labelled(records, config), key=lambda record: record.image)
    members, notes = (records, []) if kind.keeps_twins and task == "binary" else without_twins(records, task)
    if magnification != "all" and not select_magnification(members, magnification):
        present = ", ".join(f"{m}x" for m in sorted({r.magnification for r in members}))
        raise UserError(
            f"magnification={magnification}: the data set holds no such image; it holds {present or 'nothing'}"
        )
    if kind.needs_cases and any(not r.case for r in members):
        raise UserError(
            f"split={config.name}: some names do not say their case; use split=folders or split=file"
        )
    if kind.given:
        left_out = {r.image for r in records} - {r.image for r in members}
        listed = {
            part: [image for image in images if image not in left_out]
            for part, images in kind.listed(config, folder_parts).items()
        }
        draft = given_draft(members, listed, config.path or "dataset.root")
    else:
        draft = kind.assign(members, config)
    draft.parts = {part: select_magnification(draft.parts[part], magnification) for part in PARTS}
    draft = kind.refine(draft, config)
    return _finished(draft, kind, config, task, notes)


def _finished(draft: Draft, kind: SplitKind, config: SplitConfig, task: str, notes: Sequence[str]) -> Split:
    parts = draft.parts
    label = label_of(parts, kind, config)
    return Split(
        kind=config.name,
        seed=config.seed,
        fold=config.fold,
        folds=config.folds,
        repeat=config.repeat,
        group=kind.group or config.group,
        label=label,
        parts={part: tuple(sorted(r.image for r in parts[part])) for part in PARTS},
        cases={part: tuple(sorted({r.case for r in parts[part] if r.case})) for part in PARTS},
        partition_hash=draft.partition,
        notes=(*notes, *draft.notes, *_class_notes(parts, task)),
        shuffled_labels=config.shuffle_labels,
        injection=draft.injection,
    )


def _class_notes(parts: Parts, task: str) -> list[str]:
    """Refuse a train set without a class; say which classes other sets lack."""
    key: Callable[[Record], str] = (lambda r: r.subtype) if task == "subtype" else (lambda r: r.class_name)
    classes = {key(r) for members in parts.values() for r in members}
    classes |= set(CLASSES) if task == "binary" else set()
    notes = []
    for part in PARTS:
        if not parts[part]:
            raise UserError(
                f"part {part} is empty at this magnification and fold: choose another, or more images"
            )
        absent = sorted(classes - {key(r) for r in parts[part]})
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
        keys = ("kind", "seed", "fold", "folds", "repeat", "group", "label", "partition_hash")
        split = Split(
            **{key: data[key] for key in keys},
            parts={part: tuple(str(image) for image in data["parts"][part]) for part in PARTS},
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
    parts = given_draft(records, split.parts, str(path)).parts
    injection = split.injection or {}
    config = SplitConfig(
        split.kind,
        group=split.group,
        injected=injection.get("share"),
        shuffle_labels=split.shuffled_labels,
    )
    label = label_of(parts, split_kind(split.kind), config)
    if label != split.label:
        raise UserError(
            f"{path}: its label {split.label!r} should read {label!r}: it was edited; delete it to split anew"
        )
    if injection:
        tested = {r.case for r in parts["test"]}
        siblings = sum(r.case in tested for r in parts["train"])
        if (siblings, len(parts["test"])) != (injection.get("images"), injection.get("probe")):
            raise UserError(
                f"{path}: train holds {siblings} siblings of {len(parts['test'])} test images, its injection says "
                "otherwise: it was edited; delete it to split anew"
            )
    return split
