"""A data set on disk: its folder, drawn, fetched from the authors or unpacked; its records; and a sentence about it."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from histo_lightning.config.schema import DatasetConfig
from histo_lightning.data.breakhis.names import census_names, parse_name
from histo_lightning.data.breakhis.records import Record, breakhis_records, census_message, folder_records
from histo_lightning.data.pixels.decode import BREAKHIS_SIZES, image_height
from histo_lightning.data.sources.downloads import fetch
from histo_lightning.data.sources.folder import DamagedArchive, Progress, image_paths, new_folder, unpack
from histo_lightning.data.synthetic.dataset import IMAGE_SIZE, IMAGES_PER_SLIDE, ensure_synthetic
from histo_lightning.errors import UserError
from histo_lightning.runs import read_json, write_json
from histo_lightning.runs.files import utf8
from histo_lightning.runs.manifest import digest_of

log = logging.getLogger("histo_lightning")
OFFICIAL_URL = "http://www.inf.ufpr.br/vri/databases/BreaKHis_v1.tar.gz"
NAME = "BreaKHis_v1"
ARCHIVES = (".tar.gz", ".tgz", ".tar")


@dataclass(frozen=True)
class Source:
    """Records over all magnifications; ``sizes``: allowed native (width, height) in pixels, None allows any."""

    name: str
    root: Path
    records: Sequence[Record]
    message: str
    sizes: Sequence[tuple[int, int]] | None = None


def fetch_breakhis(folder: Path, *, url: str = OFFICIAL_URL, progress: Progress | None = None) -> Path:
    """Download and unpack BreakHis, where neither it nor its archive from this ``url`` or the user's own is there.

    ``folder`` gets ``BreaKHis_v1``, which is returned, and ``download.json``; it needs about 8 GB meanwhile. ``progress`` is
    called with (bytes done, bytes in all) of the download, then of the archive. The authors publish no checksum: the
    announced length, gzip's checksum and the census of names are compared. UserError where that fails, there is no
    connection or no room; the same call resumes.
    """
    folder = folder.expanduser()
    images, archive, note = folder / NAME, folder / f"{NAME}.tar.gz", folder / "download.json"
    with new_folder(images, f"{folder}: cannot be written") as building:
        if images.is_dir() and any(images.iterdir()):
            return images
        origin = read_json(note)
        if archive.is_file() and origin.get("bytes") != archive.stat().st_size:
            log.info("using %s, which is there already", archive)
            origin = {"url": None, "sha256": digest_of(archive)}
        elif not archive.is_file() or origin.get("url") not in (None, url):
            advice = "download it another way and set dataset.root"
            sha256 = fetch(url, archive, key="dataset.url", progress=progress, advice=advice)
            origin = {"url": url, "sha256": sha256}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        origin = {"bytes": archive.stat().st_size, "date": now} | origin
        write_json(note, origin)  # a process killed while it unpacks still knows the origin
        downloaded = origin["url"] is not None  # the user's own file is not ours to remove
        try:
            unpack(archive, building / "archive", progress)
            names = {path.name for path in (building / "archive").rglob("*") if path.is_file()}
            if not names & census_names():
                raise DamagedArchive(f"{archive}: none of its {len(names):,} file(s) is a BreakHis image")
        except DamagedArchive as error:
            if not downloaded:
                raise UserError(f"{error}; or remove {archive} to download it") from error
            archive.unlink()
            note.unlink()
            advice = "the archive was removed, the same command downloads it again"
            raise UserError(f"dataset.url={url}: {error}; {advice}") from error
        top = building / "archive" / NAME
        (top if list(top.parent.iterdir()) == [top] else top.parent).rename(images)
        census = census_message({name for name in names if parse_name(name)})
        log.info("%s", census)
        write_json(note, origin | {"census": census})
        if downloaded:
            archive.unlink()
    return images


def unpacked(archive: Path, cache_dir: Path, progress: Progress | None = None) -> Path:
    """The folder below ``cache_dir/archives`` of an archive's path, size and time; filled on first use by :func:`unpack`."""
    about = archive.stat()
    key = hashlib.sha256(utf8(f"{archive.resolve()}\0{about.st_size}\0{about.st_mtime_ns}")).hexdigest()[:24]
    if not (folder := cache_dir / "archives" / key).is_dir():
        unpack(archive, folder, progress)
    return folder


def find_root(dataset: DatasetConfig, cache_dir: Path, progress: Progress | None = None) -> Path:
    """The folder of a data set's images; it is drawn, fetched (``dataset.download``) or unpacked on first use.

    ``progress`` is called with (images or bytes done, in all). UserError where there is no such folder or archive.
    """
    if dataset.name == "synthetic":
        images, size = dataset.images_per_slide or IMAGES_PER_SLIDE, dataset.image_size or IMAGE_SIZE
        return ensure_synthetic(cache_dir, images, size, dataset.seed or 0, progress=progress)
    path = Path(dataset.root).expanduser()
    if dataset.name == "breakhis" and dataset.download:
        folder = path if dataset.root else cache_dir / "breakhis"
        return fetch_breakhis(folder, url=dataset.url or OFFICIAL_URL, progress=progress)
    if not dataset.root:
        raise UserError("dataset.root is not set: give a folder or .tar.gz (dataset.root=/path/BreaKHis_v1)")
    if path.name.lower().endswith(ARCHIVES) and path.is_file():
        return unpacked(path, cache_dir, progress)
    if not path.is_dir():
        problem = "no such folder or .tar.gz; give the one that holds the images"
        raise UserError(f"dataset.root={dataset.root}: {problem}")
    return path


def native_sizes(dataset: DatasetConfig) -> Sequence[tuple[int, int]] | None:
    """Allowed (width, height) of a data set's images, the usual one first; None allows any."""
    if dataset.name == "synthetic":
        width = dataset.image_size or IMAGE_SIZE
        return ((width, image_height(width)),)
    return BREAKHIS_SIZES if dataset.name == "breakhis" else None


def open_source(dataset: DatasetConfig, root: Path) -> Source:
    """What the names of a data set's files say; UserError where they say nothing, or contradict each other."""
    records = (folder_records if dataset.name == "folders" else breakhis_records)(image_paths(root), root)
    message = census_message({record.image for record in records})
    if dataset.name == "synthetic":
        message = f"synthetic data set: {len(records):,} drawn images under BreakHis names"
    elif dataset.name == "folders":
        message = f"folders: {len(records):,} images in train/, val/ and test/"
        if unknown := sum(not record.case for record in records):
            message += f"; GROUPING UNKNOWN: {unknown:,} names do not say their case, so leaks cannot be seen"
    return Source(dataset.name, root, records, message, native_sizes(dataset))
