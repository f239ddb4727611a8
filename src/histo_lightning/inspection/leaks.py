"""What the sets of a split share: cases, slides, images and pixels that appear in more than one of them.

The set that is held out is test, or val where a split has no test set; the other side is all other sets together. What
is counted between these two is the headline. Every two sets are compared too, so a case that train and val share is
seen as well: it spoils the choice of an epoch, though not the test score, and is called a leak.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from histo_lightning.data.breakhis.names import Name, parse_name
from histo_lightning.data.splits.reading import NamedSplit

if TYPE_CHECKING:
    from histo_lightning.inspection.pixel_comparison import ComparedPixels


@dataclass(frozen=True, slots=True)
class Member:
    """One image of a split.

    ``key`` says which image it is: the BreakHis name whatever its folder and ending, since that name is unique;
    for other names the path as written, since ``1.png`` may be in every folder. ``name`` is None there.
    """

    key: str
    path: str
    name: Name | None


Side = Mapping[str, Member]


def member(path: str) -> Member:
    """The image that a path of a split speaks of. A BreakHis name says as much with another ending than ``.png``, or none."""
    base = path.rsplit("/", 1)[-1]
    name = parse_name((base.rpartition(".")[0] or base) + ".png")
    return Member(path if name is None else name.file_name, path, name)


@dataclass(frozen=True, slots=True)
class Shared:
    """What two sides of a split share.

    Attributes:
        sides: their names; the second is the one held out.
        slides, cases: on both sides, sorted.
        touched: images of the second side whose case is on the first.
        first, held: images of the first and of the second side.
        images: keys of images on both sides.
        twins: slides, without their subtype, of which one side holds a subtype that is not the other side's: one
            specimen, as 14-13412 is in the full set as DC and as LC.
        identical: an image of the second side and one of the first, with equal native pixels and different keys; the
            twins' are left out. None where no pixels were compared.
        suspicious: likewise for different cases that look alike: nearly the same, but not equal in their pixels.
    """

    sides: tuple[str, str]
    slides: tuple[str, ...]
    cases: tuple[str, ...]
    touched: int
    first: int
    held: int
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

    @property
    def blind(self) -> bool:
        """Nothing could be checked: no name says its case, and no pixels were compared."""
        return self.unknown == self.images and not self.compared


def audit_split(split: NamedSplit, pixels: "ComparedPixels | None" = None) -> Findings:
    """Compare every two parts of a split.

    Args:
        split: two parts or more, from :func:`read_splits`.
        pixels: of its images, from :func:`compare_pixels`; None compares names only.
    """
    listed = {part: [member(path) for path in paths] for part, paths in split.parts.items()}
    parts: dict[str, Side] = {part: {m.key: m for m in members} for part, members in listed.items()}
    held = "test" if "test" in parts else "val"
    others = {part: members for part, members in parts.items() if part != held}
    first = {key: m for members in others.values() for key, m in members.items()}
    everyone = {**first, **parts[held]}
    headline = _shared((" or ".join(others), held), first, parts[held], pixels)
    pairs = tuple(_shared((a, b), parts[a], parts[b], pixels) for a, b in combinations(parts, 2))
    counts = [Counter(m.key for m in members) for members in listed.values()]
    unreadable = sorted(pixels.unreadable.items()) if pixels else []
    return Findings(
        name=split.name,
        parts={part: len(members) for part, members in parts.items()},
        headline=headline,
        pairs=pairs,
        unknown=sum(m.name is None for members in parts.values() for m in members.values()),
        repeated={key: n for each in counts for key, n in sorted(each.items()) if n > 1},
        compared=len(everyone.keys() & pixels.digests.keys()) if pixels else None,
        missing=tuple(sorted(everyone.keys() & pixels.missing)) if pixels else (),
        unreadable={everyone[key].path: reason for key, reason in unreadable if key in everyone},
        passed_over=split.passed_over,
    )


def _shared(sides: tuple[str, str], first: Side, second: Side, pixels: "ComparedPixels | None") -> Shared:
    names = [[m.name for m in side.values() if m.name] for side in (first, second)]
    slides, cases = ([{getattr(name, key) for name in side} for side in names] for key in ("slide", "case"))
    common = cases[0] & cases[1]
    subtypes = [{(name.case + name.section, name.subtype) for name in side} for side in names]
    specimens = {s for s, _ in subtypes[0]} & {s for s, _ in subtypes[1]}
    kinds = Counter(s for s, _ in subtypes[0] | subtypes[1])
    return Shared(
        sides=sides,
        slides=tuple(sorted(slides[0] & slides[1])),
        cases=tuple(sorted(common)),
        touched=sum(name.case in common for name in names[1]),
        first=len(first),
        held=len(second),
        images=tuple(sorted(first.keys() & second.keys())),
        twins=tuple(sorted(specimen for specimen in specimens if kinds[specimen] > 1)),
        identical=tuple(_identical(first, second, pixels.digests)) if pixels and pixels.digests else None,
        suspicious=tuple(_suspicious(first, second, pixels)) if pixels else (),
    )


def _identical(first: Side, second: Side, digests: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """For each image of the second side the first one, by key, that has its pixels on the other side."""
    by_digest: dict[str, list[Member]] = {}
    for key in sorted(first.keys() & digests.keys()):
        by_digest.setdefault(digests[key], []).append(first[key])
    for key, held in sorted(second.items()):
        for other in by_digest.get(digests.get(key, ""), []):
            if other.key != key and not _are_twins(held.name, other.name):
                yield key, other.key
                break


def _are_twins(a: Name | None, b: Name | None) -> bool:
    return bool(a and b and (a.case, a.section) == (b.case, b.section) and a.subtype != b.subtype)


def _suspicious(first: Side, second: Side, pixels: "ComparedPixels") -> Iterable[tuple[str, str]]:
    for a, b in pixels.suspicious:
        if pixels.digests[a] != pixels.digests[b]:
            yield from ((x, y) for x, y in ((a, b), (b, a)) if x in second and y in first)
