"""``split=slide_kfold``: folds of slides, the literature's "patients"; sibling slides of a case may be on both sides."""

from collections.abc import Sequence

from histo_lightning.config.schema import SplitConfig
from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.splits.case_kfold import CaseKFold
from histo_lightning.data.splits.registry import Draft, register_split


@register_split
class SlideKFold(CaseKFold):
    """Validation shares no case: slides with siblings elsewhere move from it to train."""

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
