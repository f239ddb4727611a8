"""Sets that are given by name, and a validation set cut from train where there is none."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from histo_lightning.config.schema import SplitConfig
from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.data.breakhis.records import PARTS, Record
from histo_lightning.data.splits.grouping import Parts, by_group, content_hash
from histo_lightning.data.splits.registry import Draft, SplitKind
from histo_lightning.errors import UserError

HOLD_OUT_FOLDS = 5  # a validation set cut from train holds about a fifth of its cases


class GivenKind(SplitKind):
    """A kind whose sets are listed somewhere. Derive from it, and write :meth:`listed` instead of ``assign``."""

    group = None
    given = True
    needs_cases = False

    def listed(self, records: Sequence[Record], config: SplitConfig) -> Mapping[str, Sequence[str]]:
        """Image names by part; raises UserError where they cannot be read."""
        raise NotImplementedError


def given_draft(
    records: Sequence[Record], listed: Mapping[str, Sequence[str]], where: str, left_out: Collection[str]
) -> Draft:
    """Records by part as listed; a missing validation set is cut from train.

    Args:
        listed: image names by part.
        where: what to call the list in errors.
        left_out: names that may be listed, and are in no part all the same.

    Raises:
        UserError: an image is in two parts or not in the data set, or train or test is empty.
    """
    known = {r.image: r for r in records}
    part_of: dict[str, str] = {}
    listed = {part: [image for image in images if image not in left_out] for part, images in listed.items()}
    for part, images in listed.items():
        for image in images:
            if part_of.setdefault(image, part) != part:
                raise UserError(f"{where}: {image} is in {part_of[image]} and in {part}; keep it in one part")
    if missing := sorted(part_of.keys() - known.keys()):
        raise UserError(
            f"{where}: {len(missing)} image(s) are not in the data set, e.g. {missing[0]}: "
            "split and data set disagree, check dataset.root"
        )
    parts: Parts = {part: [known[i] for i, p in part_of.items() if p == part] for part in PARTS}
    for part in ("train", "test"):
        if not parts[part]:
            raise UserError(f"{where}: no image in part {part}; a split needs train and test")
    unused = len(known) - len(part_of)
    notes = [f"{unused} images of the data set are in no part of {where}"] if unused else []
    if not parts["val"]:
        parts = cut_validation(parts)
        notes.append(f"{where} has no validation part: cases were cut from train for it")
    return Draft(parts, content_hash(listed), notes)


def cut_validation(parts: Parts) -> Parts:
    """Move about a fifth of the train cases, balanced, into validation; none of them shares a case with test."""
    from histo_lightning.data.splits.assignment import assign  # numpy: not for a list of kinds

    test_cases = {r.case for r in parts["test"]}
    eligible = by_group((r for r in parts["train"] if r.case and r.case not in test_cases), "case")
    counts = Counter(members[0].class_name for members in eligible.values())
    fewest = min(counts[c] for c in CLASSES)
    if fewest < 2:
        raise UserError(
            "the train part holds fewer than 2 cases of a class that test does not share, so no validation part can "
            "be cut from it by case: give a split file with train, val and test"
        )
    chosen = set(assign(eligible, min(HOLD_OUT_FOLDS, fewest))[-1])
    val = [r for r in parts["train"] if r.case in chosen]
    return {"train": [r for r in parts["train"] if r.case not in chosen], "val": val, "test": parts["test"]}
