"""BreakHis from its authors: fetched, verified as far as that can be, extracted, and its origin noted.

The authors publish no checksum. What is checked: the announced length, gzip's checksum, every file name against the
census, and the authors' fold lists against the flags that the census holds.
"""

import logging
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from histo_lightning.data.archive import DamagedArchive, extract, read_chosen
from histo_lightning.data.census import OFFICIAL_FOLDS, census, census_names
from histo_lightning.data.names import parse_name
from histo_lightning.data.records import census_message, record_of
from histo_lightning.downloads import Progress, exclusive, fetch, sha256_of
from histo_lightning.errors import UserError
from histo_lightning.runs import read_json, write_json

log = logging.getLogger("histo_lightning")
OFFICIAL_URL = "http://www.inf.ufpr.br/vri/databases/BreaKHis_v1.tar.gz"
OFFICIAL_FOLDS_URL = "http://www.inf.ufpr.br/vri/databases/mkfold.tar.gz"
NAME = "BreaKHis_v1"
BY_HAND = "download it another way and set dataset.root"
_FOLD_LIST = re.compile(r"(?:.*/)?dsfold([1-5])\.txt")


def fetch_breakhis(
    folder: Path,
    *,
    url: str = OFFICIAL_URL,
    folds_url: str | None = OFFICIAL_FOLDS_URL,
    keep_archive: bool = False,
    timeout_seconds: float = 60.0,
    attempts: int = 5,
    progress: Progress | None = None,
) -> Path:
    """Download and extract BreakHis; where it is there already, nothing is asked of the network.

    An archive ``BreaKHis_v1.tar.gz`` that lies in the folder is used instead of the network, unless
    ``download.json`` says that it came from another address.

    Args:
        folder: where ``BreaKHis_v1`` and ``download.json`` (address, bytes, SHA-256, date, census) are put.
            Needs about 8 GB while it extracts.
        url: the archive; ``http:``, ``https:`` or ``file:``.
        folds_url: the authors' fold lists, compared with the embedded ones; None leaves that out.
        keep_archive: whether a fetched archive stays beside the images; one that was there already always stays.
        timeout_seconds, attempts: see :func:`histo_lightning.downloads.fetch`.
        progress: called with (bytes done, bytes in all), first of the download, then of the extraction.

    Returns:
        The folder with the images.

    Raises:
        UserError: no connection, a damaged archive, no BreakHis image in it, fold lists that contradict the census,
            no room on the disk. The same call goes on where it stopped.
    """
    folder = folder.expanduser()
    images = folder / NAME
    if _filled(images):
        return images
    lock = folder / f".{NAME}.fetching"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(lock):
            try:
                if not _filled(images):  # another process may have brought it meanwhile
                    folds = folds_url and _checked_folds(folder, folds_url, timeout_seconds)
                    archive, origin = _archive(folder, url, timeout_seconds, attempts, progress)
                    _unpack(archive, images, url, {**origin, "folds": folds}, progress)
                    if not keep_archive and origin["url"] is not None:  # the user's own file is not ours
                        archive.unlink()
            finally:
                lock.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror or error}); free space or choose another folder"
        ) from error
    return images


def _filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _archive(
    folder: Path, url: str, timeout_seconds: float, attempts: int, progress: Progress | None
) -> tuple[Path, dict[str, Any]]:
    """The archive in the folder, fetched unless it is there, and where it came from."""
    archive = folder / f"{NAME}.tar.gz"
    origin = read_json(folder / "download.json")
    if archive.is_file():
        if origin.get("bytes") != archive.stat().st_size:
            log.info("using %s, which is there already", archive)
            return archive, _origin(None, archive, sha256_of(archive))
        if origin.get("url") in (None, url):
            return archive, origin
    digest = fetch(
        url,
        archive,
        key="dataset.url",
        timeout_seconds=timeout_seconds,
        attempts=attempts,
        progress=progress,
        advice=BY_HAND,
    )
    origin = _origin(url, archive, digest)
    _note(folder, origin)  # a process killed while it extracts still knows the origin
    return archive, origin


