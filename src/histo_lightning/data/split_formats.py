"""Every form in which people keep a split of BreakHis, read as they stand: repeated names and leaks included.

A run refuses a split that is wrong (:mod:`histo_lightning.data.split_files`); an audit wants to see what is wrong
with it. Read are the authors' ``dsfoldN.txt``, Kaggle's ``Folds.csv``, any CSV with a column of paths and one of
parts, a run's ``split.json``, and a folder ``train/ val/ test/`` (or a folder of such folders, as the authors'
own script leaves them).
"""

from dataclasses import dataclass
from pathlib import Path

from histo_lightning.data.names import Name, parse_name
from histo_lightning.data.records import PARTS
from histo_lightning.data.split_files import PART_NAMES
from histo_lightning.data.split_rows import ACCEPTED, json_rows, printable, text_rows
from histo_lightning.errors import UserError

MOST_BYTES = 64 * 2**20  # five folds of all names take 5 MB: more is no list of names


@dataclass(frozen=True, slots=True)
class NamedSplit:
    """One split: paths of images by part as they are written, with ``/``, in their order, repeated ones too.

    ``name`` tells the splits of one file apart (``fold 3``). Parts without images are left out.
    ``passed_over``: images of a folder that stand in none of its parts.
    """

    name: str
    parts: dict[str, list[str]]
    passed_over: int = 0


@dataclass(frozen=True, slots=True)
class Member:
    """One image of a split.

    ``key`` says which image it is: the BreakHis name whatever its folder and ending, since that name is unique;
    for other names the path as written, since ``1.png`` may well stand in every folder. ``name`` is None there.
    """

    key: str
    path: str
    name: Name | None


def member(path: str) -> Member:
    """The image that a path of a split speaks of. A BreakHis name says as much with another ending than ``.png``, or none."""
    base = path.rsplit("/", 1)[-1]
    name = parse_name((base.rpartition(".")[0] or base) + ".png")
    return Member(path if name is None else name.file_name, path, name)


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
        rows = list(json_rows(text, shown))
    else:
        rows = list(text_rows(text, shown))
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


def _in_order(parts: dict[str, list[str]]) -> dict[str, list[str]]:
    return {part: parts[part] for part in PARTS if parts.get(part)}


def _tree(place: Path, shown: str) -> list[NamedSplit]:
    """A folder with the parts as its folders, or with such folders inside it (``fold1/train/...``): one split each."""
    from histo_lightning.data.files import (
        Folder,
    )  # reads archives too: a tenth of a second that a file spares

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
