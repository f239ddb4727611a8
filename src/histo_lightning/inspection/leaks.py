"""What the sets of a split share: cases, slides, images and pixels that appear in more than one of them.

The headline counts between the held-out set (test, or val where there is no test set) and all others together. Every two
sets are compared too: a case that train and val share spoils the choice of an epoch, and is called a leak.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from histo_lightning.data.breakhis.names import parse_name
from histo_lightning.data.splits.reading import NamedSplit

Side = Mapping[str, str]  # paths of images by their keys
Figures = dict[str, Any]


def image_key(path: str) -> str:
    """Which image a path of a split speaks of: its BreakHis file name, or the path, since ``1.png`` may be in every folder."""
    base = path.rsplit("/", 1)[-1]
    name = parse_name((base.rpartition(".")[0] or base) + ".png")
    return name.file_name if name else path


@dataclass(frozen=True)
class ComparedPixels:
    """What is known of the pixels of images, by key."""

    digests: Mapping[str, str]  # SHA-256 of the native pixels of those that could be read
    missing: frozenset[str]  # not below the root
    unreadable: Mapping[str, str]  # reasons
    suspicious: Sequence[tuple[str, str]]  # two images of different cases that look alike


def audit_split(split: NamedSplit, pixels: ComparedPixels | None = None) -> Figures:
    """Compare the held-out part of a split with all others, and in ``pairs`` every two; without ``pixels`` by names only."""
    listed = {part: [(image_key(path), path) for path in paths] for part, paths in split.parts.items()}
    parts = {part: dict(images) for part, images in listed.items()}
    held = "test" if "test" in parts else "val"
    others = [part for part in parts if part != held]
    first = {key: path for part in others for key, path in parts[part].items()}
    everyone = first | parts[held]
    counts = [Counter(key for key, _ in images) for images in listed.values()]
    known = pixels or ComparedPixels({}, frozenset(), {}, ())
    pairs = [_shared([a, b], parts[a], parts[b], known) for a, b in combinations(parts, 2)]
    return {
        "name": split.name,  # within its file
        **_shared([" or ".join(others), held], first, parts[held], known),
        "leak": any(pair["leak"] for pair in pairs),
        "parts": {part: len(side) for part, side in parts.items()},  # each image counted once
        "held_out": held,
        "pairs": pairs,
        "grouping_unknown": sum(parse_name(key) is None for side in parts.values() for key in side),
        "repeated": {key: n for each in counts for key, n in sorted(each.items()) if n > 1},  # within a part
        "images_compared": len(everyone.keys() & pixels.digests.keys()) if pixels else None,
        "missing": sorted(everyone.keys() & known.missing),
        "unreadable": {everyone[k]: why for k, why in sorted(known.unreadable.items()) if k in everyone},
        "passed_over": split.passed_over,
    }


def _shared(sides: list[str], first: Side, second: Side, pixels: ComparedPixels) -> Figures:
    """What two sides share, sorted; the second one is held out, and images are given by key.

    ``twins`` are slides of one specimen under two subtypes, as 14-13412 is DC and LC. ``identical_pixels`` are an image of the
    second side and one of the first, no twins; ``suspicious_pairs`` only look alike, which is no leak by itself.
    """
    names = [[name for name in map(parse_name, side) if name] for side in (first, second)]
    slides, cases = ([{getattr(name, unit) for name in side} for side in names] for unit in ("slide", "case"))
    specimens = [set(map(_specimen, side)) for side in slides]
    subtypes = Counter(map(_specimen, slides[0] | slides[1]))
    digests = pixels.digests
    ordered = [pair for a, b in pixels.suspicious for pair in ((a, b), (b, a)) if digests[a] != digests[b]]
    lists: dict[str, list[Any]] = {
        "slides": sorted(slides[0] & slides[1]),
        "cases": sorted(cases[0] & cases[1]),
        "images": sorted(first.keys() & second.keys()),
        "twins": sorted(each for each in specimens[0] & specimens[1] if subtypes[each] > 1),
        "identical_pixels": list(_identical(first, second, digests)),
    }
    counts = {"sides": sides, "leak": any(lists.values()), "images_by_side": [len(first), len(second)]}
    counts |= {f"{unit}_on_both_sides": len(lists[unit]) for unit in ("slides", "cases")}
    counts["test_images_touched"] = sum(name.case in lists["cases"] for name in names[1])
    counts["twin_slides_on_both_sides"] = len(lists["twins"])
    counts["identical_pixels_on_both_sides"] = len(lists["identical_pixels"]) if digests else None
    suspicious = [(a, b) for a, b in ordered if a in second and b in first]
    return counts | {"images_in_two_parts": len(lists["images"]), **lists, "suspicious_pairs": suspicious}


def _specimen(slide: str) -> str:
    return slide.partition("-")[2]  # without its subtype


def _identical(first: Side, second: Side, digests: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """For each image of the second side the first one, by key, that has its pixels on the other side."""
    by_digest: dict[str, list[str]] = {}
    for key in sorted(first.keys() & digests.keys()):
        by_digest.setdefault(digests[key], []).append(key)
    for key in sorted(second.keys() & digests.keys()):
        for other in by_digest.get(digests[key], []):
            a, b = ((name := parse_name(one)) and name.slide for one in (key, other))
            twins = a and b and a != b and _specimen(a) == _specimen(b)
            if other != key and not twins:
                yield key, other
                break
