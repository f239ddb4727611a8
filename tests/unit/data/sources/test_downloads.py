"""Downloads from servers that drop, lie, change and fall silent; and BreakHis from a copy of its authors' site."""

import hashlib
import io
import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from histo_lightning.data.breakhis.names import census
from histo_lightning.data.sources import dataset
from histo_lightning.data.sources.dataset import OFFICIAL_URL, fetch_breakhis
from histo_lightning.data.sources.downloads import fetch
from histo_lightning.errors import UserError

BODY = random.Random(1).randbytes(300_000)
OTHER = random.Random(2).randbytes(300_000)


@dataclass
class Site:
    """A web server on this machine. ``asked`` holds the Range header (or "whole") of each request, in order."""

    files: dict[str, bytes] = field(default_factory=lambda: {"/f.bin": BODY})
    etag: str = '"one"'
    modified: str = ""
    cuts: list[int] = field(default_factory=list)  # bytes of the body after which the next answers are cut
    statuses: list[int] = field(default_factory=list)  # of the next answers
    heeds_range: bool = True
    heeds_if_range: bool = True
    announced_more: int = 0
    announces: bool = True
    chunked: bool = False
    slices: int = 0  # longest partial answer, in bytes
    wrong_start: int = 0
    silent: bool = False
    pause_seconds: float = 0.0  # between blocks of 10 kB
    keeps_open: bool = False
    asked: list[str] = field(default_factory=list)
    if_range: list[str | None] = field(default_factory=list)
    address: str = ""
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"{self.address}/f.bin"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = self.files.get(request.path)
        asked, validator = request.headers.get("Range"), request.headers.get("If-Range")
        self.asked.append(asked or "whole")
        self.if_range.append(validator)
        if self.silent:
            self.stopping.wait(10)
            return
        if self.statuses or body is None:
            request.send_error(self.statuses.pop(0) if self.statuses else 404)
            return
        start, stop = 0, len(body)
        fits = validator in (self.etag, self.modified) or not self.heeds_if_range
        if asked and self.heeds_range and fits:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= stop:
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{len(body)}")
                request.send_header("Content-Length", "0")
                request.end_headers()
                return
            stop = min(stop, start + self.slices) if self.slices else stop
            request.send_response(206)
            said = start + self.wrong_start
            request.send_header("Content-Range", f"bytes {said}-{stop - 1}/{len(body)}")
        else:
            request.send_response(200)
        self.send_body(request, body[start:stop])

    def send_body(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        for name, value in (("ETag", self.etag), ("Last-Modified", self.modified)):
            if value:
                request.send_header(name, value)
        if self.chunked:
            request.send_header("Transfer-Encoding", "chunked")
        elif self.announces:
            request.send_header("Content-Length", str(len(body) + self.announced_more))
        request.end_headers()
        body = body[: self.cuts.pop(0)] if self.cuts else body
        for begin in range(0, len(body), 10_000):
            block = body[begin : begin + 10_000]
            request.wfile.write(b"%x\r\n%b\r\n" % (len(block), block) if self.chunked else block)
            if self.pause_seconds and self.stopping.wait(self.pause_seconds):
                return
        if self.chunked:
            request.wfile.write(b"0\r\n\r\n")
        if self.keeps_open:
            request.wfile.flush()
            self.stopping.wait(10)


def names_in(folder: Path) -> set[str]:
    """What a folder holds, but for lock files."""
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("histo_lightning.data.sources.downloads.FIRST_PAUSE_SECONDS", 0.0)
    made = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.close_connection = True
            with suppress(BrokenPipeError, ConnectionResetError):  # the client was killed
                made.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = False
    made.address = f"http://127.0.0.1:{running.server_port}"
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.stopping.set()
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def get(site: Site, tmp_path: Path):
    """Fetch the site's file; whatever was fetched must be what its SHA-256 says."""

    def run(**options: object) -> bytes:
        target = tmp_path / "to" / "f.bin"
        digest = fetch(site.url, target, key="dataset.url", **options)
        data = target.read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest
        assert names_in(target.parent) == {"f.bin"}
        return data

    return run


def part_of(tmp_path: Path) -> Path:
    return tmp_path / "to" / ".f.bin.part"


def leave_part(site: Site, get, tmp_path: Path, size: int = 100_000) -> None:
    """The first ``size`` bytes, from a call that failed."""
    site.cuts = [size]
    with pytest.raises(UserError, match=f"cut after {size} of 300000 bytes"):
        get(attempts=1)
    assert part_of(tmp_path).read_bytes() == BODY[:size]
    site.asked.clear()
    site.if_range.clear()


@pytest.mark.parametrize("keeps_open", [False, True])
def test_a_whole_download(site: Site, get, keeps_open: bool) -> None:
    site.keeps_open = keeps_open
    seen: list[tuple[int, int]] = []
    started = time.monotonic()
    assert get(progress=lambda done, total: seen.append((done, total))) == BODY
    assert time.monotonic() - started < 5  # the last byte is the end, though the server keeps the line open
    assert site.asked == ["whole"]
    assert seen[0] == (0, len(BODY))
    assert seen[-1] == (len(BODY), len(BODY))
    assert seen == sorted(seen)


def test_dropped_connections_are_resumed_within_a_call(site: Site, get) -> None:
    """Seven drops, more than there are attempts: every one brought something."""
    site.cuts = [40_000] * 7
    assert get(attempts=2) == BODY
    assert site.asked == ["whole"] + [f"bytes={40_000 * n}-" for n in range(1, 8)]
    assert set(site.if_range[1:]) == {'"one"'}


def test_drops_that_bring_nothing_use_up_the_attempts(site: Site, get, tmp_path: Path) -> None:
    site.cuts = [50_000, *[0] * 10]
    with pytest.raises(UserError) as raised:
        get(attempts=3)
    assert str(raised.value) == (
        f"dataset.url={site.url}: cannot be downloaded to {tmp_path / 'to'} (the connection was cut after 50000 of "
        "300000 bytes); the same command resumes where it stopped, or check the address"
    )
    assert site.asked == ["whole", "bytes=50000-", "bytes=50000-"]
    site.cuts = []
    assert get() == BODY
    assert site.asked[-1] == "bytes=50000-"


@pytest.mark.parametrize(("etag", "sent"), [('"one"', '"one"'), ("", "date"), ('W/"weak"', "date")])
def test_the_rest_is_asked_for_across_calls(site: Site, get, tmp_path: Path, etag: str, sent: str) -> None:
    site.etag, site.modified = etag, "Mon, 05 Oct 2015 10:00:00 GMT"
    leave_part(site, get, tmp_path)
    seen: list[tuple[int, int]] = []
    assert get(progress=lambda done, total: seen.append((done, total))) == BODY
    assert site.asked == ["bytes=100000-"]
    assert site.if_range == [site.modified if sent == "date" else sent]
    assert seen[0] == (100_000, 300_000)


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_validator_nothing_is_stuck_together(site: Site, get, tmp_path: Path, etag: str) -> None:
    site.etag = etag
    site.cuts = [100_000]
    with pytest.raises(UserError, match="try again"):
        get(attempts=1)
    assert names_in(tmp_path / "to") == set()
    site.cuts = [100_000, 90_000, 80_000]
    with pytest.raises(UserError, match="cut after 80000"):
        get(attempts=3)  # the second and third brought nothing new, so this ends
    site.cuts = [100_000]
    assert get() == BODY
    assert set(site.asked) == {"whole"}


@pytest.mark.parametrize("heeds_if_range", [True, False])
@pytest.mark.parametrize("length", [300_000, 50_000, 100_000, 400_000])
def test_a_file_that_changed_starts_from_zero(
    site: Site, get, tmp_path: Path, heeds_if_range: bool, length: int
) -> None:
    leave_part(site, get, tmp_path)
    changed = (OTHER * 2)[:length]
    site.files, site.etag, site.heeds_if_range = {"/f.bin": changed}, '"two"', heeds_if_range
    assert get() == changed
    assert site.asked == (["bytes=100000-"] if heeds_if_range else ["bytes=100000-", "whole"])


def test_a_file_that_changes_within_a_call_starts_from_zero(site: Site, get) -> None:
    site.cuts = [200_000]

    def change(done: int, total: int) -> None:
        if done == 200_000:
            site.files, site.etag = {"/f.bin": OTHER}, '"two"'

    assert get(progress=change) == OTHER


def test_another_address_of_the_same_target_starts_from_zero(site: Site, get, tmp_path: Path) -> None:
    leave_part(site, get, tmp_path)
    site.files = {"/f.bin": BODY, "/other.bin": OTHER}  # and both bear the same ETag
    fetch(f"{site.address}/other.bin", tmp_path / "to" / "f.bin", key="k")
    assert (tmp_path / "to" / "f.bin").read_bytes() == OTHER
    assert site.asked == ["whole"]


def test_a_server_without_ranges_starts_from_zero(site: Site, get, tmp_path: Path) -> None:
    leave_part(site, get, tmp_path)
    site.heeds_range = False
    site.cuts = [150_000]
    assert get() == BODY
    assert site.asked == ["bytes=100000-", "bytes=150000-"]


def test_a_server_that_sends_another_part_is_not_believed(site: Site, get, tmp_path: Path) -> None:
    leave_part(site, get, tmp_path)
    site.wrong_start = 7
    assert get() == BODY
    assert site.asked == ["bytes=100000-", "whole"]


def test_a_server_that_hands_out_slices(site: Site, get, tmp_path: Path) -> None:
    leave_part(site, get, tmp_path)
    site.slices = 70_000
    assert get(attempts=2) == BODY
    assert site.asked == ["bytes=100000-", "bytes=170000-", "bytes=240000-"]


def test_a_part_that_is_complete_is_not_sent_again(site: Site, get, tmp_path: Path) -> None:
    """As after a kill between the last byte and the rename."""
    leave_part(site, get, tmp_path)
    part_of(tmp_path).write_bytes(BODY)
    assert get() == BODY
    assert site.asked == []


def test_416_for_a_file_that_shrank(site: Site, get, tmp_path: Path) -> None:
    leave_part(site, get, tmp_path)
    site.files, site.heeds_if_range = {"/f.bin": OTHER[:100_000]}, False
    assert get() == OTHER[:100_000]
    assert site.asked == ["bytes=100000-", "whole"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"url": 3}', "missing", "too long"])
def test_a_damaged_note_or_part_starts_from_zero(site: Site, get, tmp_path: Path, damage: str) -> None:
    leave_part(site, get, tmp_path)
    side = tmp_path / "to" / ".f.bin.part.json"
    if damage == "missing":
        side.unlink()
    elif damage == "too long":
        part_of(tmp_path).write_bytes(BODY + b"x")
    else:
        side.write_text(damage)
    assert get() == BODY
    assert site.asked == ["whole"]


def test_a_length_that_is_a_lie(site: Site, get, tmp_path: Path) -> None:
    site.announced_more = 10
    with pytest.raises(UserError, match="cut after 300000 of 300010 bytes"):
        get(attempts=1)
    with pytest.raises(UserError, match="HTTP Error 416"):
        get(attempts=1)
    assert not (tmp_path / "to" / "f.bin").exists()
    site.announced_more = 0  # mended: the 300,010 bytes that were promised must not stand in the way
    assert get() == BODY


def test_unannounced_and_chunked_lengths(site: Site, get, tmp_path: Path) -> None:
    site.announces = False
    totals = set()
    assert get(progress=lambda done, total: totals.add(total)) == BODY
    assert totals == {0}
    site.chunked = True
    (tmp_path / "to" / "f.bin").unlink()
    assert get() == BODY
    (tmp_path / "to" / "f.bin").unlink()
    site.files["/f.bin"] = b""
    assert get() == b""


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (416, 3), (500, 3), (503, 3), (429, 3)])
def test_refusals_are_said_and_only_passing_ones_are_asked_again(
    site: Site, get, tmp_path: Path, status: int, requests: int
) -> None:
    site.statuses = [status] * 9
    with pytest.raises(
        UserError, match=rf"^dataset\.url=http.*HTTP Error {status}.*try again, or check the address"
    ):
        get(attempts=3)
    assert len(site.asked) == requests
    assert names_in(tmp_path / "to") == set()


