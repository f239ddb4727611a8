"""What the file names and folders of a copy of BreakHis say about it: a problem a row, none of them mended."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from histo_lightning.data.breakhis.census import census, census_names
from histo_lightning.data.breakhis.names import CLASSES, SUBTYPE_NAMES, Name, parse_name
from histo_lightning.data.breakhis.records import TWIN_DROPPED, TWIN_KEPT

KINDS = {
    "unreadable": "the file cannot be decoded, or is no image that can be used",
    "outside grammar": "the name does not follow BreakHis, so class, slide and case are unknown",
    "duplicate name": "a second file of the same name",
    "wrong folder": "a folder says something else than the file name, which is the truth",
    "missing": "one of the 7,909 images of the full set is not here",
    "unknown": "the name follows BreakHis, but the full set has no such image",
    "split twin": "slide 13412 is in the set under two subtypes",
}
BLOCKING = frozenset({"unreadable", "outside grammar", "duplicate name"})  # training refuses these

_SLIDE_FOLDER = re.compile(
    r"SOB_[BM]_(?P<subtype>A|F|PT|TA|DC|LC|MC|PC)[_-](?P<rest>\d{2}-\d{1,6}[A-Z]{0,3})", re.I | re.ASCII
)
_MAGNIFICATION_FOLDER = re.compile(r"(40|100|200|400)(?: ?x|[ _-]?mag)?", re.I | re.ASCII)
_SUBTYPE_OF_FOLDER = {name: subtype for subtype, name in SUBTYPE_NAMES.items()}


@dataclass(frozen=True, slots=True)
class Problem:
    """A row of ``problems.csv``.

    Attributes:
        kind: one of :data:`KINDS`.
        image: file name; empty where it concerns no single image.
        path: relative to the root, with ``/``; empty where there is no file.
        detail: what is wrong, in words.
    """

    kind: str
    image: str
    path: str
    detail: str


class MissingGroup(NamedTuple):
    """Missing images of one slide at one magnification, out of the census's number of them."""

    slide: str
    magnification: int
    missing: int
    of: int


def _contradiction(folder: str, name: Name) -> str:
    """How a folder's name contradicts a file's name, in words; empty where it does not."""
    lower = folder.lower()
    if lower in CLASSES and lower != name.class_name:
        return f"folder {folder}, but the name says {name.class_name}"
    subtype = _SUBTYPE_OF_FOLDER.get(lower, name.subtype)
    if subtype != name.subtype:
        return f"folder {folder}, but the name says {SUBTYPE_NAMES[name.subtype]}"
    slide = _SLIDE_FOLDER.fullmatch(folder)
    if slide is not None and f"{slide['subtype']}-{slide['rest']}".upper() != name.slide:
        return f"folder {folder}, but the name says slide {name.slide}"
    magnification = _MAGNIFICATION_FOLDER.fullmatch(folder)
    if magnification is not None and int(magnification[1]) != name.magnification:
        return f"folder {folder}, but the name says {name.magnification}X"
    return ""


def _of_path(path: str) -> Iterable[Problem]:
    """The problems that a path shows by itself."""
    *folders, image = path.split("/")
    name = parse_name(image)
    if name is None:
        yield Problem("outside grammar", image, path, "not named as in BreakHis")
        return
    if image not in census_names():
        known = name.slide in census()
        yield Problem("unknown", image, path, f"slide {name.slide} is {'' if known else 'not '}in the census")
    contradictions = [words for folder in folders if (words := _contradiction(folder, name))]
    if contradictions:
        yield Problem("wrong folder", image, path, "; ".join(contradictions))


def inspect_names(paths: Sequence[str]) -> list[Problem]:
    """Hold the images of a copy against the names' grammar, their folders and the census.

    Args:
        paths: of all image files below the root, relative to it, with ``/``, in any order. Folders that say nothing
            about an image (Kaggle's doubled root, ``train/``) are passed over.

    Returns:
        By kind in the order of :data:`KINDS`, then by image and path. All kinds but ``unreadable``, which only
        decoding can tell.
    """
    problems = [problem for path in paths for problem in _of_path(path)]
    first: dict[str, str] = {}
    for path in sorted(paths):
        image = path.rsplit("/", 1)[-1]
        if image in first:
            problems.append(Problem("duplicate name", image, path, f"also at {first[image]}"))
        first.setdefault(image, path)
    for image in census_names() - first.keys():
        problems.append(Problem("missing", image, "", "in the census, not on disk"))
    slides = {name.slide for image in first if (name := parse_name(image)) is not None}
    if {TWIN_KEPT, TWIN_DROPPED} <= slides:
        problems.append(
            Problem(
                "split twin",
                "",
                "",
                "slide 13412 is in the set as DC and as LC, as in the full set: splits by case keep DC, the "
                "eight-class task leaves both out, split=official keeps both",
            )
        )
    order = list(KINDS)
    return sorted(problems, key=lambda p: (order.index(p.kind), p.image, p.path))


def missing_by_group(problems: Iterable[Problem]) -> list[MissingGroup]:
    """How many images each slide lacks at each magnification, by slide and magnification; none where nothing lacks."""
    names = [parse_name(problem.image) for problem in problems if problem.kind == "missing"]
    counts = Counter((name.slide, name.magnification) for name in names if name is not None)
    return [
        MissingGroup(slide, magnification, count, len(census()[slide].sequences[magnification]))
        for (slide, magnification), count in sorted(counts.items())
    ]
