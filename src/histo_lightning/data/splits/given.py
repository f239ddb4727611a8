"""Splits whose parts are listed, in a file or as folders; a validation set is cut from train where there is none."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from histo_lightning.config.schema import SplitConfig
from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.data.breakhis.records import PARTS, Record, part_of
from histo_lightning.data.splits.groups import Groups, by_group, content_hash
from histo_lightning.data.splits.reading import read_splits
from histo_lightning.data.splits.registry import Draft, SplitKind, register_split
from histo_lightning.errors import UserError

HOLD_OUT_FOLDS = 5  # a validation set cut from train holds about a fifth of its cases


class GivenKind(SplitKind):
    """A kind whose parts are listed somewhere. Derive from it, and write :meth:`listed` instead of ``assign``."""

    group = None
    given = True
    needs_cases = False

    def listed(self, records: Sequence[Record], config: SplitConfig) -> Mapping[str, Sequence[str]]:
        """Image names by part; raises UserError where they cannot be read."""
        raise NotImplementedError

    def draft(self, records: Sequence[Record], config: SplitConfig, left_out: Collection[str]) -> Draft:
        """Records by part as listed; names in ``left_out`` may be listed, and are in no part all the same.

        Raises:
            UserError: an image is in two parts or not in the data set, or train or test is empty.
        """
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
