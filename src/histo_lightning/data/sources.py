"""Where records and their pixels come from: the embedded set, BreakHis on disk, or a tree of folders."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from histo_lightning.data.cache import BREAKHIS_SIZES, Progress
from histo_lightning.data.records import Record, census_message, find_breakhis, find_folders
from histo_lightning.data.synthetic import ensure_synthetic
from histo_lightning.errors import UserError


@dataclass(frozen=True)
class Source:
    """A data set on disk: its root, its records over all magnifications, and what is to be said about it.

    ``sizes``: allowed native (width, height) of its images in pixels; None allows any.
    ``folder_parts``: image names by part, where the tree itself says the parts.
    """

    name: str
    root: Path
    records: Sequence[Record]
    message: str
    sizes: Sequence[tuple[int, int]] | None = None
    folder_parts: dict[str, list[str]] | None = field(default=None)


def open_source(
    name: str,
    root: str,
    cache_dir: Path,
    *,
    images_per_slide: int = 4,
    image_size: int = 350,
    seed: int = 0,
    progress: Progress | None = None,
) -> Source:
    """Find a data set's images; the synthetic one is drawn on first use.

    Raises:
        UserError: see :func:`find_breakhis` and :func:`find_folders`.
    """
    if name == "synthetic":
        folder = ensure_synthetic(
            cache_dir, images_per_slide=images_per_slide, image_size=image_size, seed=seed, progress=progress
        )
        records = find_breakhis(folder)
        return Source(
            name, folder, records, f"synthetic data set: {len(records):,} drawn images under BreakHis names"
        )
    if name == "breakhis":
        records = find_breakhis(root)
        return Source(name, Path(root).expanduser(), records, census_message(records), BREAKHIS_SIZES)
    if name == "folders":
        records, parts = find_folders(root)
        unknown = sum(not record.case for record in records)
        message = f"folders: {len(records):,} images in train/, val/ and test/"
        if unknown:
            message += f"; GROUPING UNKNOWN: {unknown:,} names do not say their case, so leaks cannot be seen"
        return Source(name, Path(root).expanduser(), records, message, None, parts)
    raise UserError(f"dataset.name={name}: allowed are synthetic, breakhis, folders")
