"""Records: one image each, in any of the layouts people keep BreakHis in."""

from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from histo_lightning.data.breakhis.names import CLASSES, census_names, parse_name
from histo_lightning.errors import UserError

PARTS = ("train", "val", "test")
PART_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test"}  # as people write
PART_NAMES |= dict.fromkeys(("val", "valid", "validation", "dev"), "val")
TWIN_KEPT, TWIN_DROPPED = "DC-14-13412", "LC-14-13412"  # one slide that is in the set under two subtypes
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


def record_of(path: str, class_name: str = "") -> Record | None:
    """The record of a relative path; ``class_name`` only serves names outside the grammar (None without it)."""
    image = path.rsplit("/", 1)[-1]
    if (n := parse_name(image)) is None:
        return Record(image, path, class_name) if class_name else None
    return Record(image, path, n.class_name, n.subtype, n.slide, n.case, n.magnification, n.sequence)


def part_of(path: str) -> str | None:
    """The part that the first folder of a path is named after, in any case; None where it is another folder or a file."""
    folder, slash, _ = path.partition("/")
    return PART_NAMES.get(folder.lower()) if slash else None


def _by_image(records: Iterable[Record]) -> list[Record]:
    """Sorted by file name, which is the key of splits and predictions; refuses one that appears twice."""
    ordered = sorted(records, key=lambda record: record.image)
    if twice := [name for name, count in Counter(r.image for r in ordered).items() if count > 1]:
        problem = f"{len(twice)} file name(s) are in more than one folder, e.g. {twice[0]}"
        raise UserError(f"{problem}: keep one copy of each image below dataset.root")
    return ordered


def breakhis_records(paths: Sequence[str], root: str | Path) -> list[Record]:
    """Records of BreakHis images at ``paths`` below a root, sorted by name; UserError for none, or a name unknown or twice."""
    if not paths:
        raise UserError(f"dataset.root={root}: no image below it; give the folder that holds BreaKHis_v1")
    records = {path: record_of(path) for path in paths}
    if unknown := [path for path, record in records.items() if record is None]:
        problem = f"{len(unknown)} image(s) are not named as in BreakHis, e.g. {unknown[0]}"
        advice = "move them away, or use dataset=folders for a tree of your own"
        raise UserError(f"dataset.root={root}: {problem}: {advice}")
    return _by_image(record for record in records.values() if record is not None)


def folder_records(paths: Sequence[str], root: str | Path) -> list[Record]:
    """Records of the thesis's tree ``<root>/<train|val|test>/<benign|malignant>/``, sorted by file name.

    Names outside the grammar take the class of their folder and have no group; images in other folders are passed over.
    UserError for no image in a part, an unknown class folder, another class than its folder, or a name that appears twice.
    """
    records = []
    for path in filter(part_of, paths):
        top, *class_folder, _ = path.split("/")
        class_name = class_folder[0].lower() if class_folder else ""
        if class_name not in CLASSES:
            raise UserError(f"{root}/{path}: images belong in {top}/benign/ or {top}/malignant/, move it")
        record = record_of(path, class_name)
        if record is None or record.class_name != class_name:
            problem = "its name says another class than its folder"
            raise UserError(f"{root}/{path}: {problem}; the name is the truth, move it")
        records.append(record)
    present = {part_of(record.path) for record in records}
    if absent := [part for part in PARTS if part not in present]:
        needed = "dataset=folders needs train/, val/ and test/, each with images of both classes"
        raise UserError(f"dataset.root={root}: there is no image in {absent[0]}/; {needed}")
    return _by_image(records)


def select_magnification(records: Sequence[Record], magnification: str) -> list[Record]:
    """Records of one magnification (``40x``); ``all`` and names without magnification stay."""
    wanted = None if magnification == "all" else int(magnification.rstrip("x"))
    return [r for r in records if wanted is None or r.magnification in (wanted, 0)]


def without_twins(records: Sequence[Record], task: str) -> tuple[list[Record], list[str]]:
    """Drop what slide 13412 doubles: its LC copy where DC is present, both for ``task=subtype``; and notes."""
    present = {r.slide for r in records} & {TWIN_KEPT, TWIN_DROPPED}
    dropped = present if task == "subtype" else {TWIN_DROPPED} if len(present) == 2 else set()
    remaining = [r for r in records if r.slide not in dropped]
    left_out = len(records) - len(remaining)
    note = f"slide 13412 is in the set twice: its LC copy ({left_out} images) left out"
    if task == "subtype":
        note = f"slide 13412 is in the set as DC and as LC: {left_out} images left out"
    return remaining, [note] if left_out else []


def census_message(names: AbstractSet[str]) -> str:
    """One plain sentence: how much of the census of 7,909 names a copy holds."""
    present, total, unknown = len(names & census_names()), len(census_names()), len(names - census_names())
    if present == total and not unknown:
        return f"census: complete copy, all {total:,} BreakHis images are here"
    sentence = f"census: partial copy, {present:,} of the {total:,} BreakHis images are here"
    return sentence + (f", and {unknown:,} that the census does not know" if unknown else "")
