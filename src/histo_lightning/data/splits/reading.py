"""Every form in which people keep a split of BreakHis, read as it is written: repeated names and leaks included.

The authors' ``dsfoldN.txt``, Kaggle's ``Folds.csv``, any CSV with a column of paths and one of parts, a run's
``split.json``, and a folder ``train/ val/ test/`` (or a folder of such folders, as the authors' own script leaves them).
"""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import StringIO
from itertools import groupby
from pathlib import Path

from histo_lightning.data.breakhis.records import PART_NAMES, PARTS, part_of
from histo_lightning.errors import UserError, escaped
from histo_lightning.runs import read_bytes

PATH_COLUMNS = ("path", "filename", "file", "image")
PART_COLUMNS = ("part", "split", "grp")
DELIMITERS = (",", ";", "\t")  # some spreadsheets write semicolons
ACCEPTED = "a dsfoldN.txt, a Folds.csv, a CSV path,part, a split.json or a folder train/ val/ test/"
LONGEST_SHOWN = 160  # characters of a name
MOST_BYTES = 64 * 2**20  # five folds of all names take 5 MB: more is no list of names
Row = tuple[int, str, str, str]  # line of the file, fold ("" where there are none), path, part


@dataclass(frozen=True, slots=True)
class NamedSplit:
    """One split, as it is written; parts without images are left out."""

    name: str  # distinguishes the splits of one file: ``fold 3``
    parts: dict[str, list[str]]  # paths of images by part, with ``/``, in their order, repeated ones too
    passed_over: int = 0  # images of a folder that are in none of its parts


def printable(text: str) -> str:
    """A name from outside, safe to print; very long ones are cut."""
    safe = escaped(text)
    return safe if len(safe) <= LONGEST_SHOWN else safe[:LONGEST_SHOWN] + "..."


def read_splits(path: str | Path, key: str = "split_file") -> list[NamedSplit]:
    """The splits of a file or folder, in the order in which they first appear.

    UserError, with the path by the user's ``key`` and the row, for what is not there, not known or no split.
    """
    if not str(path):
        raise UserError(f"{key} is not set: give {ACCEPTED}")
    file = Path(path).expanduser()
    shown = printable(str(file))
    splits = _folder_splits(file, f"{key}={shown}") if file.is_dir() else _file_splits(file, shown, key)
    for split in splits:
        if len(split.parts) < 2:
            where, part = f"{shown}, {split.name}" if len(splits) > 1 else shown, next(iter(split.parts))
            raise UserError(f"{where}: every image is in part {part}; a split has two parts or more")
    return splits


def _named(name: str, images: Iterable[tuple[str, str | None]]) -> NamedSplit:
    """A split of paths with their parts; paths without a part are counted."""
    parts: dict[str | None, list[str]] = {part: [] for part in (*PARTS, None)}
    for path, part in images:
        parts[part].append(path)
    return NamedSplit(printable(name), {part: parts[part] for part in PARTS if parts[part]}, len(parts[None]))


def _folder_splits(folder: Path, shown: str) -> list[NamedSplit]:
    """A folder with the parts as its folders, or with such folders inside it (``fold1/train/...``): one split each."""
    from histo_lightning.data.sources.folder import image_paths

    paths = image_paths(folder)
    if not paths:
        raise UserError(f"{shown}: no image below this folder; give {ACCEPTED}")
    split = _named(folder.resolve().name, ((path, part_of(path)) for path in paths))
    inside = [
        _named(name, ((path, part_of(path.partition("/")[2])) for path in group))
        for name, group in groupby(paths, key=lambda path: path.partition("/")[0])
    ]
    if splits := [split] if len(split.parts) > 1 else [split for split in inside if len(split.parts) > 1]:
        return splits
    problem = "the images are not in two or more of the folders train/, val/ and test/"
    raise UserError(f"{shown}: {problem}; move them there, or give a CSV path,part")


