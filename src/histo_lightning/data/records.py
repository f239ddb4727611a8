"""Records: one image each, found on disk in any of the layouts people keep BreakHis in."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from histo_lightning.data.census import TOTAL_IMAGES, census_names
from histo_lightning.data.names import CLASSES, parse_name
from histo_lightning.errors import UserError

PARTS = ("train", "val", "test")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True, slots=True)
class Record:
    """One image. For a name outside the grammar ``subtype, slide, case`` are empty and ``magnification`` is 0.

    ``path`` is relative to the data set's root, with ``/``; ``image`` is the file name alone.
    """

    image: str
    path: str
    class_name: str
    subtype: str = ""
    slide: str = ""
    case: str = ""
    magnification: int = 0
    sequence: int = 0

    @property
    def label(self) -> int:
        """0 benign, 1 malignant."""
        return CLASSES.index(self.class_name)


def record_of(path: str, class_name: str = "") -> Record | None:
    """The record of a relative path; ``class_name`` only serves names outside the grammar (None without it)."""
    image = path.rsplit("/", 1)[-1]
    name = parse_name(image)
    if name is None:
        return Record(image, path, class_name) if class_name else None
    return Record(
        image, path, name.class_name, name.subtype, name.slide, name.case, name.magnification, name.sequence
    )


def _files(root: Path) -> list[str]:
    """Every image file below a root, relative, sorted; hidden files and macOS' ``__MACOSX`` are passed over."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith(".") and f != "__MACOSX"]
        for name in names:
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES):
                found.append((Path(folder) / name).relative_to(root).as_posix())
    return sorted(found)


def _checked_root(root: str | Path, key: str) -> Path:
    folder = Path(root).expanduser()
    if not str(root):
        raise UserError(
            f"{key} is not set: give the folder that holds the images ({key}=/path/to/BreaKHis_v1)"
        )
    if not folder.is_dir():
        raise UserError(f"{key}={folder}: no such folder; give the folder that holds the images")
    return folder


def refuse_duplicates(records: Iterable[Record]) -> None:
    """Raise UserError where a file name stands twice: image names are the keys of splits and predictions."""
    counts = Counter(record.image for record in records)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise UserError(
            f"{len(twice)} file name(s) stand in more than one folder, e.g. {twice[0]}: "
            "keep one copy of each image below dataset.root"
        )


def find_breakhis(root: str | Path) -> list[Record]:
    """All BreakHis images below a root, whatever the folders are called, sorted by file name.

    Serves the official tree, Kaggle's doubled root, flat folders, ``<mag>X/<class>/``: only file names count.

    Raises:
        UserError: no such folder, no image, a name outside the grammar, or a duplicate name.
    """
    folder = _checked_root(root, "dataset.root")
    paths = _files(folder)
    if not paths:
        raise UserError(f"dataset.root={folder}: no image below it; give the folder that holds BreaKHis_v1")
    records = [record_of(path) for path in paths]
    strange = [path for path, record in zip(paths, records, strict=True) if record is None]
    if strange:
        raise UserError(
            f"dataset.root={folder}: {len(strange)} image(s) are not named as in BreakHis, e.g. {strange[0]}: "
            "move them away, or use dataset=folders for a tree of your own"
        )
    known = [record for record in records if record is not None]
    refuse_duplicates(known)
    return sorted(known, key=lambda record: record.image)


def find_folders(root: str | Path) -> tuple[list[Record], dict[str, list[str]]]:
    """The thesis's tree ``<root>/<train|val|test>/<benign|malignant>/``: records, and image names by part.

    Names inside the grammar say their own class, slide and case; others take the class of their folder and
    have no group.

    Raises:
        UserError: a part is missing or empty, a class folder is unknown, a name says another class than its
            folder, or a name stands twice.
    """
    folder = _checked_root(root, "dataset.root")
    records: list[Record] = []
    parts: dict[str, list[str]] = {}
    for part in PARTS:
        if not (folder / part).is_dir():
            raise UserError(
                f"dataset.root={folder}: there is no {part}/; dataset=folders needs train/, val/ and test/"
            )
        members: list[Record] = []
        for path in _files(folder / part):
            class_name = path.split("/", 1)[0].lower()
            if "/" not in path or class_name not in CLASSES:
                raise UserError(
                    f"{folder / part / path}: images belong in {part}/benign/ or {part}/malignant/, move it there"
                )
            record = record_of(f"{part}/{path}", class_name)
            if record is None or record.class_name != class_name:
                raise UserError(
                    f"{folder / part / path}: its name says another class than its folder; the name is the truth, move it"
                )
            members.append(record)
        if not members:
            raise UserError(
                f"dataset.root={folder}: {part}/ holds no image; each part needs images of both classes"
            )
        records += members
        parts[part] = sorted(record.image for record in members)
    refuse_duplicates(records)
    return sorted(records, key=lambda record: record.image), parts


def census_message(records: Sequence[Record]) -> str:
    """One plain sentence that holds a copy against the census of 7,909 names."""
    names = {record.image for record in records}
    present = len(names & census_names())
    extra = len(names - census_names())
    if present == TOTAL_IMAGES and not extra:
        return f"census: complete copy, all {TOTAL_IMAGES:,} BreakHis images are here"
    sentence = f"census: partial copy, {present:,} of the {TOTAL_IMAGES:,} BreakHis images are here"
    return sentence + (f", and {extra:,} that the census does not know" if extra else "")
