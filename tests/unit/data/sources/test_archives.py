"""Archives: the same bytes as tarfile reads, every damage noticed, nothing written outside, nothing half-done left."""

import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from histo_lightning.data import archive as module
from histo_lightning.data.sources.archives import (
    DamagedArchive,
    Member,
    extract,
    is_archive,
    list_members,
    read_members,
)
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
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_archive_is_known_by_its_name_and_by_not_being_a_folder(tmp_path: Path) -> None:
    for name in ("a.tar.gz", "a.TGZ", "a.tar"):
        assert is_archive(tmp_path / name)
    assert not is_archive(tmp_path / "a.zip")
    assert not is_archive(tmp_path / "a.gz")
    (tmp_path / "b.tar").mkdir()
    assert not is_archive(tmp_path / "b.tar")


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"), ("a.tar", "w"), ("b.tar.gz", "w")]
)
def test_bytes_are_those_that_tarfile_reads(tmp_path: Path, name: str, mode: str) -> None:
    path = pack(tmp_path / name, *PATHS, mode=mode)
    with tarfile.open(path) as tar:
        reference = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}
    members = list_members(path, tmp_path / "cache")
    assert members == [Member(p, len(content(p)), 1_600_000_000 * 10**9) for p in PATHS]
    assert list(read_members(path, set(PATHS))) == list(reference.items())
    wanted = {PATHS[4], PATHS[1]}
    assert [p for p, _ in read_members(path, wanted)] == [PATHS[1], PATHS[4]]
    assert extract(path, tmp_path / "out") == len(PATHS)
    assert files_below(tmp_path / "out") == reference


def test_only_plain_images_are_listed(tmp_path: Path) -> None:
    names = [
        "./a/x.PNG",
        ".hidden.png",
        "a/._x.png",
        "__MACOSX/a/x.png",
        ".git/x.png",
        "notes.txt",
        "/abs.png",
    ]
    long = "d" * 90 + "/" + "e" * 90 + "/long.png"
    path = pack(
        tmp_path / "a.tar",
        *[entry(name, 5) for name in [*names, "a/../up.png", "b/é.tif", long]],
        entry("link.png", kind=tarfile.SYMTYPE, link="a/x.PNG"),
        entry("hard.png", kind=tarfile.LNKTYPE, link="./a/x.PNG"),
        entry("fifo.png", kind=tarfile.FIFOTYPE),
        entry("folder.png", kind=tarfile.DIRTYPE),
        mode="w",
    )
    assert [member.path for member in list_members(path, tmp_path)] == ["a/x.PNG", "b/é.tif", long]
    assert dict(read_members(path, {"a/x.PNG", long})) == {"a/x.PNG": b"xxxxx", long: b"xxxxx"}


