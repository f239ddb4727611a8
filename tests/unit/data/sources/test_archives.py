"""Archives: every damage noticed, nothing written outside, nothing half-done left, unpacked once."""

import gzip
import io
import os
import random
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from histo_lightning.config.schema import DatasetConfig
from histo_lightning.data.sources import folder
from histo_lightning.data.sources.dataset import find_root, unpacked
from histo_lightning.data.sources.folder import DamagedArchive, unpack
from histo_lightning.errors import UserError

PATHS = [f"BreaKHis_v1/benign/SOB/SOB_B_A-14-22549AB-40-{i:03d}.png" for i in range(1, 7)]


def content(path: str) -> bytes:
    """Bytes that do not compress, different for every path."""
    return random.Random(path).randbytes(3000 + len(path) * 7 + int(path[-7:-4]))


def entry(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o4777):
    made = tarfile.TarInfo(name)
    made.size, made.type, made.linkname, made.mode, made.mtime = size, kind, link, mode, 1_600_000_000
    return made


def pack(path: Path, *entries: tarfile.TarInfo | str, mode: str = "w:gz") -> Path:
    """A tar with the entries; a string is a regular file of ``content``."""
    with tarfile.open(path, mode) as tar:
        for item in entries:
            if isinstance(item, str):
                tar.addfile(entry(item, len(content(item))), io.BytesIO(content(item)))
            else:
                tar.addfile(item, io.BytesIO(b"x" * item.size))
    return path


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return pack(tmp_path / "set.tar.gz", entry("BreaKHis_v1", kind=tarfile.DIRTYPE), *PATHS)


def files_below(folder: Path) -> dict[str, bytes]:
    files = [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def refused(path: Path, folder: Path, message: str = "damaged, cut off or no tar archive") -> None:
    """Unpacking fails in one line and leaves nothing but the archive."""
    with pytest.raises(DamagedArchive, match=message) as raised:
        unpack(path, folder / "out")
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)
    assert not (folder / "out").exists()
    assert not list(folder.rglob("*.building"))


def test_an_archive_is_known_by_its_name_and_by_being_a_file(tmp_path: Path) -> None:
    for name in ("a.tar.gz", "a.TGZ", "a.tar", "a.zip", "a.gz"):
        (tmp_path / name).touch()
    (tmp_path / "b.tar").mkdir()

    def root_of(name: str) -> Path:
        return find_root(DatasetConfig("breakhis", str(tmp_path / name)), tmp_path / "cache")

    for name in ("a.tar.gz", "a.TGZ", "a.tar"):
        with pytest.raises(DamagedArchive):
            root_of(name)
    for name in ("a.zip", "a.gz", "none.tar"):
        with pytest.raises(UserError, match=r"no such folder or \.tar\.gz"):
            root_of(name)
    assert root_of("b.tar") == tmp_path / "b.tar"


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"), ("a.tar", "w"), ("b.tar.gz", "w")]
)
def test_bytes_are_those_that_were_packed(tmp_path: Path, name: str, mode: str) -> None:
    unpack(pack(tmp_path / name, *PATHS, mode=mode), tmp_path / "out")
    assert files_below(tmp_path / "out") == {path: content(path) for path in PATHS}


