"""Headless Chromium on a page: what it loads, says and asks the network for, and whether it fits a screen."""

import re
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from typing import NamedTuple

from PIL import Image

CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-default-apps --disable-extensions --disable-dev-shm-usage "
    "--hide-scrollbars --virtual-time-budget=3000 --enable-logging=stderr --v=0"
)
DARK = "--blink-settings=preferredColorScheme=0"
MEASURE = """<script>
addEventListener("load", () => {
  const root = document.documentElement, images = [...document.images];
  const out = [...document.querySelectorAll("main *")].filter(
    e => e.getBoundingClientRect().right > root.clientWidth + 1 && !e.closest(".scroll, pre, .wide"));
  const figure = document.querySelector("figure");
  parent.document.title = JSON.stringify(["measured", innerWidth, root.scrollWidth, images.length,
    images.filter(i => i.complete && i.naturalWidth > 0).length, out.length,
    getComputedStyle(document.body).backgroundColor, figure ? getComputedStyle(figure).backgroundColor : ""]);
});
</script>"""


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

    def asked_by_page(self) -> list[str]:
        """Requests but for those that chromium makes by itself, to its maker's hosts."""
        own = re.compile(
            r"(https?://| )(clients2\.google|accounts\.google|www\.google|update\.googleapis|edgedl\.me\.gvt1|redirector\.gvt1|"
            r"(content-autofill|optimizationguide-pa|android\.clients)\.google(apis)?)\.com[:/]"
        )
        return [line for line in self.requests if not own.search(line)]


class Measured(NamedTuple):
    """A page in a frame: widths in pixels, numbers of images, of those loaded, of elements outside; CSS colours."""

    width: int
    scroll_width: int
    images: int
    loaded: int
    outside: int
    background: str
    figure: str


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


def screenshot(page: Path, file: Path, proxy: Recorder, *more: str) -> Image.Image:
    """What a person sees of a page in a window of 1,000 x 900."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM,
        *FLAGS.split(),
        f"--user-data-dir={file.parent / 'profile'}",
        "--window-size=1000,900",
    ]
    command += [f"--proxy-server=http://127.0.0.1:{proxy.port}", *more, f"--screenshot={file}", page.as_uri()]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    return Image.open(file)


def measured(page: Path, folder: Path, proxy: Recorder, width: int, *more: str) -> tuple[Measured, list[str]]:
    """A copy of the page with a script that measures, whose policy allows that script and nothing else more.

    It is in a frame of the asked width, since a headless window is never narrower than 500 px.
    """
    text = page.read_text(encoding="utf-8")
    assert text.count("default-src 'none'; ") == 1
    text = re.sub(r"; script-src '[^']+'", "", text)  # a page's own script, which the next line allows too
    text = text.replace("default-src 'none'; ", "default-src 'none'; script-src 'unsafe-inline'; ")
    document = text.replace("</body>", f"{MEASURE}</body>").replace("&", "&amp;").replace('"', "&quot;")
    frame = folder / "frame.html"
    frame.write_text(
        f'<iframe style="border:0" width="{width}" height="900" srcdoc="{document}"></iframe>', "utf-8"
    )
    dom, console = opened(frame, folder / "profile", proxy, "--window-size=1500,1000", *more)
    found = re.search(r'<title>\["measured",(\d+),(\d+),(\d+),(\d+),(\d+),"([^"]*)","([^"]*)"\]</title>', dom)
    assert found, dom[:300]
    return Measured(*map(int, found.groups()[:5]), *found.groups()[5:]), console
