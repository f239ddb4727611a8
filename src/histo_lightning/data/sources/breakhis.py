"""BreakHis from its authors: downloaded, verified as far as possible, unpacked, and its origin noted.

The authors publish no checksum: the announced length, gzip's checksum and the census of file names are compared.
"""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from histo_lightning.data.breakhis.names import census_names
from histo_lightning.data.breakhis.records import census_message, record_of
from histo_lightning.data.sources.downloads import fetch, sha256_of
from histo_lightning.data.sources.folder import DamagedArchive, Progress, new_folder, unpack
from histo_lightning.errors import UserError
from histo_lightning.runs import read_json, write_json

log = logging.getLogger("histo_lightning")
OFFICIAL_URL = "http://www.inf.ufpr.br/vri/databases/BreaKHis_v1.tar.gz"
NAME = "BreaKHis_v1"


def fetch_breakhis(folder: Path, *, url: str = OFFICIAL_URL, progress: Progress | None = None) -> Path:
    """Download and unpack BreakHis, where neither it nor its archive from this ``url`` or the user's own is there.

    Args:
        folder: gets ``BreaKHis_v1``, which is returned, and ``download.json`` (address, bytes, SHA-256, date, census).
            Needs about 8 GB while it unpacks.
        progress: called with (bytes done, bytes in all), first of the download, then of the archive.

    Raises:
        UserError: no connection, a damaged archive, no BreakHis image in it, no room on the disk. The same call
            resumes where it stopped.
    """
    folder = folder.expanduser()
    images, archive, note = folder / NAME, folder / f"{NAME}.tar.gz", folder / "download.json"
    with new_folder(images, f"{folder}: cannot be written") as building:
        if images.is_dir() and any(images.iterdir()):
            return images
        origin = read_json(note)
        if archive.is_file() and origin.get("bytes") != archive.stat().st_size:
            log.info("using %s, which is there already", archive)
            origin = _origin(None, archive, sha256_of(archive))
        elif not archive.is_file() or origin.get("url") not in (None, url):
            advice = "download it another way and set dataset.root"
            sha256 = fetch(url, archive, key="dataset.url", progress=progress, advice=advice)
            origin = _origin(url, archive, sha256)
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
        census = census_message([r for name in sorted(names) if (r := record_of(name)) is not None])
        log.info("%s", census)
        write_json(note, origin | {"census": census})
        if downloaded:
            archive.unlink()
    return images


def _origin(url: str | None, archive: Path, sha256: str) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"url": url, "bytes": archive.stat().st_size, "sha256": sha256, "date": now}
