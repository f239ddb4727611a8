"""``split=file``: the sets are listed in a file; :mod:`histo_lightning.data.splits.reading` has its forms."""

from collections.abc import Mapping, Sequence

from histo_lightning.config.schema import SplitConfig
from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.splits.given import GivenKind
from histo_lightning.data.splits.reading import read_parts
from histo_lightning.data.splits.registry import register_split


@register_split
class File(GivenKind):
    """Image names by part, from ``split.path``."""

    name = "file"
    keys = ("path",)

    def listed(self, records: Sequence[Record], config: SplitConfig) -> Mapping[str, Sequence[str]]:
        return read_parts(config.path)
