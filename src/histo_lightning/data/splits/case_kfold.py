"""``split=case_kfold``: balanced folds of surgical cases, so that no case appears on both sides."""

from histo_lightning.data.splits.kfold import KFold
from histo_lightning.data.splits.registry import register_split


@register_split
class CaseKFold(KFold):
    """Every case is tested once over the folds."""

    name = "case_kfold"
    group = "case"
