"""Every form in which people keep a split of BreakHis, read as they stand: repeated names and leaks included.

A run refuses a split that is wrong (:mod:`histo_lightning.data.split_files`); an audit wants to see what is wrong
with it. Read are the authors' ``dsfoldN.txt``, Kaggle's ``Folds.csv``, any CSV with a column of paths and one of
parts, a run's ``split.json``, and a folder ``train/ val/ test/`` (or a folder of such folders, as the authors'
own script leaves them).
"""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import NoReturn

from histo_lightning.data.files import Folder
from histo_lightning.data.records import PARTS
from histo_lightning.data.split_files import PART_NAMES
from histo_lightning.errors import UserError

MOST_BYTES = 64 * 2**20  # the list of all names in five folds takes 5 MB: more is an archive or an image stack
PATH_COLUMNS = ("path", "filename", "file", "image")
PART_COLUMNS = ("part", "split", "grp")
FOLD_COLUMNS = ("fold",)
DELIMITERS = (",", ";", "\t")  # some spreadsheets write semicolons
LONGEST_SHOWN = 160
ACCEPTED = "a dsfoldN.txt, a Folds.csv, a CSV path,part, a split.json or a folder train/ val/ test/"
Row = tuple[int, str, str, str]  # line of the file, fold ("" where there are none), path, part


@dataclass(frozen=True, slots=True)
class NamedSplit:
    """One split: paths of images by part as they are written, with ``/``, in their order, repeated ones too.

    ``name`` tells the splits of one file apart (``fold 3``). Parts without images are left out.
    ``passed_over``: images of a folder that stand in none of its parts.
    """

    name: str
    parts: dict[str, list[str]]
    passed_over: int = 0


def printable(text: str) -> str:
    """A name from outside, safe to print: control characters are escaped, very long names are cut."""
    safe = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return safe if len(safe) <= LONGEST_SHOWN else safe[:LONGEST_SHOWN] + "..."


def read_splits(path: str | Path) -> list[NamedSplit]:
    """Read the one or several splits of a file or folder, in the order in which they first appear.

    Raises:
        UserError: no such file, a form that is not known, a row that cannot be understood, an unknown part, no
            image, or a split of one part only. It names the file, the row, and what to do.
    """
    if not str(path):
        raise UserError(f"split_file is not set: give {ACCEPTED}")
    place = Path(path).expanduser()
    shown = printable(str(place))
    splits = _tree(place, shown) if place.is_dir() else _file(place, shown)
    for split in splits:
        if len(split.parts) < 2:
            where = f"{shown}, {split.name}" if len(splits) > 1 else shown
            raise UserError(
                f"{where}: every image stands in part {next(iter(split.parts))}; an audit compares two parts or more"
            )
    return splits


def _file(place: Path, shown: str) -> list[NamedSplit]:
    text = _text(place, shown)
    if not text.strip():
        raise UserError(f"{shown}: the file is empty; give {ACCEPTED}")
    if place.suffix.lower() == ".json" or text.lstrip()[0] in "{[":
        rows = list(_json_rows(text, shown))
    else:
        rows = list(_text_rows(text, shown))
    if not rows:
        raise UserError(f"{shown}: no image is listed below its first line; give {ACCEPTED}")
    splits: dict[str, dict[str, list[str]]] = {}
    for line, fold, image, part in rows:
        image = image.strip().replace("\\", "/")
        if not image.rsplit("/", 1)[-1]:
            raise UserError(f"{shown}, row {line}: the name of the image is missing; fill it in")
        known = PART_NAMES.get(part.strip().lower())
        if known is None:
            raise UserError(
                f"{shown}, row {line}: unknown part '{printable(part)}'; write train, val or test"
            )
        splits.setdefault(fold, {}).setdefault(known, []).append(image)
    return [
        NamedSplit(f"fold {printable(fold)}" if fold else printable(place.name), _in_order(parts))
        for fold, parts in splits.items()
    ]


def _text(place: Path, shown: str) -> str:
    try:
        if not place.is_file():
            raise UserError(f"split_file={shown}: no such file or folder; give {ACCEPTED}")
        size = place.stat().st_size
        if size > MOST_BYTES:
            raise UserError(f"split_file={shown}: {size / 1e6:,.0f} MB is no list of names; give {ACCEPTED}")
        return place.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UserError(f"split_file={shown}: cannot be read ({reason}); give {ACCEPTED}") from error


