"""Image files below a folder, by path relative to it."""

import os
from dataclasses import dataclass
from pathlib import Path

from histo_lightning.data.breakhis.records import IMAGE_SUFFIXES
from histo_lightning.errors import UserError


def image_paths(root: Path) -> list[str]:
    """Every image file below a folder, with ``/``, sorted; hidden files and macOS' ``__MACOSX`` are passed over."""
    start, paths = str(root), []
    for folder, folders, names in os.walk(start):
        folders[:] = [f for f in folders if not f.startswith(".") and f != "__MACOSX"]
        relative = os.path.relpath(folder, start).replace(os.sep, "/")
        prefix = "" if relative == "." else relative + "/"
        paths += [prefix + n for n in names if not n.startswith(".") and n.lower().endswith(IMAGE_SUFFIXES)]
    return sorted(paths)


@dataclass(frozen=True)
class Folder:
    """The image files below ``root``."""

    root: Path

    def paths(self) -> list[str]:
        return image_paths(self.root)

    def stat(self, path: str) -> os.stat_result:
        """Size and time of a file.

        Raises:
            UserError: it cannot be read.
        """
        try:
            return os.stat(os.path.join(self.root, path))  # noqa: PTH116, PTH118 - thousands at each start
        except OSError as error:
            raise UserError(f"{self.root / path}: cannot be read ({error.strerror})") from error

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()
