"""BreakHis from its authors: fetched, verified as far as that can be, unpacked, and its origin noted.

The authors publish no checksum. What is checked: the announced length, gzip's checksum, and every file name against
the census.
"""

import logging
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from histo_lightning.data.breakhis.census import census_names
from histo_lightning.data.breakhis.records import census_message, record_of
from histo_lightning.data.sources.archives import DamagedArchive, unpack
from histo_lightning.data.sources.downloads import Progress, fetch, sha256_of
from histo_lightning.errors import UserError
from histo_lightning.runs import read_json, write_json

log = logging.getLogger("histo_lightning")
OFFICIAL_URL = "http://www.inf.ufpr.br/vri/databases/BreaKHis_v1.tar.gz"
NAME = "BreaKHis_v1"


def fetch_breakhis(
    folder: Path,
    *,
    url: str = OFFICIAL_URL,
    timeout_seconds: float = 60.0,
    attempts: int = 5,
    progress: Progress | None = None,
) -> Path:
    """Download and unpack BreakHis; where it is there already, nothing is asked of the network.

    An archive ``BreaKHis_v1.tar.gz`` in the folder is used instead of the network, unless ``download.json`` says that
    it came from another address.

    Args:
        folder: where ``BreaKHis_v1`` and ``download.json`` (address, bytes, SHA-256, date, census) are put.
            Needs about 8 GB while it unpacks.
        url: the archive; ``http:``, ``https:`` or ``file:``.
        timeout_seconds, attempts: see :func:`histo_lightning.data.sources.downloads.fetch`.
        progress: called with (bytes done, bytes in all), first of the download, then of the archive.

    Returns:
        The folder with the images.

    Raises:
        UserError: no connection, a damaged archive, no BreakHis image in it, no room on the disk. The same call goes
            on where it stopped.
    """
    folder = folder.expanduser()
    images, archive, note = folder / NAME, folder / f"{NAME}.tar.gz", folder / "download.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{NAME}.lock"):
            if images.is_dir() and any(images.iterdir()):
                return images
            origin = read_json(note)
            if archive.is_file() and origin.get("bytes") != archive.stat().st_size:
                log.info("using %s, which is there already", archive)
                origin = _origin(None, archive, sha256_of(archive))
            elif not archive.is_file() or origin.get("url") not in (None, url):
                advice = "download it another way and set dataset.root"
                digest = fetch(
                    url, archive, key="dataset.url", timeout_seconds=timeout_seconds, attempts=attempts,
                    progress=progress, advice=advice,
                )  # fmt: skip
                origin = _origin(url, archive, digest)
            write_json(note, origin)  # a process killed while it unpacks still knows the origin
            try:
                census = _unpack_checked(archive, images, progress)
            except DamagedArchive as error:
                if origin["url"] is None:
                    raise UserError(f"{error}; or remove {archive} to download it") from error
                archive.unlink()
                note.unlink()
                raise UserError(
                    f"dataset.url={url}: {error}; the archive was removed, the same command downloads it again"
                ) from error
            write_json(note, origin | {"census": census})
            if origin["url"] is not None:  # the user's own file is not ours
                archive.unlink()
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror or error}); free space or choose another folder"
        ) from error
    return images


def _origin(url: str | None, archive: Path, digest: str) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"url": url, "bytes": archive.stat().st_size, "sha256": digest, "date": now}


def _unpack_checked(archive: Path, images: Path, progress: Progress | None) -> str:
    """Unpack, hold the names against the census, and let the folder appear in one step; returns what the census says."""
    unpacked = images.with_name(f".{NAME}.unpacked")
    shutil.rmtree(unpacked, ignore_errors=True)  # left by a killed process
    try:
        unpack(archive, unpacked, progress)
        names = {path.name for path in unpacked.rglob("*") if path.is_file()}
        if not names & census_names():
            raise DamagedArchive(f"{archive}: none of its {len(names):,} file(s) is a BreakHis image")
        message = census_message([r for name in sorted(names) if (r := record_of(name)) is not None])
        log.info("%s", message)
        alone = [path.name for path in unpacked.iterdir()] == [NAME]
        (unpacked / NAME if alone else unpacked).rename(images)
        return message
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
