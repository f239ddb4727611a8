"""A data set on disk: its files, its records, and a sentence about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from histo_lightning.data.breakhis.records import Record, breakhis_records, census_message, folder_records
from histo_lightning.data.pixels.decode import BREAKHIS_SIZES, image_height
from histo_lightning.data.sources.archives import is_archive, unpacked
from histo_lightning.data.sources.breakhis import OFFICIAL_URL, fetch_breakhis
from histo_lightning.data.sources.downloads import Progress
from histo_lightning.data.sources.folder import Folder
from histo_lightning.data.synthetic.dataset import ensure_synthetic
from histo_lightning.errors import UserError

NAMES = ("synthetic", "breakhis", "folders")
DOWNLOADS = "breakhis"  # below the cache folder, where no root says where else


@dataclass(frozen=True)
class Source:
    """A data set on disk: its files, its records over all magnifications, and a sentence about it.

    ``sizes``: allowed native (width, height) of its images in pixels; None allows any.
    """

    name: str
    files: Folder
    records: Sequence[Record]
    message: str
    sizes: Sequence[tuple[int, int]] | None = None


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
) -> Folder:
    """A data set's image files; the synthetic one is drawn, and an archive unpacked, on first use.

    Args:
        root: the folder or the archive that holds the images.
        download: fetch BreakHis into ``root`` (by default below ``cache_dir``) where it is not there yet; from
            ``url``, by default the authors' address. Progress then counts bytes.

    Raises:
        UserError: no such data set, folder or archive; see also :func:`fetch_breakhis`.
    """
    if name not in NAMES:
        raise UserError(f"dataset.name={name}: allowed are {', '.join(NAMES)}")
    if name == "synthetic":
        return Folder(
            ensure_synthetic(
                cache_dir,
                images_per_slide=images_per_slide,
                image_size=image_size,
                seed=seed,
                progress=progress,
            )
        )
    path = Path(root).expanduser()
    if name == "breakhis" and download:
        folder = path if root else cache_dir / DOWNLOADS
        return Folder(fetch_breakhis(folder, url=url or OFFICIAL_URL, progress=progress))
    if not root:
        raise UserError(
            "dataset.root is not set: give the folder or the .tar.gz that holds the images "
            "(dataset.root=/path/to/BreaKHis_v1)"
        )
    if is_archive(path):
        return Folder(unpacked(path, cache_dir, progress))
    if not path.is_dir():
        raise UserError(f"dataset.root={path}: no such folder or .tar.gz; give the one that holds the images")
    return Folder(path)


def native_sizes(name: str, image_size: int = 350) -> Sequence[tuple[int, int]] | None:
    """Allowed (width, height) of a data set's images, the usual one first; None allows any."""
    if name == "synthetic":
        return ((image_size, image_height(image_size)),)
    return BREAKHIS_SIZES if name == "breakhis" else None


def open_source(name: str, files: Folder, *, image_size: int = 350) -> Source:
    """What the names of a data set's files say; ``image_size`` is the width of synthetic images, in pixels.

    Raises:
        UserError: see :func:`breakhis_records` and :func:`folder_records`.
    """
    paths, sizes = files.paths(), native_sizes(name, image_size)
    if name != "folders":
        records = breakhis_records(paths, files.root)
        drawn = f"synthetic data set: {len(records):,} drawn images under BreakHis names"
        return Source(name, files, records, drawn if name == "synthetic" else census_message(records), sizes)
    records = folder_records(paths, files.root)
    unknown = sum(not record.case for record in records)
    message = f"folders: {len(records):,} images in train/, val/ and test/"
    if unknown:
        message += f"; GROUPING UNKNOWN: {unknown:,} names do not say their case, so leaks cannot be seen"
    return Source(name, files, records, message, sizes)
