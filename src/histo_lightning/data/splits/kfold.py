"""The k-fold splits, by case, by slide and by image: fold k tests, fold k + 1 validates, all others train."""

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from histo_lightning.config.schema import SplitConfig
from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.splits.groups import by_group, content_hash, keyed_order
from histo_lightning.data.splits.registry import Draft, SplitKind, register_split
from histo_lightning.errors import UserError

MOST_FOLDS = 16  # the full set has 16 benign cases


@register_split
class CaseKFold(SplitKind):
    """Balanced folds of surgical cases, so that no case appears on both sides; other kinds of folds derive from it."""

    name = "case_kfold"
    group: ClassVar[str] = "case"
    keys: ClassVar[tuple[str, ...]] = ("fold", "folds", "seed", "repeat", "shuffle_labels")

    def folds(self, records: Sequence[Record], config: SplitConfig) -> list[list[Record]]:
        """Records by fold; folds are balanced in groups of each class and in images, over all magnifications."""
        from histo_lightning.data.splits.assignment import assign  # numpy: not for a list of kinds

        members = by_group(records, self.group)
        counts = Counter(group[0].class_name for group in members.values())
        for class_name in CLASSES:
            if (count := counts[class_name]) < config.folds:
                problem = f"the copy holds only {count} {class_name} {self.group}(s) and every fold needs one"
                advice = f"give split.folds={max(count, 3)} or more images"
                raise UserError(f"split.folds={config.folds}: {problem}: {advice}")
        names = assign(members, config.folds, seed=config.seed, repeat=config.repeat)
        return [[r for name in fold for r in members[name]] for fold in names]

    def assign(self, records: Sequence[Record], config: SplitConfig) -> Draft:
        if not 3 <= config.folds <= MOST_FOLDS:
            why = f"2 leave no training part; the full set has {MOST_FOLDS} benign cases"
            raise UserError(f"split.folds={config.folds}: give 3 to {MOST_FOLDS} ({why})")
        if not 0 <= config.fold < config.folds:
            raise UserError(f"split.fold={config.fold}: out of range, allowed are 0 to {config.folds - 1}")
        folds = self.folds(records, config)
        roles = {config.fold: "test", (config.fold + 1) % config.folds: "val"}
        parts: dict[str, list[Record]] = {"train": [], "val": [], "test": []}
        for k, fold in enumerate(folds):
            parts[roles.get(k, "train")] += fold
        partition = content_hash({str(k): [getattr(r, self.group) for r in f] for k, f in enumerate(folds)})
        few = f"{config.folds} folds leave fewer than 3 benign test cases in each: intervals will be wide"
        return Draft(parts, partition, [few] if config.folds > 5 else [])


@register_split
class SlideKFold(CaseKFold):
    """Folds of slides, the literature's "patients". Validation shares no case: slides with siblings elsewhere move to train."""

    name = "slide_kfold"
    group = "slide"
    clean_validation = True

    def assign(self, records: Sequence[Record], config: SplitConfig) -> Draft:
        draft = super().assign(records, config)
        parts = draft.parts
        elsewhere = {r.case for part in ("train", "test") for r in parts[part]}
        parts["train"] = parts["train"] + [r for r in parts["val"] if r.case in elsewhere]
        parts["val"] = [r for r in parts["val"] if r.case not in elsewhere]
        return draft


@register_split
class ImageRandom(CaseKFold):
    """Random images, whatever their case: LEAKY, and there to show the leak."""

    name = "image_random"
    group = "image"
    needs_cases = False

    def folds(self, records: Sequence[Record], config: SplitConfig) -> list[list[Record]]:
        known = {r.image: r for r in records}
        order = keyed_order(known, self.name, config.seed, config.repeat)
        return [[known[image] for image in order[fold :: config.folds]] for fold in range(config.folds)]