def test_an_archive_is_unpacked_once_and_again_when_it_changes(
    tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = unpacked(packed, tmp_path / "cache")
    assert files_below(first) == {path: content(path) for path in PATHS}
    with monkeypatch.context() as patch:
        patch.setattr(folder, "_unpack_all", lambda *_: pytest.fail("unpacked again"))
        assert unpacked(packed, tmp_path / "cache") == first
    pack(packed, *PATHS[:2])
    second = unpacked(packed, tmp_path / "cache")
    assert second != first
    assert len(files_below(second)) == 2


@pytest.mark.parametrize("keep", [0, 1, 10, 600, 0.3, 0.7, -9, -1])
def test_a_cut_gzip_is_refused(tmp_path: Path, packed: Path, keep: float) -> None:
    whole = packed.read_bytes()
    packed.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    refused(packed, tmp_path)


def test_a_flipped_bit_anywhere_in_a_gzip_is_refused(tmp_path: Path, packed: Path) -> None:
    """In stored blocks nothing but gzip's checksum at the very end can notice it."""
    whole = packed.read_bytes()
    for data in (whole, gzip.compress(gzip.decompress(whole), 0)):
        for position in [*range(30, len(data), len(data) // 12), len(data) - 5, len(data) - 1]:
            flipped = bytearray(data)
            flipped[position] ^= 0x10
            packed.write_bytes(flipped)
            refused(packed, tmp_path)


def test_a_plain_tar_that_is_cut_or_has_a_damaged_header_is_refused(tmp_path: Path) -> None:
    """tarfile itself takes both for the archive's end, and would unpack fewer images without a word."""
    path = pack(tmp_path / "a.tar", *PATHS, mode="w")
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        headers = [member.offset for member in tar.getmembers()]
        end = tar.offset
    for cut in (headers[3], headers[3] + 100, headers[3] + 700, end):
        path.write_bytes(whole[:cut])
        refused(path, tmp_path)
    path.write_bytes(whole[: headers[2] + 5] + b"\xff" + whole[headers[2] + 6 :])
    with tarfile.open(path) as tar:
        assert len(tar.getmembers()) == 2
    refused(path, tmp_path)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    for data in (b"<html>moved</html>", b"\x1f\x8b", gzip.compress(b"not a tar" * 200), b"\0" * 300):
        path.write_bytes(data)
        refused(path, tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="No such file"):
        unpack(path, tmp_path / "out")


@pytest.mark.parametrize(
    "evil",
    [
        entry("../x.png", 5),
        entry("a/../../x.png", 5),
        entry("a/..", kind=tarfile.DIRTYPE),
        entry("/tmp/abs.png", 5),
        entry("//abs.png", 5),
        entry("soft.png", kind=tarfile.SYMTYPE, link=PATHS[0]),
        entry("soft", kind=tarfile.SYMTYPE, link="/etc"),
        entry("hard.png", kind=tarfile.LNKTYPE, link=PATHS[0]),
        entry("hard", kind=tarfile.LNKTYPE, link="../secret"),
        entry("null", kind=tarfile.CHRTYPE),
        entry("disk", kind=tarfile.BLKTYPE),
        entry("pipe", kind=tarfile.FIFOTYPE),
        entry("strange", kind=b"Z"),
    ],
    ids=lambda made: f"{made.type.decode()}-{made.name}",
)
def test_an_archive_that_would_write_elsewhere_is_refused_whole(
    tmp_path: Path, evil: tarfile.TarInfo
) -> None:
    (tmp_path / "deep").mkdir()
    path = pack(tmp_path / "deep" / "a.tar", *PATHS[:2], evil, PATHS[2], mode="w")
    (tmp_path / "secret").write_text("untouched")
    refused(path, tmp_path / "deep", "link, a device, or leads outside the folder")
    assert files_below(tmp_path) == {"deep/a.tar": path.read_bytes(), "secret": b"untouched"}


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "deep").mkdir()
    through = entry("door", kind=tarfile.SYMTYPE, link=str(outside)), entry("door/x.png", 5)
    over = entry("x.png", kind=tarfile.SYMTYPE, link=str(outside / "x.png")), entry("x.png", 5)
    for pair in (through, over):
        path = pack(tmp_path / "deep" / "a.tar", *pair, mode="w")
        refused(path, tmp_path / "deep", "is a link")
        assert list(outside.iterdir()) == []


def test_more_than_any_copy_of_breakhis_is_refused(
    tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = pack(tmp_path / "twice.tar", PATHS[0], PATHS[1], PATHS[0], mode="w")
    refused(twice, tmp_path, f"holds {PATHS[0]} more than once")
    for limit, value in (("MOST_MEMBERS", 5), ("MOST_BYTES", 10_000)):
        with monkeypatch.context() as patch:
            patch.setattr(folder, limit, value)
            refused(packed, tmp_path, "more files or bytes")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_claims_gigabytes_is_refused_before_it_is_read(tmp_path: Path, kind: bytes) -> None:
    header = entry("x", 6 * 2**30, kind).tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "bomb.tar.gz").write_bytes(gzip.compress(header + bytes(2**20)))
    refused(tmp_path / "bomb.tar.gz", tmp_path, "a header of 6,442,450,944 bytes")


def test_files_have_plain_permissions_and_their_time(tmp_path: Path, packed: Path) -> None:
    seen: list[tuple[int, int]] = []
    unpack(packed, tmp_path / "out", lambda done, total: seen.append((done, total)))
    for path in PATHS:
        stat = (tmp_path / "out" / path).stat()
        assert stat.st_mode & 0o7777 == 0o644  # packed as 4777
        assert stat.st_mtime == 1_600_000_000
    assert len(seen) == len(PATHS) + 1
    assert all(0 < done <= total == packed.stat().st_size for done, total in seen)


def test_a_folder_that_is_there_is_not_touched(tmp_path: Path, packed: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    unpack(packed, tmp_path / "out")
    assert files_below(tmp_path / "out") == {"mine.txt": b"mine"}


def test_a_full_disk_leaves_nothing(tmp_path: Path, packed: Path) -> None:
    code = f"""
import resource
from pathlib import Path
from histo_lightning.data.sources.folder import unpack
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
unpack(Path({str(packed)!r}), Path({str(tmp_path / "out")!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert f"{packed}: cannot be unpacked to {tmp_path} (File too large); free space" in done.stderr
    assert set(files_below(tmp_path)) == {"set.tar.gz"}


def test_a_killed_process_leaves_nothing_that_looks_whole(tmp_path: Path, packed: Path) -> None:
    code = f"""
import time
from pathlib import Path
from histo_lightning.data.sources.folder import unpack
def slow(done, total):
    print("one more", flush=True)
    time.sleep(0.3)
unpack(Path({str(packed)!r}), Path({str(tmp_path / "out")!r}), slow)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(3):
            assert child.stdout.readline() == "one more\n"
        os.kill(child.pid, signal.SIGKILL)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / ".out.building").is_dir()
    unpack(packed, tmp_path / "out")
    assert files_below(tmp_path / "out") == {path: content(path) for path in PATHS}
    assert not (tmp_path / ".out.building").exists()
