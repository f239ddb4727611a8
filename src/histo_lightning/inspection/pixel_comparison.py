"""The pixels of a split's images: who is whose copy, and who looks like whom."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from histo_lightning.config.schema import DatasetConfig
from histo_lightning.data.breakhis.names import parse_name
from histo_lightning.data.breakhis.records import Record, record_of
from histo_lightning.data.pixels.cache import default_cache_dir, load_pixels
from histo_lightning.data.pixels.duplicates import nearest_pairs
from histo_lightning.data.sources.dataset import find_root, native_sizes
from histo_lightning.data.sources.folder import image_paths
from histo_lightning.data.splits.reading import printable
from histo_lightning.errors import UserError
from histo_lightning.inspection.leaks import ComparedPixels, Side, image_key
from histo_lightning.report.console import StepProgress

STORED_SHORT_SIDE = 256  # as prepare stores BreakHis by default, so that the cache is shared
NEAREST = 200  # pairs that are looked at, for each magnification


def compare_pixels(wanted: Side, dataset: DatasetConfig, cache_dir: str | None) -> ComparedPixels:
    """Find images (paths as a split writes them, by key) below ``dataset.root`` and compare them; pixels are kept in ``cache_dir``."""
    cache = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
    if dataset.name == "synthetic":  # it is drawn, wherever the root is
        mend = "give dataset=breakhis or dataset=folders"
        raise UserError(f"dataset.root is given with dataset=synthetic, which has none; {mend}")
    root = find_root(dataset, cache)
    paths = image_paths(root)
    present = _present(wanted, paths)
    if not present:
        problem = f"none of the {len(wanted):,} images of the split is below it"
        example = f"e.g. {printable(next(iter(wanted.values())))}; give the folder that holds them"
        raise UserError(f"dataset.root={printable(str(root))}: {problem}, {example}")
    sizes = native_sizes(dataset)
    decoded = dict(present)
    if sizes:  # a cache holds all images of a magnification, and runs share it
        magnifications = {record.magnification for record in present.values()}
        for path in paths:
            name = parse_name(key := image_key(path))
            if name and name.magnification in magnifications:
                decoded.setdefault(key, _record(key, path))
    key_of = {record.image: key for key, record in decoded.items()}
    records, side = list(decoded.values()), dataset.short_side or STORED_SHORT_SIDE
    with StepProgress("decoding images") as progress:
        pixels = load_pixels(root, records, side, cache, sizes=sizes, tolerant=True, progress=progress)
    unreadable = {key_of[image]: reason for image, reason in pixels.unreadable.items()}
    keys = [key_of[image] for image in pixels.images]
    rows = np.flatnonzero([key in present and key not in unreadable for key in keys])
    compared = [present[keys[row]] for row in rows]
    with StepProgress("comparing images") as progress:
        pairs = nearest_pairs(lambda i: pixels.take(rows[i]), compared, count=NEAREST, progress=progress)
    return ComparedPixels(
        digests={keys[row]: pixels.digests[row] for row in rows},
        missing=frozenset(wanted.keys() - present.keys()),
        unreadable={key: reason for key, reason in unreadable.items() if key in present},
        suspicious=[(key_of[pair.first], key_of[pair.second]) for pair in pairs if pair.suspicious],
    )


def _record(key: str, path: str) -> Record:
    """A record whose ``image`` is unique: the file name alone only where the grammar makes it so."""
    record = record_of(key)
    return replace(record, image=path.rsplit("/", 1)[-1], path=path) if record else Record(path, path, "")


def _present(wanted: Side, paths: Sequence[str]) -> dict[str, Record]:
    """Records by key. BreakHis names match in any folder, others by their path, or by a name that is there once."""
    by_key: dict[str, str] = {}
    by_name: dict[str, list[str]] = {}
    for path in paths:
        by_key.setdefault(image_key(path), path)
        by_name.setdefault(path.rsplit("/", 1)[-1], []).append(path)
    known, records = set(paths), {}
    for key, path in wanted.items():
        alike = by_name.get(path.rsplit("/", 1)[-1], [])
        only = alike[0] if len(alike) == 1 and not parse_name(key) else None
        if below := path if path in known else by_key.get(key, only):
            records[key] = _record(key, below)
    return records
