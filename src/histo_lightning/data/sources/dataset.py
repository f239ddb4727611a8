"""A data set on disk: its folder, its records, and a sentence about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from histo_lightning.config.schema import DatasetConfig
from histo_lightning.data.breakhis.records import Record, breakhis_records, census_message, folder_records
from histo_lightning.data.pixels.decode import BREAKHIS_SIZES, image_height
from histo_lightning.data.sources.archives import is_archive, unpacked
from histo_lightning.data.sources.breakhis import OFFICIAL_URL, fetch_breakhis
from histo_lightning.data.sources.folder import Progress, image_paths
from histo_lightning.data.synthetic.dataset import IMAGE_SIZE, IMAGES_PER_SLIDE, ensure_synthetic
from histo_lightning.errors import UserError


@dataclass(frozen=True)
class Source:
    """A data set on disk: its folder, its records over all magnifications, and a sentence about it.

    ``sizes``: allowed native (width, height) of its images in pixels; None allows any.
    """

    name: str
    root: Path
    records: Sequence[Record]
    message: str
    sizes: Sequence[tuple[int, int]] | None = None


def find_root(dataset: DatasetConfig, cache_dir: Path, progress: Progress | None = None) -> Path:
    """The folder of a data set's images; the synthetic one is drawn, and an archive unpacked, on first use.

    With ``dataset.download`` BreakHis is fetched into ``root`` (by default below ``cache_dir``) where it is not there yet.
    ``progress`` is called with (images drawn, images in all), or with bytes of a download or an archive.

    Raises:
        UserError: no such folder or archive; see also :func:`fetch_breakhis`.
    """
    if dataset.name == "synthetic":
        images, size = dataset.images_per_slide or IMAGES_PER_SLIDE, dataset.image_size or IMAGE_SIZE
        drawn = {"images_per_slide": images, "image_size": size, "seed": dataset.seed or 0}
        return ensure_synthetic(cache_dir, **drawn, progress=progress)
    path = Path(dataset.root).expanduser()
    if dataset.name == "breakhis" and dataset.download:
        folder = path if dataset.root else cache_dir / "breakhis"
        return fetch_breakhis(folder, url=dataset.url or OFFICIAL_URL, progress=progress)
    if not dataset.root:
        raise UserError(
            "dataset.root is not set: give the folder or the .tar.gz that holds the images "
            "(dataset.root=/path/to/BreaKHis_v1)"
        )
    if is_archive(path):
        return unpacked(path, cache_dir, progress)
    if not path.is_dir():
        raise UserError(
            f"dataset.root={dataset.root}: no such folder or .tar.gz; give the one that holds the images"
        )
    return path


def native_sizes(dataset: DatasetConfig) -> Sequence[tuple[int, int]] | None:
    """Allowed (width, height) of a data set's images, the usual one first; None allows any."""
    if dataset.name == "synthetic":
        width = dataset.image_size or IMAGE_SIZE
        return ((width, image_height(width)),)
    return BREAKHIS_SIZES if dataset.name == "breakhis" else None


def open_source(dataset: DatasetConfig, root: Path) -> Source:
    """What the names of a data set's files say; UserError where they say nothing, or contradict each other."""
    name, paths, sizes = dataset.name, image_paths(root), native_sizes(dataset)
    if name != "folders":
        records = breakhis_records(paths, root)
        drawn = f"synthetic data set: {len(records):,} drawn images under BreakHis names"
        return Source(name, root, records, drawn if name == "synthetic" else census_message(records), sizes)
    records = folder_records(paths, root)
    unknown = sum(not record.case for record in records)
    message = f"folders: {len(records):,} images in train/, val/ and test/"
    if unknown:
        message += f"; GROUPING UNKNOWN: {unknown:,} names do not say their case, so leaks cannot be seen"
    return Source(name, root, records, message, sizes)
