"""``manifest.json``: every file of a folder with size and SHA-256, written last; what is read is checked against it.

Until a run has finished it lists the checkpoints alone. Logs and TensorBoard's events may grow. Hidden files, and folders
with a manifest or a status of their own, are not listed.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from histo_lightning.errors import UserError
from histo_lightning.runs.files import write_json
from histo_lightning.runs.kinds import KINDS, wrong_kind

MANIFEST, CHECKPOINTS = "manifest.json", "checkpoints/"
DRAWN = ("plots/", "report.html", "results.", "leakage.")  # made again from tables
MEND = "restore it, or run its command again in a new folder (train: resume=never)"
Entry = dict[str, Any]
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there
_digests: dict[tuple[Any, ...], str] = {}  # SHA-256 of files read or written by this process, by their state


def _seal(value: Entry) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_sealed(path: Path, value: Entry) -> None:
    """Write JSON with the SHA-256 of its content as ``seal``: damage is noticed without a manifest."""
    write_json(path, value | {"seal": _seal(value)})


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object (``.yaml``: a YAML one), empty where there is no file; UserError where the file is damaged."""
    try:
        listed, text = check_file(path), path.read_bytes()
        value = yaml.load(text, _Loader) if path.suffix == ".yaml" else json.loads(text)
        seal = value.pop("seal", None) if isinstance(value, dict) else None
        kind = dict if listed else KINDS.get(path.name, dict)
        if seal is not None and seal != _seal(value):
            reason = "its content is not the one that it was sealed with"
        elif not (reason := wrong_kind([] if value is None else value, kind)):
            return dict(value)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or f"it is not {path.suffix[1:].upper()}"
    raise UserError(f"{path}: is damaged ({reason}); restore it, or move its folder away and run again")


def read_bytes(path: Path) -> bytes:
    """The content of a file; UserError where a manifest lists another, OSError where it cannot be read."""
    check_file(path)
    return path.read_bytes()


def check_file(path: Path) -> bool:
    """Whether the manifest of the folder, or of the one above, lists a file; UserError where with another content."""
    for _ in range(2):  # it may be replaced, and then its manifest, between the two looks
        entry, problem = None, ""
        for folder in path.absolute().parents[:2]:
            if listed := read_manifest(folder).get(path.absolute().relative_to(folder).as_posix()):
                entry, problem = listed, _problem(path, listed)
        if not problem:
            return entry is not None
    raise UserError(f"{path}: is damaged ({problem}); {MEND}")


def damaged(folder: Path, *, hashes: bool = True) -> dict[str, str]:
    """What is wrong with a folder's listed files, by name: with their size, with ``hashes`` also with their content."""
    entries = read_manifest(folder).items()
    problems = {name: _problem(folder / name, entry, hashes=hashes) for name, entry in entries}
    return {name: problem for name, problem in problems.items() if problem}


def read_manifest(folder: Path) -> Entry:
    """``{name: {"bytes", "sha256"}}``, empty where there is none; UserError where it is damaged."""
    path = folder / MANIFEST
    try:
        return _parsed(path, *_state(path))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: is damaged; delete it to use the folder without its checks") from error


def write_manifest(folder: Path, *, written: tuple[str, ...] = DRAWN, leave: str = "") -> None:
    """List every file but ``leave``. What was listed and does not begin with ``written`` keeps its entry: no damage gets in."""
    before, files = read_manifest(folder), {}
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        kept = None if name.startswith(written) else before.get(name)
        entry = kept or {"bytes": path.stat().st_size, "sha256": digest_of(path)}
        files[name] = {key: entry[key] for key in ("bytes", "sha256")}  # what was before no longer counts
    files.pop(leave, None)
    write_sealed(folder / MANIFEST, {"schema": 1, "files": files})


def reopen(folder: Path) -> None:
    """The folder is going to change: only checkpoints stay listed."""
    before = read_manifest(folder)
    kept = {name: entry for name, entry in before.items() if name.startswith(CHECKPOINTS)}
    if kept != before:
        write_sealed(folder / MANIFEST, {"schema": 1, "files": kept})


def renew(folder: Path) -> dict[str, str]:
    """A command is going to write the folder again: what is damaged is reported and returned as by :func:`damaged`."""
    problems = damaged(folder)
    for name, problem in problems.items():
        print(f"{folder / name}: is damaged ({problem}); the command writes its files again", file=sys.stderr)
    reopen(folder)
    return problems


def list_checkpoint(path: Path, size: int, digest: str) -> None:
    """List a run's checkpoint before it takes its name; what has the name stays valid, should it not come to that."""
    folder, name = path.absolute().parent.parent, CHECKPOINTS + path.name
    if folder / name != path.absolute() or not (folder / "status.json").is_file():
        return  # not of a run
    files = read_manifest(folder)
    entry: Entry = {"bytes": size, "sha256": digest}
    if path.is_file() and (listed := files.get(name)):
        present, known = digest_of(path), (listed, listed.get("before"))
        entry["before"] = next((one for one in known if one and one["sha256"] == present), None)
    write_sealed(folder / MANIFEST, {"schema": 1, "files": files | {name: entry}})


def unlist_checkpoint(path: Path) -> None:
    """Take a checkpoint out of its run's manifest, before it is deleted."""
    folder, own = path.absolute().parent.parent, CHECKPOINTS + path.name
    rest = {name: entry for name, entry in read_manifest(folder).items() if name != own}
    write_sealed(folder / MANIFEST, {"schema": 1, "files": rest})


def digest_of(path: Path, written: str = "") -> str:
    """SHA-256 of a file, read once as long as it does not change; ``written`` is that of what was just written to it."""
    key = (path.absolute(), *_state(path))
    if key not in _digests or written:
        if len(_digests) >= 1000:  # a sweep writes files for days
            del _digests[next(iter(_digests))]
        with path.open("rb") as file:
            _digests[key] = written or hashlib.file_digest(file, "sha256").hexdigest()
    return _digests[key]


def _state(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=64)
def _parsed(path: Path, *_: int) -> Entry:
    value = json.loads(path.read_bytes())
    if value.pop("seal") != _seal(value):
        raise ValueError
    return dict(value["files"])


def _problem(path: Path, entry: Entry, *, hashes: bool = True) -> str:
    if not path.is_file():
        return "it is missing"
    size, listed = path.stat().st_size, list(filter(None, (entry, entry.get("before"))))
    grows = path.name == "train.log" or path.parent.name == "tensorboard"
    if grows and size > entry["bytes"]:
        with path.open("rb") as file:
            digest = hashlib.sha256(file.read(entry["bytes"])).hexdigest()
    elif size not in [one["bytes"] for one in listed]:
        return f"it has {size:,} bytes, {entry['bytes']:,} are listed"
    elif not hashes:
        return ""
    else:
        digest = digest_of(path)
    return "" if digest in [one["sha256"] for one in listed] else "its SHA-256 is not the listed one"


def _files(folder: Path) -> Iterator[Path]:
    for here, inner, names in os.walk(folder):
        at = Path(here)
        own = at == folder or not any((at / name).is_file() for name in (MANIFEST, "status.json"))
        inner[:] = sorted(inner) if own else []
        yield from (at / name for name in sorted(names) if own and name[0] != "." and name != MANIFEST)
