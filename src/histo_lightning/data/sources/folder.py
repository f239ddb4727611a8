"""Folders of images: the files in one, and how a new one appears in one step."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from histo_lightning.data.breakhis.records import IMAGE_SUFFIXES
from histo_lightning.errors import UserError

Progress = Callable[[int, int], None]  # called with what is done, and what there is in all


def image_paths(root: Path) -> list[str]:
    """Every image file below a folder, with ``/``, sorted; hidden files and macOS' ``__MACOSX`` are passed over."""
    start, paths = str(root), []
    for folder, folders, names in os.walk(start):
        folders[:] = [f for f in folders if not f.startswith(".") and f != "__MACOSX"]
        relative = os.path.relpath(folder, start).replace(os.sep, "/")
        prefix = "" if relative == "." else relative + "/"
        paths += [prefix + n for n in names if not n.startswith(".") and n.lower().endswith(IMAGE_SUFFIXES)]
    return sorted(paths)


@contextmanager
def new_folder(folder: Path, problem: str, advice: str = "choose another folder") -> Iterator[Path]:
    """An empty folder beside ``folder``, to be filled and renamed to it; removed where it was not renamed.

    Processes that want the same folder take turns.

    Raises:
        UserError: ``problem``, the reason and the advice, where anything inside raises OSError.
    """
    building = folder.with_name(f".{folder.name}.building")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            try:
                shutil.rmtree(building, ignore_errors=True)  # left by a killed process
                building.mkdir()
                yield building
            finally:
                shutil.rmtree(building, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{problem} ({error.strerror or error}); free space or {advice}") from error