def _origin(url: str | None, archive: Path, digest: str) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"url": url, "bytes": archive.stat().st_size, "sha256": digest, "date": now}


def _note(folder: Path, origin: dict[str, Any]) -> None:
    try:
        write_json(folder / "download.json", origin)
    except UserError as error:
        raise UserError(
            f"{folder / 'download.json'}: cannot be written; free space or choose another folder"
        ) from error


def _unpack(archive: Path, images: Path, url: str, origin: dict[str, Any], progress: Progress | None) -> None:
    """Extract, count the images, and let them appear in one step."""
    unpacked = images.with_name(f".{NAME}.unpacked")
    shutil.rmtree(unpacked, ignore_errors=True)  # left by a killed process
    try:
        files = extract(archive, unpacked, progress)
        names = {path.name for path in unpacked.rglob("*") if path.is_file()}
        records = [record for name in sorted(names) if (record := record_of(name)) is not None]
        if not names & census_names():
            raise DamagedArchive(
                f"dataset.url={url}: none of the archive's {files:,} file(s) is a BreakHis image; check the address"
            )
        message = census_message(records)
        log.info("%s", message)
        _note(images.parent, {**origin, "files": files, "census": message})
        alone = [path.name for path in unpacked.iterdir()] == [NAME]
        (unpacked / NAME if alone else unpacked).rename(images)
    except DamagedArchive as error:
        if origin["url"] is None:
            raise UserError(f"{error}; or remove {archive} to download it") from error
        archive.unlink()
        images.with_name("download.json").unlink(missing_ok=True)
        raise UserError(f"{error}; the archive was removed, the same command downloads it again") from error
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _checked_folds(folder: Path, url: str, timeout_seconds: float) -> dict[str, Any] | None:
    """Compare the authors' fold lists with the census; None, and a note, where they cannot be had."""
    archive = folder / ".mkfold.tar.gz"
    key = "dataset.folds_url"
    try:
        digest = fetch(url, archive, key=key, timeout_seconds=timeout_seconds, attempts=2)
        origin = _origin(url, archive, digest)
        lists = {
            int(match[1]): content.decode("utf-8", errors="replace")
            for path, content in read_chosen(archive, lambda path: _FOLD_LIST.fullmatch(path) is not None)
            if (match := _FOLD_LIST.fullmatch(path))
        }
    except UserError as error:
        log.warning("the fold lists were not compared, the embedded ones are used: %s", error)
        return None
    finally:
        archive.unlink(missing_ok=True)
    absent = [f"dsfold{fold}.txt" for fold in OFFICIAL_FOLDS if fold not in lists]
    if absent:
        log.warning("%s=%s: there is no %s; the embedded fold lists are used", key, url, ", ".join(absent))
        return None
    for fold, text in lists.items():
        _compare_fold(fold, text, f"{key}={url}: dsfold{fold}.txt")
    return origin


def _compare_fold(fold: int, text: str, where: str) -> None:
    mend = "set dataset.folds_url=null to use the embedded fold lists"
    seen = set()
    for number, row in enumerate(filter(None, map(str.strip, text.splitlines())), start=1):
        fields = row.split("|")
        name = parse_name(fields[0])
        slide = census().get(name.slide) if name else None
        if len(fields) != 4 or slide is None:
            raise UserError(
                f"{where}, row {number}: {row[:80]!r} is no image|magnification|fold|part; {mend}"
            )
        if fields[3] != slide.official[fold]:
            raise UserError(
                f"{where}: slide {slide.slide} is in {fields[3]} of fold {fold}, in the census it is in "
                f"{slide.official[fold]}; {mend}"
            )
        seen.add(slide.slide)
    absent = sorted(census().keys() - seen)
    if absent:
        raise UserError(f"{where}: slide {absent[0]} is not in fold {fold}; {mend}")
