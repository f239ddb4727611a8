"""Every kind of page in a real browser: it loads in silence, asks the network for nothing, fits narrow and wide screens."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from factories.browser import CHROMIUM, DARK, Recorder, measured, opened
from factories.report_runs import made_up_run, made_up_table
from factories.sweeps import config_of, write_run, write_sweep
from histo_lightning.comparison.results import compare_runs
from histo_lightning.evaluation import score_predictions
from histo_lightning.inference.heat_maps import HeatMap, write_gallery
from histo_lightning.report.index import write_index
from histo_lightning.report.run_page import (
    draw_evaluation,
    draw_plots,
    draw_worst,
    write_evaluation,
    write_report,
)

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Debian's chromium; `make browser` installs it"
)
HOSTILE = '<script>console.error("seen")</script><img src="http://elsewhere.example/x.png">'


@pytest.fixture
def proxy() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind by name: of a leaky run, an evaluation, a crossed sweep with a failed run, a gallery."""
    root = tmp_path_factory.mktemp("browser")
    run = made_up_run(root / "run", draws=100, label="LEAKY", kind="image_random", data="synthetic")
    draw_plots(run)
    draw_worst(run, lambda _: np.full((46, 70, 3), 120, np.uint8))
    table = made_up_table("test")
    scores = score_predictions(table, draws=100)
    metrics = {
        "run": "x" * 120,
        "dataset": HOSTILE,
        "source": "s",
        "part": "all",
        "split_hash": "9f",
        "label": "",
    }
    draw_evaluation(root / "evaluation", table, scores, 0.4, None, lambda _: None)
    write_sweep(root / "runs", optimizers=("adam", "sgd"), magnifications=("40x",))
    write_run(root / "runs", config_of(kind="image_random"))
    write_run(root / "runs", config_of(seed=5), name="x" * 120, state="failed", error=HOSTILE)
    compare_runs([root / "runs"], root / "runs", select="best")
    picture = np.zeros((100, 300, 3), np.uint8)
    gallery = root / "gallery.html"
    write_gallery(gallery, [HeatMap(f"{'y' * 90}.png", HOSTILE, picture, "a.png")] * 3, ["benign"])
    return {
        "run": write_report(run),
        "evaluation": write_evaluation(root / "evaluation", metrics | {"scores": scores}, table),
        "comparison": root / "runs" / "report.html",
        "gallery": gallery,
        "index": write_index(root),
    }


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("kind", ["run", "evaluation", "comparison", "gallery", "index"])
def test_a_page_fits_the_screen_and_asks_for_nothing(
    pages: dict[str, Path], kind: str, tmp_path: Path, proxy: Recorder, width: int
) -> None:
    found, console = measured(pages[kind], tmp_path, proxy, width)
    assert found.width == width
    assert found.scroll_width <= width, "the page scrolls sideways"
    assert found.outside == 0
    assert found.images == found.loaded
    assert found.images > 2 or kind == "index"
    assert console == []
    assert proxy.asked_by_page() == []


def test_in_dark_mode_the_page_is_dark_and_pictures_lie_on_a_light_card(
    pages: dict[str, Path], tmp_path: Path, proxy: Recorder
) -> None:
    dark, _ = measured(pages["run"], tmp_path, proxy, 1400, DARK)
    light, _ = measured(pages["run"], tmp_path, proxy, 1400)

    def brightness(colour: str) -> int:
        return sum(json.loads(f"[{colour.removeprefix('rgb(').removesuffix(')')}]"))

    assert brightness(dark.background) < 120
    assert brightness(light.background) > 700
    assert dark.figure == light.figure == "rgb(255, 255, 255)"


def test_the_report_as_it_is_loads_in_silence(
    pages: dict[str, Path], tmp_path: Path, proxy: Recorder
) -> None:
    dom, console = opened(pages["run"], tmp_path / "profile", proxy)
    assert "ResNet-18, AdamW, 100X, fold 1 of 5" in dom
    assert dom.rstrip().endswith("</html>")
    assert console == []
    assert proxy.asked_by_page() == []


def test_the_checks_can_fail(tmp_path: Path, proxy: Recorder) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        '<img src="http://elsewhere.example/x.png"><img src="https://fonts.googleapis.com/x"><script>console.error("seen")</script>',
        "utf-8",
    )
    _, console = opened(page, tmp_path / "profile", proxy)
    assert any("seen" in line for line in console)
    assert any("elsewhere.example" in line for line in proxy.asked_by_page())
    assert any("fonts.googleapis.com" in line for line in proxy.asked_by_page())
