"""``split=official``: the authors' own five hold-outs, as they are, cleaned of shared cases, or as small as the cleaned ones.

Validation is cut from the train cases that test does not hold, the same ones in all three.
"""

from collections.abc import Sequence

from histo_lightning.config.schema import SplitConfig
from histo_lightning.data.breakhis.names import CLASSES, OFFICIAL_FOLDS, census
from histo_lightning.data.breakhis.records import PARTS, Record
from histo_lightning.data.splits.given import cut_validation
from histo_lightning.data.splits.groups import Groups, by_group, content_hash, keyed_order, proportional_order
from histo_lightning.data.splits.registry import Draft, SplitKind, register_split
from histo_lightning.errors import UserError

# Of the leakage study: the kind as it is, and its two controls.
ARMS = ("official", "official clean", "official matched")
DRAWS = 200  # of unshared cases; the draw whose images come closest is dropped


@register_split
class Official(SplitKind):
    """Each fold is a 70/30 hold-out by slide, constant over magnifications; the five test sets overlap."""

    name = ARMS[0]
    group = "slide"
    keys = ("fold", "seed", "clean", "matched")
    keeps_twins = True
    clean_validation = True

    def check(self, config: SplitConfig, magnification: str) -> None:
        if config.clean and config.matched:
            raise UserError("split.matched=true: is the control beside split.clean=true; give one of them")

    def assign(self, records: Sequence[Record], config: SplitConfig) -> Draft:
        if config.fold not in OFFICIAL_FOLDS:
            raise UserError(f"split.fold={config.fold}: the official folds are 1 to 5")
        if unknown := sorted({r.slide for r in records} - census().keys()):
            problem = f"slide {unknown[0]} is not in the authors' folds"
            raise UserError(f"split=official: {problem}; use split=case_kfold")
        parts: Groups = {part: [] for part in PARTS}
        for record in records:
            parts[census()[record.slide].official[config.fold]].append(record)
        shared = _shared_cases(parts)
        note = f"official fold {config.fold} shares {len(shared)} cases between train and test: {', '.join(shared)}"
        if config.clean:
            parts["train"] = [r for r in parts["train"] if r.case not in shared]
            note = f"official fold {config.fold}, cleaned: {len(shared)} shared cases dropped from train"
        parts = cut_validation(parts)
        return Draft(parts, content_hash({part: {r.slide for r in parts[part]} for part in PARTS}), [note])

    def refine(self, draft: Draft, config: SplitConfig) -> Draft:
        if not config.matched:
            return draft
        return draft.refined("matched", config.seed, *_size_matched(draft.parts, config.seed))


def _shared_cases(parts: Groups) -> list[str]:
    return sorted({r.case for r in parts["train"]} & {r.case for r in parts["test"]})


def _size_matched(parts: Groups, seed: int) -> tuple[Groups, list[str]]:
    """Drop from train, by class, as many cases and images as ``clean`` drops, but of those that test does not share.

    First whole cases (of 200 seeded draws the one whose images come closest to the number from below), then single images,
    in equal shares of the unshared cases that stay; where those are too few (the authors' folds share up to half of all
    benign images), of the shared cases too, and a note says how many. Every case that stays keeps an image.
    """
    shared = _shared_cases(parts)
    train: list[Record] = []
    notes = []
    for class_name in CLASSES:
        members = by_group((r for r in parts["train"] if r.class_name == class_name), "case")
        touching = {case: records for case, records in members.items() if case in shared}
        others = {case: records for case, records in members.items() if case not in shared}
        images = sum(map(len, touching.values()))
        if len(touching) > len(others):
            raise UserError(
                f"split.matched=true: train shares {len(touching)} {class_name} cases with test and holds only "
                f"{len(others)} others, so as many cannot be dropped; choose another split.fold"
            )
        dropped = _closest(others, len(touching), images, f"matched:{seed}:{class_name}")
        left = {case: records for case, records in others.items() if case not in dropped}
        rest = images - sum(len(others[case]) for case in dropped)
        single = _spare(left, seed)[: max(rest, 0)]
        thinned = _spare(touching, seed)[: max(rest - len(single), 0)]
        gone = {r.image for r in single + thinned}
        train += [r for group in (left, touching) for m in group.values() for r in m if r.image not in gone]
        short = rest - len(single) - len(thinned)
        size = f"; train is {abs(short)} image(s) {'larger' if short > 0 else 'smaller'} than cleaned"
        notes.append(
            f"size-matched, {class_name}: as many images ({images}) and cases ({len(touching)}) dropped as test shares, "
            f"{len(thinned)} of these images from shared cases{size if short else ''}"
        )
    return parts | {"train": train}, notes


def _closest(members: Groups, count: int, images: int, key: str) -> list[str]:
    """``count`` cases, drawn 200 times by ``key``: those whose images come closest to ``images`` from below."""
    draws = [keyed_order(members, key, i)[:count] for i in range(DRAWS if count else 1)]
    totals = [sum(len(members[case]) for case in draw) for draw in draws]
    distances = [(total > images, abs(images - total)) for total in totals]
    return draws[distances.index(min(distances))]


def _spare(members: Groups, seed: int) -> list[Record]:
    """All records but one a case, in an order whose every beginning takes equal shares of the cases."""
    return proportional_order(members, "matched", seed)[len(members) :]
