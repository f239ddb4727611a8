"""A data set on disk: its folder, its records, and a sentence about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from histo_lightning.config.schema import DatasetConfig
from histo_lightning.data.breakhis.records import Record, breakhis_records, census_message, folder_records
from histo_lightning.data.pixels.decode import BREAKHIS_SIZES, image_height
from histo_lightning.data.sources.breakhis import OFFICIAL_URL, fetch_breakhis
from histo_lightning.data.sources.folder import ARCHIVES, Progress, image_paths, unpacked
from histo_lightning.data.synthetic.dataset import IMAGE_SIZE, IMAGES_PER_SLIDE, ensure_synthetic
from histo_lightning.errors import UserError


@dataclass(frozen=True)
class Source:
    """Records over all magnifications; ``sizes``: allowed native (width, height) in pixels, None allows any."""

    name: str
    root: Path
    records: Sequence[Record]
    message: str
    sizes: Sequence[tuple[int, int]] | None = None


def find_root(dataset: DatasetConfig, cache_dir: Path, progress: Progress | None = None) -> Path:
    """The folder of a data set's images; it is drawn, fetched (``dataset.download``) or unpacked on first use.

    ``progress`` is called with (images drawn, images in all), or with bytes of a download or an archive. UserError where
    there is no such folder or archive; see also :func:`fetch_breakhis`.
    """
    if dataset.name == "synthetic":
        images, size = dataset.images_per_slide or IMAGES_PER_SLIDE, dataset.image_size or IMAGE_SIZE
        return ensure_synthetic(cache_dir, images, size, dataset.seed or 0, progress=progress)
    path = Path(dataset.root).expanduser()
    if dataset.name == "breakhis" and dataset.download:
        folder = path if dataset.root else cache_dir / "breakhis"
        return fetch_breakhis(folder, url=dataset.url or OFFICIAL_URL, progress=progress)
    if not dataset.root:
        advice = "give the folder or the .tar.gz that holds the images (dataset.root=/path/to/BreaKHis_v1)"
        raise UserError(f"dataset.root is not set: {advice}")
    if path.name.lower().endswith(ARCHIVES) and path.is_file():
        return unpacked(path, cache_dir, progress)
    if not path.is_dir():
        problem = "no such folder or .tar.gz"
        raise UserError(f"dataset.root={dataset.root}: {problem}; give the one that holds the images")
    return path


def native_sizes(dataset: DatasetConfig) -> Sequence[tuple[int, int]] | None:
    """Allowed (width, height) of a data set's images, the usual one first; None allows any."""
    if dataset.name == "synthetic":
        width = dataset.image_size or IMAGE_SIZE
        return ((width, image_height(width)),)
    return BREAKHIS_SIZES if dataset.name == "breakhis" else None


def open_source(dataset: DatasetConfig, root: Path) -> Source:
    """What the names of a data set's files say; UserError where they say nothing, or contradict each other."""
    read = folder_records if dataset.name == "folders" else breakhis_records
    records = read(image_paths(root), root)
    message = census_message(records)
    if dataset.name == "synthetic":
        message = f"synthetic data set: {len(records):,} drawn images under BreakHis names"
    elif dataset.name == "folders":
        message = f"folders: {len(records):,} images in train/, val/ and test/"
        if unknown := sum(not record.case for record in records):
            message += f"; GROUPING UNKNOWN: {unknown:,} names do not say their case, so leaks cannot be seen"
    return Source(dataset.name, root, records, message, native_sizes(dataset))
