"""Problems of a copy of BreakHis that its file names and folders show; none of them is mended."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from histo_lightning.data.breakhis.names import CLASSES, SUBTYPE_NAMES, Name, census, census_names, parse_name
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

_SLIDE_FOLDER = re.compile(r"SOB_[BM]_(A|F|PT|TA|DC|LC|MC|PC)[_-](\d{2}-\d{1,6}[A-Z]{0,3})", re.I | re.ASCII)
_MAGNIFICATION_FOLDER = re.compile(r"(40|100|200|400)(?: ?x|[ _-]?mag)?", re.I | re.ASCII)


@dataclass(frozen=True, slots=True)
class Problem:
    """A row of ``problems.csv``."""

    kind: str  # one of :data:`KINDS`
    image: str  # file name; empty where it concerns no single image
    path: str  # relative to the root, with ``/``; empty where there is no file
    detail: str  # what is wrong, in words


def _contradiction(folder: str, name: Name) -> str:
    """What a file's name says that its folder's name contradicts, in words; empty where they agree."""
    slide, magnification = _SLIDE_FOLDER.fullmatch(folder), _MAGNIFICATION_FOLDER.fullmatch(folder)
    for words, truth in ((CLASSES, name.class_name), (SUBTYPE_NAMES.values(), SUBTYPE_NAMES[name.subtype])):
        if folder.lower() in words and folder.lower() != truth:
            return truth
    if slide and "-".join(slide.groups()).upper() != name.slide:
        return f"slide {name.slide}"
    return f"{name.magnification}X" if magnification and int(magnification[1]) != name.magnification else ""


def inspect_names(paths: Sequence[str]) -> list[Problem]:
    """Hold the paths of all image files of a copy against the names' grammar, their folders and the census.

    The problems come by kind in the order of :data:`KINDS`, then by image and path; only decoding can tell ``unreadable``.
    """
    problems = []
    first: dict[str, str] = {}
    for path in sorted(paths):
        *folders, image = path.split("/")
        if first.setdefault(image, path) != path:
            problems.append(Problem("duplicate name", image, path, f"also at {first[image]}"))
        if (name := parse_name(image)) is None:
            problems.append(Problem("outside grammar", image, path, "not named as in BreakHis"))
            continue
        if image not in census_names():
            known = "is" if name.slide in census() else "is not"
            problems.append(Problem("unknown", image, path, f"slide {name.slide} {known} in the census"))
        truths = {folder: truth for folder in folders if (truth := _contradiction(folder, name))}
        if details := [f"folder {folder}, but the name says {truth}" for folder, truth in truths.items()]:
            problems.append(Problem("wrong folder", image, path, "; ".join(details)))
    absent = census_names() - first.keys()
    problems += [Problem("missing", image, "", "in the census, not on disk") for image in absent]
    if {TWIN_KEPT, TWIN_DROPPED} <= {name.slide for name in map(parse_name, first) if name}:
        parts = "splits by case keep DC, the eight-class task leaves both out, split=official keeps both"
        detail = f"slide 13412 is in the set as DC and as LC, as in the full set: {parts}"
        problems.append(Problem("split twin", "", "", detail))
    return sorted(problems, key=lambda p: (list(KINDS).index(p.kind), p.image, p.path))


def missing_by_group(problems: Iterable[Problem]) -> dict[tuple[str, int], tuple[int, int]]:
    """How many images a (slide, magnification) lacks, out of how many of the census; where nothing lacks, no entry."""
    names = [parse_name(problem.image) for problem in problems if problem.kind == "missing"]
    counts = Counter((name.slide, name.magnification) for name in names if name)
    return {key: (count, len(census()[key[0]].sequences[key[1]])) for key, count in sorted(counts.items())}
