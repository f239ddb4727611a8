"""A page in a headless browser behind a proxy that records what it asks for."""

import re
import shutil
import socket
import subprocess
import threading
from pathlib import Path

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
