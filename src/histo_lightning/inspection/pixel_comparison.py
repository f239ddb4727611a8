"""The pixels of a split's images: who is whose copy, and who looks like whom."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from histo_lightning.config.schema import DatasetConfig
from histo_lightning.data.breakhis.records import Record, record_of
from histo_lightning.data.pixels.cache import default_cache_dir, load_pixels
from histo_lightning.data.pixels.duplicates import nearest_pairs
from histo_lightning.data.sources.dataset import find_root, native_sizes
from histo_lightning.data.sources.folder import image_paths
from histo_lightning.data.splits.reading import printable
from histo_lightning.errors import UserError
from histo_lightning.inspection.leaks import Member, member

STORED_SHORT_SIDE = 256  # as prepare stores BreakHis by default, so that the cache is shared
NEAREST = 200  # pairs that are looked at, for each magnification
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ComparedPixels:
    """What is known of the pixels of images, by ``Member.key``.

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


def compare_pixels(
    members: Sequence[Member],
    dataset: DatasetConfig,
    cache_dir: str | Path | None,
    progress: Callable[[str], Progress] | None = None,
) -> ComparedPixels:
    """Find the images of one or several splits below ``dataset.root``, and compare them.

    Args:
        members: each image once or more often.
        dataset: where the images are; ``dataset.name`` decides which native sizes are allowed.
        cache_dir: where pixels are kept; None is the user's own folder.
        progress: gives for a step's name what is called with (images done, images in all).

    Raises:
        UserError: no such root, a set that has none, none of the images below it, or the cache cannot be written.
    """
    cache = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
    if dataset.name == "synthetic":  # it is drawn, wherever the root is
        raise UserError(
            "dataset.root is given with dataset=synthetic, which has none; give dataset=breakhis or dataset=folders"
        )
    root = find_root(dataset, cache)
    paths = image_paths(root)
    wanted = {m.key: m for m in members}
    present = _records(wanted.values(), paths)
    if not present:
        raise UserError(
            f"dataset.root={printable(str(root))}: none of the {len(wanted):,} images of the split is below it, "
            f"e.g. {printable(next(iter(wanted.values())).path)}; give the folder that holds them"
        )
    sizes = native_sizes(dataset)
    decoded = dict(present)
    if sizes:  # a cache holds a magnification whole, and runs share it
        magnifications = {record.magnification for record in present.values()}
        for m in map(member, paths):
            if m.name is not None and m.name.magnification in magnifications:
                decoded.setdefault(m.key, _record(m, m.path))
    key_of = {record.image: key for key, record in decoded.items()}
    pixels = load_pixels(
        root,
        list(decoded.values()),
        dataset.short_side or STORED_SHORT_SIDE,
        cache,
        sizes=sizes,
        tolerant=True,
        progress=progress("decoding images") if progress else None,
    )
    row_of = {key_of[image]: row for row, image in enumerate(pixels.images) if key_of[image] in present}
    readable = {key: row for key, row in row_of.items() if present[key].image not in pixels.unreadable}
    rows = np.array(list(readable.values()), dtype=np.int64)
    pairs = nearest_pairs(
        lambda chosen: pixels.take(rows[chosen]),
        [present[key] for key in readable],
        count=NEAREST,
        progress=progress("comparing images") if progress else None,
    )
    return ComparedPixels(
        digests={key: pixels.digests[row] for key, row in readable.items()},
        missing=frozenset(wanted.keys() - present.keys()),
        unreadable={key: pixels.unreadable[present[key].image] for key in row_of.keys() - readable.keys()},
        suspicious=[(key_of[pair.first], key_of[pair.second]) for pair in pairs if pair.suspicious],
    )


def _record(m: Member, path: str) -> Record:
    """A record whose ``image`` is unique: the file name alone only where the grammar makes it so."""
    record = record_of(m.key) if m.name is not None else None
    return replace(record, image=path.rsplit("/", 1)[-1], path=path) if record else Record(path, path, "")


def _records(wanted: Iterable[Member], paths: Sequence[str]) -> dict[str, Record]:
    """Records by key. BreakHis names are found in any folder, others by their path, or by a name that is there once."""
    by_path = set(paths)
    by_key: dict[str, str] = {}
    by_base: dict[str, list[str]] = {}
    for path in paths:
        by_key.setdefault(member(path).key, path)
        by_base.setdefault(path.rsplit("/", 1)[-1], []).append(path)
    records = {}
    for m in wanted:
        path = m.path if m.path in by_path else by_key.get(m.key, "")
        if not path and m.name is None:
            alike = by_base.get(m.path.rsplit("/", 1)[-1], [])
            path = alike[0] if len(alike) == 1 else ""
        if path:
            records[m.key] = _record(m, path)
    return records
