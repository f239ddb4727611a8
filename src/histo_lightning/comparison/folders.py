"""Which folders of a tree are run folders, sweep folders and studies."""

import os
from collections.abc import Sequence
from pathlib import Path

from histo_lightning.errors import UserError

STUDY = "study.json"


def listed_folders(text: str) -> list[Path]:
    """The folders of ``runs=a`` or ``runs=[a,b]``, UserError where one is missing; a path that exists may hold commas."""
    wanted = text.strip()
    if not wanted:
        what = "a run folder, a sweep folder, or what holds them"
        raise UserError(f"runs= is needed: {what}; several: runs=[a,b]")
    if Path(text).is_dir():
        return [Path(text)]
    bracketed = wanted.startswith("[") and wanted.endswith("]")
    parts, folders = wanted[1:-1].split(",") if bracketed else [wanted], []
    while parts:  # as many parts as name a folder together
        paths = [Path(",".join(parts[: n + 1]).strip().strip("'\"")) for n in range(len(parts))]
        count = next((n for n, path in enumerate(paths) if path.is_dir() and path != Path()), 0)
        folders.append(paths[count])
        del parts[: count + 1]
    for folder in folders:
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            raise UserError(f"runs={folder}: {what}; give a run folder, a sweep folder or what holds them")
    return folders


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's: training writes ``status.json`` first, then ``config.yaml``."""
    return any((folder / name).is_file() for name in ("status.json", "config.yaml"))


def find_folders(roots: Sequence[Path]) -> tuple[list[Path], list[Path], list[Path]]:
    """Run folders, sweep folders (``sweep.json``) and studies (``study.json``) at or below ``roots``, in order of name.

    Nothing below a study is listed, unless it is a root itself: trials are no runs. UserError where a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"runs={error.filename}: cannot be read ({error.strerror}); change its permissions")

    folders: dict[Path, Path] = {}
    for root in roots:
        for path, inner, files in os.walk(root, onerror=refuse):
            folder = Path(path)
            # Nothing below a run folder is a run, and a hidden folder is nobody's result.
            is_last = is_run(folder) or (STUDY in files and folder != root)
            inner[:] = [] if is_last else sorted(name for name in inner if not name.startswith("."))
            folders.setdefault(folder.resolve(), folder)
    sweeps, studies = ([f for f in folders.values() if (f / x).is_file()] for x in ("sweep.json", STUDY))
    return [folder for folder in folders.values() if is_run(folder)], sweeps, studies
