"""``split=file``: the sets are listed in a file; :mod:`histo_lightning.data.splits.reading` has its forms."""

from collections.abc import Mapping, Sequence

from histo_lightning.config.schema import SplitConfig
from histo_lightning.data.splits.reading import read_parts
from histo_lightning.data.splits.registry import SplitKind, register_split


@register_split
class File(SplitKind):
    """Image names by part, from ``split.path``."""

    name = "file"
    group = None
    keys = ("path",)
    given = True
    needs_cases = False

    def listed(
        self, config: SplitConfig, folder_parts: Mapping[str, Sequence[str]] | None
    ) -> Mapping[str, Sequence[str]]:
        return read_parts(config.path)
