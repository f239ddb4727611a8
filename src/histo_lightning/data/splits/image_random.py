"""``split=image_random``: random images, whatever their case; LEAKY, and there to show the leak."""

from collections.abc import Sequence

from histo_lightning.config.schema import SplitConfig
from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.splits.case_kfold import CaseKFold
from histo_lightning.data.splits.grouping import keyed_order
from histo_lightning.data.splits.registry import register_split


@register_split
class ImageRandom(CaseKFold):
    """Every image is tested once over the folds."""

    name = "image_random"
    group = "image"
    needs_cases = False

    def folds(self, records: Sequence[Record], config: SplitConfig) -> list[list[Record]]:
        known = {r.image: r for r in records}
        order = keyed_order(known, self.name, config.seed, config.repeat)
        return [[known[image] for image in order[fold :: config.folds]] for fold in range(config.folds)]
