"""``split=case_kfold``: balanced folds of surgical cases, so that no case appears on both sides.

Fold k tests, fold k + 1 validates, all others train; other kinds of folds derive from this one.
"""

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from histo_lightning.config.schema import SplitConfig
from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.splits.grouping import by_group, content_hash
from histo_lightning.data.splits.registry import Draft, SplitKind, register_split
from histo_lightning.errors import UserError

MOST_FOLDS = 16  # the full set has 16 benign cases


@register_split
class CaseKFold(SplitKind):
    """Every case is tested once over the folds, which are assigned over all magnifications."""

    name = "case_kfold"
    group: ClassVar[str] = "case"
    keys: ClassVar[tuple[str, ...]] = ("fold", "folds", "seed", "repeat", "shuffle_labels")
    tests_all = True

    def folds(self, records: Sequence[Record], config: SplitConfig) -> list[list[Record]]:
        """Records by fold; folds are balanced in groups of each class and in images."""
        from histo_lightning.data.splits.assignment import assign  # numpy: not for a list of kinds

        members = by_group(records, self.group)
        count = Counter(group[0].class_name for group in members.values())
        for class_name in CLASSES:
            if count[class_name] < config.folds:
                raise UserError(
                    f"split.folds={config.folds}: the copy holds only {count[class_name]} {class_name} {self.group}(s) and "
                    f"every fold needs one: give split.folds={max(count[class_name], 3)} or more images"
                )
        names = assign(members, config.folds, seed=config.seed, repeat=config.repeat)
        return [[r for name in fold for r in members[name]] for fold in names]

    def assign(self, records: Sequence[Record], config: SplitConfig) -> Draft:
        if not 3 <= config.folds <= MOST_FOLDS:
            raise UserError(
                f"split.folds={config.folds}: give 3 to {MOST_FOLDS} (2 leave no training part, since one fold tests and "
                f"the next validates; the full set has {MOST_FOLDS} benign cases)"
            )
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
