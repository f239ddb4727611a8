"""The pixels of a split's images: who is whose copy, and who looks like whom."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from histo_lightning.data.pixels.cache import Pixels, default_cache_dir, load_pixels
from histo_lightning.data.pixels.duplicates import nearest_pairs
from histo_lightning.data.sources.folder import ImageFiles
from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.sources.dataset import find_files, native_sizes
from histo_lightning.data.splits.reading import Member, member
from histo_lightning.data.splits.reading import printable
from histo_lightning.errors import UserError
from histo_lightning.schema import DatasetConfig

STORED_SHORT_SIDE = 256  # as prepare stores BreakHis by default, so that the cache is shared
NEAREST = 200  # pairs that are looked at, for each magnification and for each two of them
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ComparedPixels:
    """What is known of the pixels of images, by ``Member.key``.

    Attributes:
        digests: SHA-256 of the native pixels of those that could be read.
        missing: not found below the root.
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
    files = find_files(dataset.name, dataset.root, cache)
    wanted = {m.key: m for m in members}
    found = _found(files, wanted.values())
    if not found:
        raise UserError(
            f"dataset.root={printable(str(files.root))}: none of the {len(wanted):,} images of the split is below it, "
            f"e.g. {printable(next(iter(wanted.values())).path)}; give the folder that holds them"
        )
    sizes = native_sizes(dataset.name)
    chosen = _with_their_shards(files, found) if sizes else found
    key_of = {record.image: key for key, record in chosen.items()}
    pixels = load_pixels(
        files,
        list(chosen.values()),
        dataset.short_side or STORED_SHORT_SIDE,
        cache,
        sizes=sizes,
        tolerant=True,
        progress=progress("decoding images") if progress else None,
    )
    rows = {key_of[image]: row for row, image in enumerate(pixels.images) if key_of[image] in found}
    readable = {key: row for key, row in rows.items() if found[key].image not in pixels.unreadable}
    return ComparedPixels(
        digests={key: pixels.digests[row] for key, row in readable.items()},
        missing=frozenset(wanted.keys() - found.keys()),
        unreadable={key: pixels.unreadable[found[key].image] for key in rows.keys() - readable.keys()},
        suspicious=_suspicious(
            pixels, readable, found, key_of, progress("comparing images") if progress else None
        ),
    )


def _record(m: Member, path: str) -> Record:
    """A record whose ``image`` is unique: the file name alone only where the grammar makes it so."""
    if m.name is None:
        return Record(path, path, "")
    name = m.name
    return Record(
        path.rsplit("/", 1)[-1],
        path,
        name.class_name,
        name.subtype,
        name.slide,
        name.case,
        name.magnification,
        name.sequence,
    )


def _found(files: ImageFiles, wanted: Iterable[Member]) -> dict[str, Record]:
    """Records by key. BreakHis names are found in any folder, others by their path, or by a name that is there once."""
    paths = files.paths()
    there = set(paths)
    by_key: dict[str, str] = {}
    by_base: dict[str, list[str]] = {}
    for path in paths:
        by_key.setdefault(member(path).key, path)
        by_base.setdefault(path.rsplit("/", 1)[-1], []).append(path)
    found = {}
    for m in wanted:
        path = m.path if m.path in there else by_key.get(m.key, "")
        if not path and m.name is None:
            alike = by_base.get(m.path.rsplit("/", 1)[-1], [])
            path = alike[0] if len(alike) == 1 else ""
        if path:
            found[m.key] = _record(m, path)
    return found


def _with_their_shards(files: ImageFiles, found: dict[str, Record]) -> dict[str, Record]:
    """All images of the magnifications in question: a cache holds a magnification whole, and runs share it."""
    magnifications = {record.magnification for record in found.values()}
    chosen = dict(found)
    for path in files.paths():
        m = member(path)
        if m.name is not None and m.name.magnification in magnifications:
            chosen.setdefault(m.key, _record(m, path))
    return chosen


def _suspicious(
    pixels: Pixels,
    readable: Mapping[str, int],
    found: Mapping[str, Record],
    key_of: Mapping[str, str],
    progress: Progress | None,
) -> list[tuple[str, str]]:
    keys = list(readable)
    rows = np.array([readable[key] for key in keys], dtype=np.int64)
    pairs = nearest_pairs(
        lambda chosen: pixels.take(rows[chosen]),
        [found[key] for key in keys],
        count=NEAREST,
        progress=progress,
    )
    return [(key_of[pair.first], key_of[pair.second]) for pair in pairs if pair.suspicious]
