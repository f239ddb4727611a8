"""``split=folders``: the sets are the folders of ``dataset=folders``."""

from collections.abc import Mapping, Sequence

from histo_lightning.config.schema import SplitConfig
from histo_lightning.data.breakhis.records import PARTS, Record, part_of
from histo_lightning.data.splits.given import GivenKind
from histo_lightning.data.splits.registry import register_split


@register_split
class Folders(GivenKind):
    """A tree ``<root>/<train|val|test>/<class>/``, as in the thesis."""

    name = "folders"
    dataset = "folders"

    def listed(self, records: Sequence[Record], config: SplitConfig) -> Mapping[str, Sequence[str]]:
        return {part: [r.image for r in records if part_of(r.path) == part] for part in PARTS}