def test_a_refusal_keeps_the_part(site: Site, get, tmp_path: Path) -> None:
    leave_part(site, get, tmp_path)
    for status in (404, 503):
        site.statuses = [status]
        with pytest.raises(UserError, match=f"{status}.*the same command resumes where it stopped"):
            get(attempts=1)
    site.statuses = [500, 502]
    assert get(attempts=3) == BODY
    assert site.asked == ["bytes=100000-"] * 5


def test_a_silent_server(site: Site, get) -> None:
    site.silent = True
    started = time.monotonic()
    with pytest.raises(UserError, match=r"the server was silent for 0\.2 s"):
        get(attempts=2, timeout_seconds=0.2)
    assert 0.4 <= time.monotonic() - started < 5
    assert len(site.asked) == 2


def test_a_server_that_falls_silent_in_mid_body(site: Site, get) -> None:
    site.cuts, site.keeps_open = [120_000], True
    assert get(attempts=2, timeout_seconds=0.2) == BODY
    assert site.asked == ["whole", "bytes=120000-"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://host/f", "only http, https and file"),
        ("f.bin", "only http, https and file"),
        ("http://", "with a server's name"),
        ("http://[x/f", "cannot be downloaded"),
        ("http://host/a b", "cannot be downloaded"),
        ("http://höst.invalid:x/é", "cannot be downloaded"),
        ("file:///nowhere/f.bin", "no such file"),
        ("file:///dev/zero", "no such file"),
    ],
)
def test_addresses_that_lead_nowhere(
    tmp_path: Path, url: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(UserError, match=f"^k=.*{said}"):
        fetch(url, tmp_path / "f", key="k", timeout_seconds=2, advice="x")
    assert not pauses  # waiting does not mend an address
    assert names_in(tmp_path) == set()


def test_no_server_and_no_folder(site: Site, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/f"
        with pytest.raises(UserError, match="refused"):
            fetch(url, tmp_path / "f", key="k")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^k=http.*cannot be downloaded"):
        fetch(site.url, tmp_path / "file" / "f", key="k")
    assert site.asked == []


def test_a_file_address(tmp_path: Path) -> None:
    source = tmp_path / "with space.bin"
    source.write_bytes(BODY)
    digest = fetch(source.as_uri(), tmp_path / "f", key="k")
    assert (tmp_path / "f").read_bytes() == BODY
    assert digest == hashlib.sha256(BODY).hexdigest()


def test_the_target_is_replaced_only_by_a_whole_download(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "f.bin"
    target.write_bytes(b"before")
    site.cuts = [10]
    with pytest.raises(UserError, match="cut after 10"):
        fetch(site.url, target, key="k", attempts=1)
    assert target.read_bytes() == b"before"
    fetch(site.url, target, key="k")
    assert target.read_bytes() == BODY
    assert site.asked == ["whole", "bytes=10-"]


def test_a_full_disk_keeps_the_part(site: Site, get, tmp_path: Path) -> None:
    code = f"""
import resource
from pathlib import Path
from histo_lightning.data.sources.downloads import fetch
resource.setrlimit(resource.RLIMIT_FSIZE, (123_456, 123_456))
fetch({site.url!r}, Path({str(tmp_path / "to" / "f.bin")!r}), key="k")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "(File too large); the same command resumes where it stopped" in done.stderr
    assert site.asked == ["whole"]  # asking again would not make room
    assert part_of(tmp_path).read_bytes() == BODY[:123_456]
    assert get() == BODY
    assert site.asked == ["whole", "bytes=123456-"]


def test_a_killed_process_is_resumed(site: Site, get, tmp_path: Path) -> None:
    site.pause_seconds = 0.05
    code = f"""
from pathlib import Path
from histo_lightning.data.sources.downloads import fetch
fetch({site.url!r}, Path({str(tmp_path / "to" / "f.bin")!r}), key="k",
      progress=lambda done, total: print(done, flush=True))
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        told = 0
        while told < 50_000:
            told = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
    size = part_of(tmp_path).stat().st_size
    assert told <= size < len(BODY)
    assert not (tmp_path / "to" / "f.bin").exists()
    site.pause_seconds = 0
    assert get() == BODY
    assert site.asked == ["whole", f"bytes={size}-"]


def test_two_processes_share_one_download(site: Site, tmp_path: Path) -> None:
    site.pause_seconds = 0.01
    target = tmp_path / "f.bin"
    code = f"""
from pathlib import Path
from histo_lightning.data.sources.downloads import fetch
fetch({site.url!r}, Path({str(target)!r}), key="k")
"""
    children = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [child.wait(30) for child in children] == [0, 0]
    assert target.read_bytes() == BODY
    assert names_in(tmp_path) == {"f.bin"}


def test_who_waited_uses_what_the_other_brought(site: Site, tmp_path: Path) -> None:
    """Threads have locks of their own, and here their order is certain."""
    target, begun = tmp_path / "f.bin", threading.Event()
    site.pause_seconds = 0.01
    digests: list[str] = []

    def first() -> None:
        digests.append(fetch(site.url, target, key="k", progress=lambda done, total: begun.set()))

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(10)
    digests.append(fetch(site.url, target, key="k"))
    thread.join()
    assert digests == [hashlib.sha256(BODY).hexdigest()] * 2
    assert site.asked == ["whole"]
    assert names_in(tmp_path) == {"f.bin"}


def test_who_waited_for_one_that_failed_downloads_itself(site: Site, tmp_path: Path) -> None:
    target, begun = tmp_path / "f.bin", threading.Event()
    site.etag, site.pause_seconds, site.cuts = "", 0.01, [250_000]
    errors: list[str] = []

    def first() -> None:
        try:
            fetch(site.url, target, key="k", attempts=1, progress=lambda done, total: begun.set())
        except UserError as error:
            errors.append(str(error))

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(10)
    fetch(site.url, target, key="k")
    thread.join()
    assert len(errors) == 1  # it removed the part while the other waited for that very file
    assert target.read_bytes() == BODY
    assert names_in(tmp_path) == {"f.bin"}


# BreakHis


def add(tar: tarfile.TarFile, path: str, data: bytes) -> None:
    entry = tarfile.TarInfo(path)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


IMAGES = {
    f"BreaKHis_v1/{name.official_path}": random.Random(name.file_name).randbytes(5000)
    for slide in list(census().values())[:4]
    for name in slide.names()[:10]
}


def images_archive(images: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        add(tar, "BreaKHis_v1/README.txt", b"about")
        for path, data in images.items():
            add(tar, path, data)
    return packed.getvalue()


ARCHIVE = images_archive(IMAGES)


@pytest.fixture
def authors(site: Site) -> Site:
    site.files = {"/images.tar.gz": ARCHIVE}
    return site


@pytest.fixture
def bring(authors: Site, tmp_path: Path):
    return partial(fetch_breakhis, tmp_path / "data", url=f"{authors.address}/images.tar.gz")


def content_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder.parent).as_posix(): p.read_bytes() for p in folder.rglob("*.png")}


def test_the_addresses_are_the_authors() -> None:
    assert OFFICIAL_URL == "http://www.inf.ufpr.br/vri/databases/BreaKHis_v1.tar.gz"


def test_breakhis_is_fetched_verified_and_noted_once(
    authors: Site, bring, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "histo_lightning")
    seen: list[tuple[int, int]] = []
    images = bring(progress=lambda done, total: seen.append((done, total)))
    assert images == tmp_path / "data" / "BreaKHis_v1"
    assert content_of(images) == IMAGES
    assert names_in(tmp_path / "data") == {"BreaKHis_v1", "download.json"}
    note = json.loads((tmp_path / "data" / "download.json").read_text())
    assert note["url"] == f"{authors.address}/images.tar.gz"
    assert note["bytes"] == len(ARCHIVE)
    assert note["sha256"] == hashlib.sha256(ARCHIVE).hexdigest()
    assert "partial copy, 40 of the 7,909" in note["census"]
    assert "partial copy, 40 of the 7,909" in caplog.text
    assert (len(ARCHIVE), len(ARCHIVE)) in seen
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert bring() == images
    assert len(authors.asked) == 1


def test_breakhis_that_is_there_needs_no_network(tmp_path: Path) -> None:
    (tmp_path / "BreaKHis_v1").mkdir()
    (tmp_path / "BreaKHis_v1" / "any.png").write_text("")
    found = fetch_breakhis(tmp_path, url="http://host.invalid/x")
    assert found == tmp_path / "BreaKHis_v1"
    assert names_in(tmp_path) == {"BreaKHis_v1"}


def test_a_broken_download_goes_on(authors: Site, bring, tmp_path: Path) -> None:
    authors.cuts = [60_000, *[0] * 4]
    with pytest.raises(UserError, match=r"^dataset\.url=.*the same command resumes.* set dataset\.root"):
        bring()
    assert names_in(tmp_path / "data") == {".BreaKHis_v1.tar.gz.part", ".BreaKHis_v1.tar.gz.part.json"}
    assert content_of(bring()) == IMAGES
    assert authors.asked == ["whole", *["bytes=60000-"] * 5]


def test_a_failed_extraction_does_not_download_again(
    authors: Site, bring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise UserError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "unpack", full)
        with pytest.raises(UserError, match="no room"):
            bring()
    assert names_in(tmp_path / "data") == {"BreaKHis_v1.tar.gz", "download.json"}
    assert content_of(bring()) == IMAGES
    assert authors.asked == ["whole"]
    assert names_in(tmp_path / "data") == {"BreaKHis_v1", "download.json"}
    assert json.loads((tmp_path / "data" / "download.json").read_text())["url"].startswith("http://127")


def test_an_archive_that_the_user_put_there_is_used_and_stays(authors: Site, bring, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "BreaKHis_v1.tar.gz").write_bytes(ARCHIVE)
    assert content_of(bring()) == IMAGES
    assert authors.asked == []
    note = json.loads((tmp_path / "data" / "download.json").read_text())
    assert (note["url"], note["sha256"]) == (None, hashlib.sha256(ARCHIVE).hexdigest())
    assert (tmp_path / "data" / "BreaKHis_v1.tar.gz").read_bytes() == ARCHIVE


def test_a_damaged_archive_of_the_user_is_refused_and_stays(authors: Site, bring, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "BreaKHis_v1.tar.gz").write_bytes(ARCHIVE[:-100])
    with pytest.raises(UserError, match=r"damaged, cut off.*or remove .*BreaKHis_v1\.tar\.gz to download it"):
        bring()
    assert names_in(tmp_path / "data") == {"BreaKHis_v1.tar.gz", "download.json"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>moved</html>", "damaged, cut off or no tar archive"),
        (ARCHIVE[:100_000], "damaged, cut off or no tar archive"),
        (ARCHIVE[:-6] + bytes([ARCHIVE[-6] ^ 1]) + ARCHIVE[-5:], "damaged, cut off or no tar archive"),
        (images_archive({}), r"none of its 1 file\(s\) is a BreakHis image"),
        (images_archive({"a/x.png": b"x"}), r"none of its 2 file\(s\) is a BreakHis image"),
        (images_archive({"../x.png": b"x"}), "leads outside the folder"),
    ],
    ids=["html", "cut", "flipped", "empty", "foreign", "evil"],
)
def test_a_wrong_archive_is_thrown_away_and_fetched_anew(
    authors: Site, bring, tmp_path: Path, body: bytes, said: str
) -> None:
    authors.files["/images.tar.gz"] = body
    with pytest.raises(UserError, match=f"{said}.*the same command downloads it again"):
        bring()
    assert names_in(tmp_path / "data") == set()
    authors.files["/images.tar.gz"] = ARCHIVE
    assert content_of(bring()) == IMAGES


def test_an_archive_without_the_top_folder_lands_in_it_all_the_same(authors: Site, bring) -> None:
    authors.files["/images.tar.gz"] = images_archive(
        {"flat/" + p.rsplit("/")[-1]: d for p, d in IMAGES.items()}
    )
    images = bring()
    assert images.name == "BreaKHis_v1"
    assert {path.name for path in images.rglob("*.png")} == {path.rsplit("/")[-1] for path in IMAGES}


def test_two_calls_at_once_download_once(authors: Site, bring) -> None:
    authors.pause_seconds = 0.01
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(bring())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [content_of(path) for path in found] == [IMAGES, IMAGES]
    assert authors.asked == ["whole"]
    assert names_in(found[0].parent) == {"BreaKHis_v1", "download.json"}
