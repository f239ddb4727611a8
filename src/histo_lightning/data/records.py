"""Records: one image each, found on disk in any of the layouts people keep BreakHis in."""

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


def refuse_duplicates(records: Iterable[Record]) -> None:
    """Raise UserError where a file name stands twice: image names are the keys of splits and predictions."""
    counts = Counter(record.image for record in records)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise UserError(
            f"{len(twice)} file name(s) stand in more than one folder, e.g. {twice[0]}: "
            "keep one copy of each image below dataset.root"
        )


def breakhis_records(paths: Sequence[str], root: str | Path) -> list[Record]:
    """Records of BreakHis images below a root, whatever the folders are called, sorted by file name.

    Serves the official tree, Kaggle's doubled root, flat folders, ``<mag>X/<class>/``: only file names count.

    Args:
        paths: relative to ``root``, with ``/``.

    Raises:
        UserError: no image, a name outside the grammar, or a duplicate name.
    """
    if not paths:
        raise UserError(f"dataset.root={root}: no image below it; give the folder that holds BreaKHis_v1")
    records = [record_of(path) for path in paths]
    strange = [path for path, record in zip(paths, records, strict=True) if record is None]
    if strange:
        raise UserError(
            f"dataset.root={root}: {len(strange)} image(s) are not named as in BreakHis, e.g. {strange[0]}: "
            "move them away, or use dataset=folders for a tree of your own"
        )
    known = [record for record in records if record is not None]
    refuse_duplicates(known)
    return sorted(known, key=lambda record: record.image)


def folder_records(paths: Sequence[str], root: str | Path) -> tuple[list[Record], dict[str, list[str]]]:
    """The thesis's tree ``<root>/<train|val|test>/<benign|malignant>/``: records, and image names by part.

    Names inside the grammar say their own class, slide and case; others take the class of their folder and
    have no group. Images outside the three parts are passed over.

    Raises:
        UserError: a part is missing or empty, a class folder is unknown, a name says another class than its
            folder, or a name stands twice.
    """
    records: list[Record] = []
    parts: dict[str, list[str]] = {}
    for part in PARTS:
        members: list[Record] = []
        for path in paths:
            top, _, inner = path.partition("/")
            if top != part:
                continue
            class_name = inner.split("/", 1)[0].lower()
            if "/" not in inner or class_name not in CLASSES:
                raise UserError(
                    f"{root}/{path}: images belong in {part}/benign/ or {part}/malignant/, move it there"
                )
            record = record_of(path, class_name)
            if record is None or record.class_name != class_name:
                raise UserError(
                    f"{root}/{path}: its name says another class than its folder; the name is the truth, move it"
                )
            members.append(record)
        if not members:
            raise UserError(
                f"dataset.root={root}: there is no image in {part}/; dataset=folders needs train/, val/ and test/, "
                "each with images of both classes"
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