def _json_rows(text: str, shown: str) -> Iterator[Row]:
    """The rows of a ``split.json``; its images count as rows, from 1."""
    try:
        parts = json.loads(text)["parts"]
        lists = {str(part): list(images) for part, images in parts.items() if not isinstance(images, str)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{shown}: not a split.json (no lists of images under 'parts'); give {ACCEPTED}") from error
    if len(lists) != len(parts):
        raise UserError(f"{shown}: a part of a split.json is a list of image names; write it as a list")
    line = 0
    for part, images in lists.items():
        for image in images:
            line += 1
            if not isinstance(image, str):
                raise UserError(f"{shown}, image {line}: {printable(repr(image))} is not a name; write it as text")
            yield line, "", image, part


def _text_rows(text: str, shown: str) -> Iterator[Row]:
    head = next(line for line in text.splitlines() if line.strip())
    for delimiter in DELIMITERS:
        columns = [column.strip(' "').lower() for column in head.split(delimiter)]
        path, part, fold = (_column(columns, n) for n in (PATH_COLUMNS, PART_COLUMNS, FOLD_COLUMNS))
        if path is not None and part is not None:
            yield from _table_rows(text, shown, delimiter, (path, part, fold), len(columns))
            return
    if head.count("|") == 3:
        yield from _authors_rows(text, shown)
        return
    raise UserError(
        f"{shown}, row 1: '{printable(head)}' is neither a row image.png|100|1|train nor a header with path and part; "
        f"give {ACCEPTED}"
    )


def _column(columns: list[str], names: Iterable[str]) -> int | None:
    return next((columns.index(name) for name in names if name in columns), None)


def _table_rows(
    text: str, shown: str, delimiter: str, where: tuple[int, int, int | None], width: int
) -> Iterator[Row]:
    """Rows of a CSV with a header; ``where`` has the columns of path, part and fold."""
    path, part, fold = where
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    headed = False
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not headed:
                headed = True
                continue
            if len(cells) != width:
                _refuse(shown, reader.line_num, len(cells), width)
            yield reader.line_num, "" if fold is None else cells[fold].strip(), cells[path], cells[part]
    except csv.Error as error:
        raise UserError(
            f"{shown}, row {reader.line_num}: not readable as CSV ({error}); close the quotes, and double those in names"
        ) from error


def _refuse(shown: str, line: int, found: int, width: int) -> NoReturn:
    raise UserError(
        f"{shown}, row {line}: {found} columns where the first line has {width}; put names with commas in quotes"
    )


def _authors_rows(text: str, shown: str) -> Iterator[Row]:
    for line, row in enumerate(text.splitlines(), start=1):
        if not row.strip():
            continue
        cells = row.split("|")
        if len(cells) != 4:
            raise UserError(f"{shown}, row {line}: '{printable(row)}' is not image.png|100|1|train; mend the row")
        yield line, cells[2].strip(), cells[0], cells[3]


def _in_order(parts: dict[str, list[str]]) -> dict[str, list[str]]:
    return {part: parts[part] for part in PARTS if parts.get(part)}


def _tree(place: Path, shown: str) -> list[NamedSplit]:
    """A folder with the parts as its folders, or with such folders inside it (``fold1/train/...``): one split each."""
    paths = Folder(place).paths()
    if not paths:
        raise UserError(f"split_file={shown}: no image below this folder; give {ACCEPTED}")
    top = _tree_parts(paths, 0)
    if len(top) >= 2:
        return [NamedSplit(printable(place.resolve().name), top, len(paths) - sum(map(len, top.values())))]
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(path.split("/", 1)[0], []).append(path)
    found = {folder: (_tree_parts(inside, 1), len(inside)) for folder, inside in groups.items()}
    splits = [
        NamedSplit(printable(folder), parts, count - sum(map(len, parts.values())))
        for folder, (parts, count) in found.items()
        if len(parts) >= 2
    ]
    if splits:
        return splits
    raise UserError(
        f"split_file={shown}: the images do not stand in two or more of the folders train/, val/ and test/; "
        "move them there, or give a CSV path,part"
    )


def _tree_parts(paths: list[str], depth: int) -> dict[str, list[str]]:
    """Paths by the part that their folder at a depth says."""
    parts: dict[str, list[str]] = {}
    for path in paths:
        folders = path.split("/")[:-1]
        part = PART_NAMES.get(folders[depth].lower()) if len(folders) > depth else None
        if part is not None:
            parts.setdefault(part, []).append(path)
    return _in_order(parts)
