"""What ``audit`` finds: which cases, slides, images and pixels of a split stand in more than one part.

The side that is held out is test, or val where a split has no test part; the other side is all other parts together.
What is counted between these two is the headline. Every two parts are compared too, so a case that train and val
share is found as well: it spoils the choice of an epoch, though not the test score, and is called a leak.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING

from histo_lightning.data.breakhis.names import Name
from histo_lightning.data.splits.reading import Member, NamedSplit, member

if TYPE_CHECKING:
    from histo_lightning.data.split_pixels import ComparedPixels

# Twins are one slide under two subtypes: in the full set 14-13412, which stands there as DC and as LC.


@dataclass(frozen=True, slots=True)
class Shared:
    """What two sides of a split share.

    Attributes:
        sides: their names; the second is the one held out.
        slides, cases: on both sides, sorted.
        touched: images of the second side whose case stands on the first.
        first, held: images of the first and of the second side.
        images: keys of images that stand on both sides.
        twins: slides, without their subtype, of which one side holds a subtype that is not the other side's.
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
    suspicious: tuple[tuple[str, str], ...] = ()

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
        missing: images that were not found below ``dataset.root``.
        unreadable: reasons by path.
        notes: what else is to be said, a sentence each.
    """

    name: str
    parts: dict[str, int]
    headline: Shared
    pairs: tuple[Shared, ...]
    unknown: int
    repeated: dict[str, int]
    compared: int | None = None
    missing: tuple[str, ...] = ()
    unreadable: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

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


Side = Mapping[str, Member]


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
    together = {key: m for members in others.values() for key, m in members.items()}
    everyone = {**together, **parts[held]}
    keys = everyone.keys()
    headline = _compare((" or ".join(others), held), together, parts[held], pixels)
    pairs = [(a, b) for a, b in combinations(parts, 2) if len(parts) > 2]
    reasons = sorted(pixels.unreadable.items()) if pixels else []
    unreadable = {everyone[key].path: reason for key, reason in reasons if key in keys}
    passed = f"{split.passed_over:,} images stand in no part's folder and were passed over"
    return Findings(
        name=split.name,
        parts={part: len(members) for part, members in parts.items()},
        headline=headline,
        pairs=tuple(_compare((a, b), parts[a], parts[b], pixels) for a, b in pairs) or (headline,),
        unknown=sum(m.name is None for members in parts.values() for m in members.values()),
        repeated=_repeated(listed.values()),
        compared=None if pixels is None else len(keys & pixels.digests.keys()),
        missing=() if pixels is None else tuple(sorted(keys & pixels.missing)),
        unreadable=unreadable,
        notes=(passed,) if split.passed_over else (),
    )


def _repeated(listed: Iterable[Sequence[Member]]) -> dict[str, int]:
    counts = [Counter(m.key for m in members) for members in listed]
    return {key: count for each in counts for key, count in sorted(each.items()) if count > 1}


def _slides(side: Side) -> set[str]:
    return {m.name.slide for m in side.values() if m.name}


def _specimens(side: Side) -> dict[str, set[str]]:
    """Subtypes by slide without its subtype, ``14-13412``: more than one is a twin."""
    found: dict[str, set[str]] = {}
    for slide in _slides(side):
        subtype, _, rest = slide.partition("-")
        found.setdefault(rest, set()).add(subtype)
    return found


def _twins(first: Side, second: Side) -> tuple[str, ...]:
    here, there = _specimens(first), _specimens(second)
    return tuple(sorted(s for s in here.keys() & there.keys() if len(here[s] | there[s]) > 1))


def _are_twins(a: Name | None, b: Name | None) -> bool:
    return bool(a and b and (a.case, a.section) == (b.case, b.section) and a.subtype != b.subtype)


def _compare(sides: tuple[str, str], first: Side, second: Side, pixels: "ComparedPixels | None") -> Shared:
    here, there = ({m.name.case for m in side.values() if m.name} for side in (first, second))
    cases = here & there
    return Shared(
        sides=sides,
        slides=tuple(sorted(_slides(first) & _slides(second))),
        cases=tuple(sorted(cases)),
        touched=sum(m.name is not None and m.name.case in cases for m in second.values()),
        first=len(first),
        held=len(second),
        images=tuple(sorted(first.keys() & second.keys())),
        twins=_twins(first, second),
        identical=None
        if not (pixels and pixels.digests)
        else tuple(_identical(first, second, pixels.digests)),
        suspicious=() if pixels is None else tuple(_suspicious(first, second, pixels)),
    )


def _identical(first: Side, second: Side, digests: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """For each image of the second side the first one, by key, that has its pixels on the other side."""
    by_digest: dict[str, list[Member]] = {}
    for key in sorted(first):
        if key in digests:
            by_digest.setdefault(digests[key], []).append(first[key])
    for key, held in sorted(second.items()):
        for other in by_digest.get(digests.get(key, ""), []):
            if other.key != key and not _are_twins(held.name, other.name):
                yield key, other.key
                break


def _suspicious(first: Side, second: Side, pixels: "ComparedPixels") -> Iterable[tuple[str, str]]:
    for a, b in pixels.suspicious:
        if pixels.digests[a] != pixels.digests[b]:
            if a in second and b in first:
                yield a, b
            if b in second and a in first:
                yield b, a
