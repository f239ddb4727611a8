"""What the sets of a split share: cases, slides, images and pixels that appear in more than one of them.

The set that is held out is test, or val where a split has no test set; the other side is all other sets together. What
is counted between these two is the headline. Every two sets are compared too, so a case that train and val share is
seen as well: it spoils the choice of an epoch, though not the test score, and is called a leak.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from histo_lightning.data.breakhis.names import Name, parse_name
from histo_lightning.data.splits.reading import NamedSplit

Side = Mapping[str, str]  # paths of images by their keys


def image_key(path: str) -> str:
    """Which image a path of a split speaks of.

    A BreakHis name is unique, whatever its folder and ending: the key is its file name, which ``parse_name`` reads. For
    other names it is the path as written, since ``1.png`` may be in every folder.
    """
    base = path.rsplit("/", 1)[-1]
    name = parse_name((base.rpartition(".")[0] or base) + ".png")
    return name.file_name if name else path


@dataclass(frozen=True)
class ComparedPixels:
    """What is known of the pixels of images, by key.

    Attributes:
        digests: SHA-256 of the native pixels of those that could be read.
        missing: not below the root.
        unreadable: reasons.
        suspicious: two images of different cases that look alike.
    """

    digests: Mapping[str, str]
    missing: frozenset[str]
    unreadable: Mapping[str, str]
    suspicious: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Shared:
    """What two sides of a split share.

    Attributes:
        sides: their names; the second is the one held out.
        first, held: images of the first and of the second side.
        touched: images of the second side whose case is on the first.
        slides, cases, images: on both sides, sorted; images by key.
        twins: slides, without their subtype, of which one side holds a subtype that is not the other side's: one
            specimen, as 14-13412 is in the full set as DC and as LC.
        identical: an image of the second side and one of the first, with equal native pixels and different keys; the
            twins' are left out. None where no pixels were compared.
        suspicious: likewise for different cases that look alike: nearly the same, but not equal in their pixels.
    """

    sides: tuple[str, str]
    first: int
    held: int
    touched: int
    slides: tuple[str, ...]
    cases: tuple[str, ...]
    images: tuple[str, ...]
    twins: tuple[str, ...]
    identical: tuple[tuple[str, str], ...] | None
    suspicious: tuple[tuple[str, str], ...]

    @property
    def leak(self) -> bool:
        """Pairs that only look alike are for a person to judge, and are no leak by themselves."""
        return bool(self.slides or self.cases or self.images or self.twins or self.identical)


@dataclass(frozen=True)
class Findings:
    """The audit of one split.

    Attributes:
        name: of the split within its file.
        parts: images by part, each counted once.
        headline: what the held-out part shares with all others together.
        pairs: what every two parts share.
        unknown: images whose names do not say their case.
        repeated: names that are listed more than once within a part, and how often.
        compared: images whose pixels were compared; None without pixels.
        missing: images that are not below ``dataset.root``.
        unreadable: reasons by path.
        passed_over: images of a folder that are in none of its parts.
    """

    name: str
    parts: dict[str, int]
    headline: Shared
    pairs: tuple[Shared, ...]
    unknown: int
    repeated: dict[str, int]
    compared: int | None
    missing: tuple[str, ...]
    unreadable: dict[str, str]
    passed_over: int

    @property
    def images(self) -> int:
        return sum(self.parts.values())

    @property
    def leak(self) -> bool:
        return any(pair.leak for pair in self.pairs)


def audit_split(split: NamedSplit, pixels: ComparedPixels | None = None) -> Findings:
    """Compare every two parts of a split of two parts or more; without the pixels of its images by names only."""
    listed = {part: [(image_key(path), path) for path in paths] for part, paths in split.parts.items()}
    parts = {part: dict(images) for part, images in listed.items()}
    held = "test" if "test" in parts else "val"
    others = [part for part in parts if part != held]
    first = {key: path for part in others for key, path in parts[part].items()}
    everyone = first | parts[held]
    counts = [Counter(key for key, _ in images) for images in listed.values()]
    unreadable = sorted(pixels.unreadable.items()) if pixels else []
    return Findings(
        name=split.name,
        parts={part: len(side) for part, side in parts.items()},
        headline=_shared((" or ".join(others), held), first, parts[held], pixels),
        pairs=tuple(_shared((a, b), parts[a], parts[b], pixels) for a, b in combinations(parts, 2)),
        unknown=sum(parse_name(key) is None for side in parts.values() for key in side),
        repeated={key: n for each in counts for key, n in sorted(each.items()) if n > 1},
        compared=len(everyone.keys() & pixels.digests.keys()) if pixels else None,
        missing=tuple(sorted(everyone.keys() & pixels.missing)) if pixels else (),
        unreadable={everyone[key]: reason for key, reason in unreadable if key in everyone},
        passed_over=split.passed_over,
    )


def _shared(sides: tuple[str, str], first: Side, second: Side, pixels: ComparedPixels | None) -> Shared:
    names = [[name for name in map(parse_name, side) if name] for side in (first, second)]
    slides, cases = ([{getattr(name, unit) for name in side} for side in names] for unit in ("slide", "case"))
    specimens = [set(map(_specimen, side)) for side in slides]
    subtypes = Counter(map(_specimen, slides[0] | slides[1]))
    common = cases[0] & cases[1]
    return Shared(
        sides=sides,
        first=len(first),
        held=len(second),
        touched=sum(name.case in common for name in names[1]),
        slides=tuple(sorted(slides[0] & slides[1])),
        cases=tuple(sorted(common)),
        images=tuple(sorted(first.keys() & second.keys())),
        twins=tuple(sorted(each for each in specimens[0] & specimens[1] if subtypes[each] > 1)),
        identical=tuple(_identical(first, second, pixels.digests)) if pixels and pixels.digests else None,
        suspicious=tuple(_suspicious(first, second, pixels)) if pixels else (),
    )


def _specimen(slide: str) -> str:
    """A slide without its subtype."""
    return slide.partition("-")[2]


def _are_twins(a: Name | None, b: Name | None) -> bool:
    return bool(a and b and a.slide != b.slide and _specimen(a.slide) == _specimen(b.slide))


def _identical(first: Side, second: Side, digests: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """For each image of the second side the first one, by key, that has its pixels on the other side."""
    by_digest: dict[str, list[str]] = {}
    for key in sorted(first.keys() & digests.keys()):
        by_digest.setdefault(digests[key], []).append(key)
    for key in sorted(second.keys() & digests.keys()):
        for other in by_digest.get(digests[key], []):
            if other != key and not _are_twins(parse_name(key), parse_name(other)):
                yield key, other
                break


def _suspicious(first: Side, second: Side, pixels: ComparedPixels) -> Iterable[tuple[str, str]]:
    for a, b in pixels.suspicious:
        if pixels.digests[a] != pixels.digests[b]:
            yield from ((x, y) for x, y in ((a, b), (b, a)) if x in second and y in first)