def _file_splits(file: Path, shown: str, key: str) -> list[NamedSplit]:
    try:
        if not file.is_file():
            raise UserError(f"{key}={shown}: no such file or folder; give {ACCEPTED}")
        if (size := file.stat().st_size) > MOST_BYTES:
            raise UserError(f"{key}={shown}: {size / 1e6:,.0f} MB is no list of names; give {ACCEPTED}")
        text = read_bytes(file).decode("utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UserError(f"{key}={shown}: cannot be read ({reason}); give {ACCEPTED}") from error
    if not text.strip():
        raise UserError(f"{key}={shown}: the file is empty; give {ACCEPTED}")
    is_json = file.suffix.lower() == ".json" or text.lstrip()[0] in "{["
    splits: dict[str, list[tuple[str, str]]] = {}
    for line, fold, path, part in _json_rows(text, shown) if is_json else _text_rows(text, shown):
        path = path.strip().replace("\\", "/")
        if not path.rsplit("/", 1)[-1]:
            raise UserError(f"{shown}, row {line}: the name of the image is missing; fill it in")
        if (name := part.strip().lower()) not in PART_NAMES:
            given = printable(part)
            raise UserError(f"{shown}, row {line}: unknown part '{given}'; write train, val or test")
        splits.setdefault(fold, []).append((path, PART_NAMES[name]))
    if not splits:
        raise UserError(f"{shown}: no image is listed below its first line; give {ACCEPTED}")
    return [_named(f"fold {fold}" if fold else file.name, images) for fold, images in splits.items()]


def _json_rows(text: str, shown: str) -> Iterator[Row]:
    """The rows of a ``split.json``; its images count as rows, from 1."""
    try:
        parts = dict(json.loads(text)["parts"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        problem = "not a split.json (no lists of images under 'parts')"
        raise UserError(f"{shown}: {problem}; give {ACCEPTED}") from error
    if not all(isinstance(images, list) for images in parts.values()):
        raise UserError(f"{shown}: a part of a split.json is a list of image names; write it as a list")
    rows = ((str(part), image) for part, images in parts.items() for image in images)
    for line, (part, image) in enumerate(rows, start=1):
        if not isinstance(image, str):
            name = printable(repr(image))
            raise UserError(f"{shown}, image {line}: {name} is not a name; write it as text")
        yield line, "", image, part


def _text_rows(text: str, shown: str) -> Iterator[Row]:
    """The rows of a CSV with a header, or of the authors' form; the first line that is not empty tells which."""
    head = next(line for line in text.splitlines() if line.strip())
    for delimiter in DELIMITERS:
        columns = [column.strip(' "').lower() for column in head.split(delimiter)]
        path = next((columns.index(name) for name in PATH_COLUMNS if name in columns), None)
        part = next((columns.index(name) for name in PART_COLUMNS if name in columns), None)
        if path is not None and part is not None:
            fold = columns.index("fold") if "fold" in columns else None
            for line, cells in _cells(text, shown, delimiter, len(columns))[1:]:
                yield line, "" if fold is None else cells[fold].strip(), cells[path], cells[part]
            return
    if head.count("|") != 3:
        problem = "is neither a row image.png|100|1|train nor a header with path and part"
        raise UserError(f"{shown}, row 1: '{printable(head)}' {problem}; give {ACCEPTED}")
    for line, (name, _, number, given_part) in _cells(text, shown, "|", 4):
        yield line, number.strip(), name, given_part


def _cells(text: str, shown: str, delimiter: str, width: int) -> list[tuple[int, list[str]]]:
    """The rows of a CSV that are not empty, with their line, each of one width."""
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        advice = "close the quotes, and double those in names"
        raise UserError(f"{shown}, row {reader.line_num}: not readable as CSV ({error}); {advice}") from error
    for line, cells in rows:
        if len(cells) != width:
            problem = f"{len(cells)} columns where the first line has {width}"
            raise UserError(f"{shown}, row {line}: {problem}; put names with '{delimiter}' in quotes")
    return rows
