"""The comparison of a sweep in a real browser: it loads, asks the network for nothing, and fits narrow and wide screens."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from factories.browser import CHROMIUM, MEASURE, Recorder, asked_by_page, opened
from factories.sweeps import config_of, write_run, write_sweep
from histo_lightning.comparison.results import compare_runs

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Debian's chromium; `make browser` installs it"
)


@pytest.fixture
def proxy() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A sweep of two factors with a failed run of a hostile name, and a leaky one beside it."""
    root = tmp_path_factory.mktemp("browser")
    write_sweep(root / "runs", optimizers=("adam", "sgd"), magnifications=("40x",))
    write_run(root / "runs", config_of(kind="image_random"))
    hostile = '<script>console.error("seen")</script><img src="http://elsewhere.example/x.png">'
    write_run(root / "runs", config_of(seed=5), name="x" * 120, state="failed", error=hostile)
    compare_runs([root / "runs"], root / "out", select="best")
    return (root / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [400, 1400])
def test_the_comparison_fits_the_screen_and_asks_for_nothing(
    page: str, tmp_path: Path, proxy: Recorder, width: int
) -> None:
    """A copy with a script that measures, in a frame of the asked width; its policy allows that script and nothing else."""
    assert page.count("default-src 'none'; ") == 1
    measured = page.replace("default-src 'none'; ", "default-src 'none'; script-src 'unsafe-inline'; ")
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
    assert images == loaded == 10
    assert console == []
    assert asked_by_page(proxy) == []
