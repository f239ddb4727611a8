"""Where records and their pixels come from: the embedded set, BreakHis on disk, or a tree of folders."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from histo_lightning.data.cache import Progress
from histo_lightning.data.decode import BREAKHIS_SIZES, image_height
from histo_lightning.data.download import OFFICIAL_FOLDS_URL, OFFICIAL_URL, fetch_breakhis
from histo_lightning.data.files import ImageFiles, image_files
from histo_lightning.data.records import Record, breakhis_records, census_message, folder_records
from histo_lightning.data.synthetic import ensure_synthetic
from histo_lightning.errors import UserError

NAMES = ("synthetic", "breakhis", "folders")
DOWNLOADS = "breakhis"  # below the cache folder, where no root says where else


@dataclass(frozen=True)
class Source:
    """A data set on disk: its files, its records over all magnifications, and what is to be said about it.

    ``sizes``: allowed native (width, height) of its images in pixels; None allows any.
    ``folder_parts``: image names by part, where the tree itself says the parts.
    """

    name: str
    files: ImageFiles
    records: Sequence[Record]
    message: str
    sizes: Sequence[tuple[int, int]] | None = None
    folder_parts: dict[str, list[str]] | None = field(default=None)


def find_files(
    name: str,
    root: str,
    cache_dir: Path,
    *,
    images_per_slide: int = 4,
    image_size: int = 350,
    seed: int = 0,
    download: bool = False,
    url: str | None = None,
    progress: Progress | None = None,
) -> ImageFiles:
    """A data set's image files; the synthetic one is drawn on first use.

    Args:
        download: fetch BreakHis into ``root`` (by default below ``cache_dir``) where it is not there yet; from
            ``url``, by default the authors' address. Progress then counts bytes.

    Raises:
        UserError: no such data set, folder or archive; see also :func:`fetch_breakhis`.
    """
    if name not in NAMES:
        raise UserError(f"dataset.name={name}: allowed are {', '.join(NAMES)}")
    if name == "synthetic":
        folder = ensure_synthetic(
            cache_dir, images_per_slide=images_per_slide, image_size=image_size, seed=seed, progress=progress
        )
        return image_files(folder, cache_dir)
    if name == "breakhis" and download:
        folder = Path(root).expanduser() if root else cache_dir / DOWNLOADS
        folds = OFFICIAL_FOLDS_URL if url is None else None
        return image_files(
            fetch_breakhis(folder, url=url or OFFICIAL_URL, folds_url=folds, progress=progress), cache_dir
        )
    return image_files(root, cache_dir)


def native_sizes(name: str, image_size: int = 350) -> Sequence[tuple[int, int]] | None:
    """Allowed (width, height) of a data set's images, the usual one first; None allows any."""
    if name == "synthetic":
        return ((image_size, image_height(image_size)),)
    return BREAKHIS_SIZES if name == "breakhis" else None


def open_source(name: str, files: ImageFiles, *, image_size: int = 350) -> Source:
    """What the names of a data set's files say; ``image_size`` is the width of synthetic images, in pixels.

    Raises:
        UserError: see :func:`breakhis_records` and :func:`folder_records`.
    """
    paths = files.paths()
    if name == "synthetic":
        records = breakhis_records(paths, files.root)
        message = f"synthetic data set: {len(records):,} drawn images under BreakHis names"
        return Source(name, files, records, message, native_sizes(name, image_size))
    if name == "breakhis":
        records = breakhis_records(paths, files.root)
        return Source(name, files, records, census_message(records), native_sizes(name))
    records, parts = folder_records(paths, files.root)
    unknown = sum(not record.case for record in records)
    message = f"folders: {len(records):,} images in train/, val/ and test/"
    if unknown:
        message += f"; GROUPING UNKNOWN: {unknown:,} names do not say their case, so leaks cannot be seen"
    return Source(name, files, records, message, None, parts)
