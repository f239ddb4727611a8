"""Which folders of a tree are run folders and which are sweep folders."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from histo_lightning.errors import UserError


def listed_folders(text: str) -> list[Path]:
    """The folders of ``runs=a`` or ``runs=[a,b]``; a comma inside a path is no separator where that path exists.

    Raises:
        UserError: nothing is given, or a folder does not exist.
    """
    wanted = text.strip()
    if not wanted:
        raise UserError(
            "runs= is needed: a run folder, a sweep folder, or what holds them; several: runs=[a,b]"
        )
    if Path(text).is_dir():
        return [Path(text)]
    if wanted.startswith("[") and wanted.endswith("]"):
        folders = list(_pieces(wanted[1:-1].split(",")))
    else:
        folders = [Path(wanted)]
    for folder in folders:
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            raise UserError(f"runs={folder}: {what}; give a run folder, a sweep folder or what holds them")
    return folders


def _pieces(parts: list[str]) -> Iterator[Path]:
    """Paths from the texts between commas: as many as needed are put together again to name a folder."""
    while parts:
        for count in range(1, len(parts) + 1):
            path = Path(",".join(parts[:count]).strip().strip("'\""))
            if path.is_dir() and str(path) != ".":
                break
        else:
            count, path = 1, Path(parts[0].strip().strip("'\""))
        del parts[:count]
        yield path


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's: training writes ``status.json`` first, then ``config.yaml``."""
    return any((folder / name).is_file() for name in ("status.json", "config.yaml"))


def find_folders(roots: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Run folders and sweep folders (those with a ``sweep.json``) at or below ``roots``, each once, in order of name.

    Raises:
        UserError: a folder cannot be read.
    """
    runs: dict[Path, Path] = {}
    sweeps: dict[Path, Path] = {}
    for root in roots:
        for folder in _walk(root):
            if is_run(folder):
                runs.setdefault(folder.resolve(), folder)
            if (folder / "sweep.json").is_file():
                sweeps.setdefault(folder.resolve(), folder)
    return list(runs.values()), list(sweeps.values())


def _walk(root: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise UserError(f"runs={error.filename}: cannot be read ({error.strerror}); change its permissions")

    for path, inner, _ in os.walk(root, onerror=refuse):
        folder = Path(path)
        # Nothing below a run folder is a run, and a hidden folder is nobody's result.
        inner[:] = [] if is_run(folder) else sorted(name for name in inner if not name.startswith("."))
        yield folder