def test_the_list_is_kept_until_the_archive_changes(
    tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[Path] = []
    opened = module._opened

    def counted(path: Path):
        passes.append(path)
        return opened(path)

    monkeypatch.setattr(module, "_opened", counted)
    first = list_members(packed, tmp_path)
    assert list_members(packed, tmp_path) == first
    assert len(passes) == 1
    (kept,) = (tmp_path / "archives").glob("*.json")
    whole = kept.read_text()
    digit = whole.index(str(first[0].size))
    other_size = whole[:digit] + str(int(whole[digit]) % 9 + 1) + whole[digit + 1 :]
    for n, damage in enumerate(
        ["", whole[:100], "[]", "{}", other_size, '{"checksum": 1, "members": 3}'], start=2
    ):
        kept.write_text(damage)
        assert list_members(packed, tmp_path) == first
        assert len(passes) == n
        assert json.loads(kept.read_text()) == json.loads(whole)
    pack(packed, *PATHS[:2])
    assert [member.path for member in list_members(packed, tmp_path)] == PATHS[:2]
    os.utime(packed, ns=(1, 1))
    before = len(passes)
    list_members(packed, tmp_path)
    assert len(passes) == before + 1


def test_a_list_that_cannot_be_kept_is_said(tmp_path: Path, packed: Path) -> None:
    (tmp_path / "archives").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written; free space or set cache_dir"):
        list_members(packed, tmp_path)


def test_a_path_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar.gz", PATHS[0], PATHS[1], "./" + PATHS[0])
    with pytest.raises(UserError, match=r"a\.tar\.gz: holds .*40-001\.png more than once"):
        list_members(path, tmp_path)


def test_reading_stops_when_all_is_found(tmp_path: Path, packed: Path) -> None:
    """What comes after the last wanted member is not touched: there the archive may even be cut."""
    whole = packed.read_bytes()
    packed.write_bytes(whole[: len(whole) * 2 // 3])
    assert dict(read_members(packed, PATHS[:2])) == {path: content(path) for path in PATHS[:2]}
    assert list(read_members(tmp_path / "absent.tar", [])) == []
    with pytest.raises(UserError, match=r"set\.tar\.gz: damaged, cut off"):
        list(read_members(packed, PATHS))


def test_missing_members_are_said(packed: Path) -> None:
    with pytest.raises(UserError, match=r"set\.tar\.gz: 2 file\(s\) are not in it, e\.g\. nowhere\.png"):
        list(read_members(packed, [PATHS[5], "nowhere.png", "zero.png"]))


def every_reader(tmp_path: Path) -> list[Callable[[Path], object]]:
    return [
        lambda path: list_members(path, tmp_path / "cache"),
        lambda path: list(read_members(path, PATHS)),
        lambda path: extract(path, tmp_path / "out"),
    ]


def assert_all_refuse(path: Path, tmp_path: Path, said: str = "damaged, cut off or no tar archive") -> None:
    for read in every_reader(tmp_path):
        with pytest.raises(UserError, match=said) as raised:
            read(path)
        assert str(raised.value).startswith(str(path))
        assert "\n" not in str(raised.value)
    left = {p.name for p in tmp_path.iterdir()} - {path.name, "cache"}
    assert left == set()
    assert not list((tmp_path / "cache").rglob("*.json"))


@pytest.mark.parametrize("keep", [0, 1, 10, 600, 0.3, 0.7, -9, -1])
def test_a_cut_gzip_is_refused(tmp_path: Path, packed: Path, keep: float) -> None:
    whole = packed.read_bytes()
    packed.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    assert_all_refuse(packed, tmp_path)


def test_a_flipped_bit_anywhere_in_a_gzip_is_refused(tmp_path: Path, packed: Path) -> None:
    """In stored blocks nothing but gzip's checksum at the very end can notice it."""
    whole = packed.read_bytes()
    stored = tmp_path / "stored.tar.gz"
    for data in (whole, gzip.compress(gzip.decompress(whole), 0)):
        stored.write_bytes(data)
        packed.unlink(missing_ok=True)
        assert len(list_members(stored, tmp_path / "other")) == len(PATHS)
        for position in [*range(30, len(data), len(data) // 12), len(data) - 5, len(data) - 1]:
            flipped = bytearray(data)
            flipped[position] ^= 0x10
            stored.write_bytes(flipped)
            with pytest.raises(DamagedArchive):
                list_members(stored, tmp_path / "cache")
            with pytest.raises(DamagedArchive):
                extract(stored, tmp_path / "out")
            with pytest.raises(DamagedArchive):  # the last member is wanted, so the checksum is read too
                list(read_members(stored, PATHS))
    assert {p.name for p in tmp_path.iterdir()} == {"stored.tar.gz", "other"}


def test_a_plain_tar_that_is_cut_or_has_a_damaged_header_is_refused(tmp_path: Path) -> None:
    """tarfile itself takes both for the archive's end, and would list fewer images without a word."""
    path = pack(tmp_path / "a.tar", *PATHS, mode="w")
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        headers = [member.offset for member in tar.getmembers()]
        end = tar.offset
    for cut in (headers[3], headers[3] + 100, headers[3] + 700, end):
        path.write_bytes(whole[:cut])
        assert_all_refuse(path, tmp_path)
    path.write_bytes(whole[: headers[2] + 5] + b"\xff" + whole[headers[2] + 6 :])
    with tarfile.open(path) as tar:
        assert len(tar.getmembers()) == 2
    assert_all_refuse(path, tmp_path)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    for data in (b"<html>moved</html>", b"\x1f\x8b", gzip.compress(b"not a tar" * 200), b"\0" * 300):
        path.write_bytes(data)
        assert_all_refuse(path, tmp_path)
    path.unlink()
    assert_all_refuse(path, tmp_path, "cannot be read \\(No such file")


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
    with pytest.raises(UserError, match="link, a device, or leads outside the folder"):
        extract(path, tmp_path / "deep" / "out")
    assert files_below(tmp_path) == {"deep/a.tar": path.read_bytes(), "secret": b"untouched"}
    assert not list(tmp_path.rglob("out")) + list(tmp_path.rglob("*.extracting"))


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "deep").mkdir()
    through = entry("door", kind=tarfile.SYMTYPE, link=str(outside)), entry("door/x.png", 5)
    over = entry("x.png", kind=tarfile.SYMTYPE, link=str(outside / "x.png")), entry("x.png", 5)
    for pair in (through, over):
        path = pack(tmp_path / "deep" / "a.tar", *pair, mode="w")
        with pytest.raises(UserError, match="is a link"):
            extract(path, tmp_path / "deep" / "out")
        assert list(outside.iterdir()) == []
        assert list((tmp_path / "deep").iterdir()) == [path]


def test_extracted_files_have_plain_permissions_and_their_time(tmp_path: Path, packed: Path) -> None:
    seen: list[tuple[int, int]] = []
    extract(packed, tmp_path / "out", lambda done, total: seen.append((done, total)))
    for path in PATHS:
        stat = (tmp_path / "out" / path).stat()
        assert stat.st_mode & 0o7777 == 0o644  # packed as 4777
        assert stat.st_mtime == 1_600_000_000
    assert len(seen) == len(PATHS) + 1
    assert all(0 < done <= total == packed.stat().st_size for done, total in seen)


def test_an_occupied_folder_is_not_touched(tmp_path: Path, packed: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        extract(packed, tmp_path / "out")
    assert files_below(tmp_path) == {"out/mine.txt": b"mine", "set.tar.gz": packed.read_bytes()}
    (tmp_path / "out" / "mine.txt").unlink()
    assert extract(packed, tmp_path / "out") == len(PATHS)


def test_a_full_disk_leaves_nothing(tmp_path: Path, packed: Path) -> None:
    code = f"""
import resource, sys
from pathlib import Path
from histo_lightning.data.sources.archives import extract
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
extract(Path({str(packed)!r}), Path({str(tmp_path / "out")!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert f"{packed}: cannot be extracted to {tmp_path} (File too large); free space" in done.stderr
    assert list(tmp_path.iterdir()) == [packed]


def test_a_killed_extraction_leaves_nothing_that_looks_whole(tmp_path: Path, packed: Path) -> None:
    code = f"""
import time
from pathlib import Path
from histo_lightning.data.sources.archives import extract
def slow(done, total):
    print("one more", flush=True)
    time.sleep(0.3)
extract(Path({str(packed)!r}), Path({str(tmp_path / "out")!r}), slow)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(3):
            assert child.stdout.readline() == "one more\n"
        os.kill(child.pid, signal.SIGKILL)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / ".out.extracting").is_dir()
    assert extract(packed, tmp_path / "out") == len(PATHS)
    assert files_below(tmp_path / "out") == {path: content(path) for path in PATHS}
    assert {p.name for p in tmp_path.iterdir()} == {"out", "set.tar.gz"}
