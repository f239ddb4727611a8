"""A run's report in a real browser: it loads, asks the network for nothing, and fits narrow and wide screens."""

import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from histo_lightning.report.figures import draw_plots
from histo_lightning.report.html import write_report
from histo_lightning.report.worst_picture import draw_worst
from test_report import made_up_run

CHROMIUM = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-default-apps --disable-extensions --disable-dev-shm-usage "
    "--hide-scrollbars --virtual-time-budget=3000 --enable-logging=stderr --v=0"
)
MEASURE = """<script>
addEventListener("load", () => {
  const root = document.documentElement, images = [...document.images];
  const out = [...document.querySelectorAll("main *")].filter(
    e => e.getBoundingClientRect().right > root.clientWidth + 1 && !e.closest(".scroll, pre, .wide"));
  document.title = JSON.stringify(["measured", innerWidth, root.scrollWidth, images.length,
    images.filter(i => i.complete && i.naturalWidth > 0).length, out.length]);
});
</script>"""

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Debian's chromium; `make browser` installs it"
)


class Recorder:
    """A proxy that answers nothing and keeps the first line of every request."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(2)
                try:
                    self.requests.append(connection.recv(4096).split(b"\r\n")[0].decode("latin-1"))
                except OSError:
                    self.requests.append("a connection without a request")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def proxy() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.close()


def opened(page: Path, folder: Path, proxy: Recorder, *more: str) -> tuple[str, list[str]]:
    """The document after loading, and what the page wrote to the console."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM,
        *FLAGS.split(),
        f"--user-data-dir={folder}",
        f"--proxy-server=http://127.0.0.1:{proxy.port}",
    ]
    # Without this a browser goes past its proxy for this machine's own addresses.
    command += ["--proxy-bypass-list=<-loopback>", *more, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def asked_by_page(proxy: Recorder) -> list[str]:
    """Requests but for those that chromium makes by itself, to its maker's hosts."""
    own = re.compile(
        r"(https?://| )(clients2\.google|accounts\.google|www\.google|update\.googleapis|edgedl\.me\.gvt1|redirector\.gvt1|"
        r"(content-autofill|optimizationguide-pa|android\.clients)\.google(apis)?)\.com[:/]"
    )
    return [line for line in proxy.requests if not own.search(line)]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = made_up_run(
        tmp_path_factory.mktemp("browser") / "run", draws=100, label="LEAKY", kind="image_random"
    )
    draw_plots(run)
    draw_worst(run, lambda _: np.full((46, 70, 3), 120, np.uint8))
    return write_report(run)


@pytest.mark.parametrize("width", [400, 1400])
def test_the_report_fits_the_screen(report: Path, tmp_path: Path, proxy: Recorder, width: int) -> None:
    """A copy with a script that measures; its policy allows that script and nothing else more.

    The page stands in a frame of the asked width, since a headless window is never narrower than 500 px.
    """
    text = report.read_text(encoding="utf-8")
    assert text.count("default-src 'none'; ") == 1
    measured = text.replace("default-src 'none'; ", "default-src 'none'; script-src 'unsafe-inline'; ")
    measured = measured.replace(
        "</body>", MEASURE.replace("document.title", "parent.document.title") + "</body>"
    )
    frame = tmp_path / "frame.html"
    document = measured.replace("&", "&amp;").replace('"', "&quot;")
    frame.write_text(
        f'<iframe style="border:0" width="{width}" height="900" srcdoc="{document}"></iframe>', "utf-8"
    )
    dom, console = opened(frame, tmp_path / "profile", proxy, "--window-size=1500,1000")
    found = re.search(r"<title>\[\"measured\",(\d+),(\d+),(\d+),(\d+),(\d+)\]</title>", dom)
    assert found, dom[:300]
    inner, scroll, images, loaded, outside = map(int, found.groups())
    assert inner == width
    assert scroll <= width, "the page scrolls sideways"
    assert outside == 0
    assert images == loaded > 10
    assert console == []
    assert asked_by_page(proxy) == []


def test_the_report_as_it_is_loads_in_silence(report: Path, tmp_path: Path, proxy: Recorder) -> None:
    dom, console = opened(report, tmp_path / "profile", proxy)
    assert "Report: run" in dom
    assert "LEAKY" in dom
    assert dom.rstrip().endswith("</html>")
    assert console == []
    assert asked_by_page(proxy) == []


def test_the_checks_can_fail(tmp_path: Path, proxy: Recorder) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        '<img src="http://elsewhere.example/x.png"><img src="https://fonts.googleapis.com/x"><script>console.error("seen")</script>',
        "utf-8",
    )
    _, console = opened(page, tmp_path / "profile", proxy)
    assert any("seen" in line for line in console)
    assert any("elsewhere.example" in line for line in asked_by_page(proxy))
    assert any("fonts.googleapis.com" in line for line in asked_by_page(proxy))
