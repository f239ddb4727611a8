"""Where the bytes of image files come from: a folder, or an archive that is read in place."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from histo_lightning.data.archive import is_archive, list_members, read_members
from histo_lightning.data.records import IMAGE_SUFFIXES
from histo_lightning.errors import UserError


class ImageFiles(Protocol):
    """The image files of a data set, by path relative to its root (with ``/``)."""

    root: Path

    def paths(self) -> list[str]:
        """Every image file, sorted; hidden files and macOS' ``__MACOSX`` are passed over."""

    def stamp(self, path: str) -> str:
        """Size and time of a file: another content has another stamp."""

    def size(self, path: str) -> int:
        """Size in bytes."""

    def contents(self, paths: Sequence[str]) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Each path once, in the order that suits the storage, with a function that gives its bytes in any thread."""


class Folder:
    """Image files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def paths(self) -> list[str]:
        start, found = str(self.root), []
        for folder, folders, names in os.walk(start):
            folders[:] = [f for f in folders if not f.startswith(".") and f != "__MACOSX"]
            relative = os.path.relpath(folder, start).replace(os.sep, "/")
            prefix = "" if relative == "." else relative + "/"
            found += [
                prefix + n for n in names if not n.startswith(".") and n.lower().endswith(IMAGE_SUFFIXES)
            ]
        return sorted(found)

    def _stat(self, path: str) -> os.stat_result:
        try:
            return os.stat(os.path.join(self.root, path))  # noqa: PTH116, PTH118 - thousands at each start
        except OSError as error:
            raise UserError(f"{self.root / path}: cannot be read ({error.strerror})") from error

    def stamp(self, path: str) -> str:
        found = self._stat(path)
        return f"{found.st_size} {found.st_mtime_ns}"

    def size(self, path: str) -> int:
        return self._stat(path).st_size

    def contents(self, paths: Sequence[str]) -> Iterator[tuple[str, Callable[[], bytes]]]:
        for path in paths:
            yield path, (self.root / path).read_bytes


class Archive:
    """Image files inside a ``.tar``, ``.tar.gz`` or ``.tgz``, never unpacked."""

    def __init__(self, root: Path, cache_dir: Path) -> None:
        self.root = root
        self.members = {member.path: member for member in list_members(root, cache_dir)}

    def paths(self) -> list[str]:
        return sorted(self.members)

    def stamp(self, path: str) -> str:
        return f"{self.members[path].size} {self.members[path].mtime}"

    def size(self, path: str) -> int:
        return self.members[path].size

    def contents(self, paths: Sequence[str]) -> Iterator[tuple[str, Callable[[], bytes]]]:
        for path, data in read_members(self.root, set(paths)):
            yield path, partial(bytes, data)


def image_files(root: str | Path, cache_dir: Path, key: str = "dataset.root") -> ImageFiles:
    """The image files at a root.

    Raises:
        UserError: no root was given, or it is neither a folder nor an archive.
    """
    if not str(root):
        raise UserError(
            f"{key} is not set: give the folder or the .tar.gz that holds the images ({key}=/path/to/BreaKHis_v1)"
        )
    path = Path(root).expanduser()
    if path.is_dir():
        return Folder(path)
    if is_archive(path):
        return Archive(path, cache_dir)
    raise UserError(f"{key}={path}: no such folder or .tar.gz; give the one that holds the images")
