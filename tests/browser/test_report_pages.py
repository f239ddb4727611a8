"""Every kind of page in a real browser: it loads in silence, asks the network for nothing, fits narrow and wide screens."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from factories.browser import CHROMIUM, DARK, Recorder, measured, opened, screenshot
from factories.report_runs import made_up_run, made_up_table
from factories.sweeps import config_of, write_run, write_sweep
from histo_lightning.comparison.results import compare_runs
from histo_lightning.evaluation import score_predictions
from histo_lightning.inference.predict import Prediction, write_gallery
from histo_lightning.report.index import write_index
from histo_lightning.report.pages import thumbnail
from histo_lightning.report.run_page import (
    draw_evaluation,
    draw_plots,
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
    draw_plots(run, read_image=lambda _: np.full((46, 70, 3), 120, np.uint8))
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
    picture = thumbnail(np.zeros((100, 300, 3), np.uint8), f"{'y' * 90}.png", 560)
    gallery = root / "gallery.html"
    explained = Prediction(Path("y.png"), heat_map="a.png", caption=HOSTILE, picture=picture)
    write_gallery(gallery, [explained] * 3, ["benign"])
    return {
        "run": write_report(run),
        "evaluation": write_evaluation(root / "evaluation", metrics | {"scores": scores}, table),
        "comparison": root / "runs" / "report.html",
        "gallery": gallery,
        "index": write_index(root),
    }


def brightness(colour: str) -> int:
    """The sum of a CSS colour's red, green and blue."""
    return sum(json.loads(f"[{colour.removeprefix('rgb(').removesuffix(')')}]"))


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("kind", ["run", "evaluation", "comparison", "gallery", "index"])
def test_a_page_fits_the_screen_and_asks_for_nothing(
    pages: dict[str, Path], kind: str, tmp_path: Path, proxy: Recorder, width: int, mode: str
) -> None:
    found, console = measured(pages[kind], tmp_path, proxy, width, *([DARK] if mode == "dark" else []))
    assert (brightness(found.background) < 120) == (mode == "dark")
    assert found.width == width
    assert found.scroll_width <= width, "the page scrolls sideways"
    assert found.outside == 0
    assert found.images == found.loaded
    assert found.images > 2 or kind == "index"
    assert console == []
    assert proxy.asked_by_page() == []


def test_in_dark_mode_plots_are_dark_and_photos_keep_their_colours(
    pages: dict[str, Path], tmp_path: Path, proxy: Recorder
) -> None:
    """Of the run: its first figure is a plot, its last one the worst errors. What is seen is looked at, pixel by pixel."""
    dark, _ = measured(pages["run"], tmp_path, proxy, 1400, DARK)
    light, _ = measured(pages["run"], tmp_path, proxy, 1400)
    assert brightness(dark.figure) < 150
    assert light.figure == "rgb(255, 255, 255)"
    text = pages["run"].read_text(encoding="utf-8")
    plot, photo = (
        re.search(rf'<figure class="[^"]*{kind}"><img alt="[^"]*" src="[^"]*"></figure>', text)
        for kind in ("", "photo")
    )
    assert plot
    assert photo
    style = text.partition("<style>")[2].partition("</style>")[0]
    seen = {}
    for name, figure in (("plot", plot), ("photo", photo)):
        page = tmp_path / f"{name}.html"
        page.write_text(
            f"<style>{style}</style><body><main><div class='pictures'>{figure[0]}</div></main></body>",
            "utf-8",
        )
        for mode in ("light", "dark"):
            image = screenshot(
                page, tmp_path / f"{name}-{mode}.png", proxy, *([DARK] if mode == "dark" else [])
            )
            seen[name, mode] = np.asarray(image.convert("L"))[60:400, 60:400].mean()
    assert seen["plot", "light"] > 200
    assert seen["plot", "dark"] < 100
    assert abs(seen["photo", "light"] - seen["photo", "dark"]) < 5


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
