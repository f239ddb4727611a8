"""Records by case, slide or image, and orders of them that depend on names alone."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from histo_lightning.data.breakhis.records import Record
from histo_lightning.runs.files import utf8

GROUPS = ("case", "slide", "image")  # of a record, from the widest
Groups = dict[str, list[Record]]  # by the name of their part, case, slide or image


def by_group(records: Iterable[Record], group: str) -> Groups:
    """Records by the name of their case, slide or image, in the order in which they come."""
    members: Groups = defaultdict(list)
    for record in records:
        members[getattr(record, group)].append(record)
    return members


def main_subtype(records: Sequence[Record]) -> str:
    """The subtype of most records, of equally frequent ones the first in the alphabet."""
    counts = Counter(record.subtype for record in records)
    return min(counts, key=lambda subtype: (-counts[subtype], subtype))


def content_hash(parts: Mapping[str, Iterable[str]]) -> str:
    """SHA-256 of names by part, as hexadecimal text, independent of their order."""
    canonical = json.dumps({part: sorted(names) for part, names in parts.items()}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def keyed_order(names: Iterable[str], *key: object) -> list[str]:
    """Names in a pseudo-random order that depends on the key alone: by SHA-256, not by a library's generator."""
    prefix = ":".join(str(part) for part in key)
    return sorted(names, key=lambda name: hashlib.sha256(utf8(f"{prefix}:{name}")).digest())


def proportional_order(members: Mapping[str, Sequence[Record]], *key: object) -> list[Record]:
    """Records of several cases in one order by ``key`` whose every beginning holds about the same share of each case.

    One record of each case comes first; within a case its slides take turns.
    """
    everything = [record for records in members.values() for record in records]
    rank = {image: i for i, image in enumerate(keyed_order((r.image for r in everything), *key))}
    position: dict[str, float] = {}
    for records in members.values():
        turns: Counter[str] = Counter()
        turn_of = {}
        for record in sorted(records, key=lambda r: rank[r.image]):
            turn_of[record.image] = turns[record.slide]
            turns[record.slide] += 1
        for i, image in enumerate(sorted(turn_of, key=lambda image: (turn_of[image], rank[image]))):
            position[image] = (i + 0.5) / len(records) if i else 0.0
    return sorted(everything, key=lambda r: (position[r.image], rank[r.image]))
