"""``split=folders``: the sets are the folders of ``dataset=folders``."""

from collections.abc import Mapping, Sequence

from histo_lightning.config.schema import SplitConfig
from histo_lightning.data.splits.registry import SplitKind, register_split
from histo_lightning.errors import UserError


@register_split
class Folders(SplitKind):
    """A tree ``<root>/<train|val|test>/<class>/``, as in the thesis."""

    name = "folders"
    group = None
    dataset = "folders"
    given = True
    needs_cases = False

    def listed(
        self, config: SplitConfig, folder_parts: Mapping[str, Sequence[str]] | None
    ) -> Mapping[str, Sequence[str]]:
        if folder_parts is None:
            raise UserError(
                "split=folders needs dataset=folders: a tree train/, val/, test/ of class folders"
            )
        return folder_parts
