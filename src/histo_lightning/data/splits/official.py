"""Splits that somebody else made: the authors' own hold-outs, a list in a file, or folders."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from histo_lightning.config.schema import SplitConfig
from histo_lightning.data.breakhis.names import CLASSES, OFFICIAL_FOLDS, census
from histo_lightning.data.breakhis.records import PARTS, Record, part_of
from histo_lightning.data.splits.groups import Groups, by_group, content_hash, keyed_order, proportional_order
from histo_lightning.data.splits.reading import read_splits
from histo_lightning.data.splits.registry import Draft, SplitKind, register_split
from histo_lightning.errors import UserError

ARMS = ("official", "official clean", "official matched")  # of the leakage study: itself, two controls
HOLD_OUT_FOLDS = 5  # a validation set cut from train holds about a fifth of its cases
DRAWS = 200  # of unshared cases; the draw whose images come closest is dropped


@register_split
class Official(SplitKind):
    """Each fold is a 70/30 hold-out by slide, constant over magnifications; the five test sets overlap.

    As it is, cleaned of shared cases (``clean``), or as small as cleaned (``matched``); validation is the same in all three.
    """

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
        shared = sorted({r.case for r in parts["train"]} & {r.case for r in parts["test"]})
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


def _size_matched(parts: Groups, seed: int) -> tuple[Groups, list[str]]:
    """Drop from train, by class, as many cases and images as ``clean`` drops, but of those that test does not share.

    First whole cases (of 200 seeded draws the one whose images come closest from below), then single images, in equal
    shares of the unshared cases that stay; where those are too few (the authors' folds share up to half of all benign
    images), of the shared cases too, and a note says how many. Every case that stays keeps an image.
    """
    shared = {r.case for r in parts["train"]} & {r.case for r in parts["test"]}
    train: list[Record] = []
    notes = []
    for class_name in CLASSES:
        members = by_group((r for r in parts["train"] if r.class_name == class_name), "case")
        touching = {case: records for case, records in members.items() if case in shared}
        others = {case: records for case, records in members.items() if case not in shared}
        images = sum(map(len, touching.values()))
        if len(touching) > len(others):
            problem = f"train shares {len(touching)} {class_name} cases with test and holds only {len(others)} others"
            raise UserError(f"split.matched=true: {problem}; choose another split.fold")
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


class GivenKind(SplitKind):
    """A kind whose parts are listed somewhere. Derive from it, and write :meth:`listed` instead of ``assign``."""

    group = None
    given = True
    needs_cases = False

    def listed(self, records: Sequence[Record], config: SplitConfig) -> Mapping[str, Sequence[str]]:
        """Image names by part; raises UserError where they cannot be read."""
        raise NotImplementedError

    def draft(self, records: Sequence[Record], config: SplitConfig, left_out: Collection[str]) -> Draft:
        """Records by part as listed, but ``left_out``; UserError where one is in two parts or not there, or train or test is empty."""
        where, known = config.path or "dataset.root", {r.image: r for r in records}
        part_by_image: dict[str, str] = {}
        listed: dict[str, list[str]] = {}
        for part, images in self.listed(records, config).items():
            listed[part] = [image for image in images if image not in left_out]
            for image in listed[part]:
                if (other := part_by_image.setdefault(image, part)) != part:
                    raise UserError(f"{where}: {image} is in {other} and in {part}; keep it in one part")
        if missing := sorted(part_by_image.keys() - known.keys()):
            problem = f"{len(missing)} image(s) are not in the data set, e.g. {missing[0]}"
            raise UserError(f"{where}: {problem}: split and data set disagree, check dataset.root")
        parts: Groups = {part: [known[i] for i, p in part_by_image.items() if p == part] for part in PARTS}
        for part in ("train", "test"):
            if not parts[part]:
                raise UserError(f"{where}: no image in part {part}; a split needs train and test")
        unused = len(known) - len(part_by_image)
        notes = [f"{unused} images of the data set are in no part of {where}"] if unused else []
        if not parts["val"]:
            parts = cut_validation(parts)
            notes.append(f"{where} has no validation part: cases were cut from train for it")
        return Draft(parts, content_hash(listed), notes)


@register_split
class Folders(GivenKind):
    """The folders of ``dataset=folders``, ``<root>/<train|val|test>/<class>/`` as in the thesis."""

    name = "folders"
    dataset = "folders"

    def listed(self, records: Sequence[Record], config: SplitConfig) -> Mapping[str, Sequence[str]]:
        return {part: [r.image for r in records if part_of(r.path) == part] for part in PARTS}


@register_split
class File(GivenKind):
    """A file or folder, ``split.path``; :mod:`histo_lightning.data.splits.reading` has its forms."""

    name = "file"
    keys = ("path",)

    def listed(self, records: Sequence[Record], config: SplitConfig) -> Mapping[str, Sequence[str]]:
        where, (split, *others) = f"split.path={config.path}", read_splits(config.path, "split.path")
        if others:
            names = f"{split.name}, {others[0].name}, ..."
            raise UserError(f"{where}: holds {len(others) + 1} splits ({names}); keep one of them")
        parts: dict[str, list[str]] = {part: [] for part in PARTS}
        for part, paths in split.parts.items():
            parts[part] = [path.rsplit("/", 1)[-1] for path in paths]
            twice = [image for image, count in Counter(parts[part]).items() if count > 1]
            if twice:
                raise UserError(f"{where}: {twice[0]} is listed twice in {part}; list each image once")
        return parts


def cut_validation(parts: Groups) -> Groups:
    """Move about a fifth of the train cases, balanced, into validation; none of them shares a case with test."""
    from histo_lightning.data.splits.assignment import assign  # numpy: not for a list of kinds

    test_cases = {r.case for r in parts["test"]}
    eligible = by_group((r for r in parts["train"] if r.case and r.case not in test_cases), "case")
    counts = Counter(members[0].class_name for members in eligible.values())
    fewest = min(counts[c] for c in CLASSES)
    if fewest < 2:
        problem = "fewer than 2 cases of a class that test does not share, so no validation part can be cut from it by case"
        raise UserError(f"the train part holds {problem}: give a split file with train, val and test")
    chosen = set(assign(eligible, min(HOLD_OUT_FOLDS, fewest))[-1])
    val = [r for r in parts["train"] if r.case in chosen]
    return {"train": [r for r in parts["train"] if r.case not in chosen], "val": val, "test": parts["test"]}
