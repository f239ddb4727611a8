"""TensorBoard as a person sees it: a real server over a sweep, opened in a real browser."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from factories.browser import CHROMIUM
from factories.forkserver import server
from histo_lightning.report.tensorboard import link_runs, short_name

DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="needs Debian's chromium and chromium-driver; `make browser` installs them",
)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1400,1000"
)
# All text of a page, within its components too.
TEXT = """const deep = node => node.nodeType === 3 ? node.data
  : (node.nodeType === 1 && !["STYLE", "SCRIPT"].includes(node.tagName)) || node.nodeType === 11
  ? [...(node.shadowRoot ? [node.shadowRoot] : []), ...node.childNodes].map(deep).join(" ") : "";
return deep(document.body).replace(/\\s+/g, " ");"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server over a sweep of two models, each with its optimizer, and the folder."""
    root = tmp_path_factory.mktemp("served")
    sweep = "-m experiment=smoke dataset.images_per_slide=2 dataset.image_size=140 trainer.threads=1 trainer.progress=none sweep_name=grid"
    pairs = "hydra.sweeper.products=[{model:resnet10,optimizer:adamw},{model:resnet14,optimizer:sgd}]"
    line = ["-m", "histo_lightning.train", *sweep.split(), pairs, f"cache_dir={cache_dir}"]
    done = server().run(line, root, os.environ)
    assert done.returncode == 0, done.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "histo_lightning.report", "tensorboard=true", f"port={port}"]
    with (root / "server.log").open("w") as log:
        board = subprocess.Popen(command, cwd=root, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(120):
            try:
                with urllib.request.urlopen(f"{address}data/runs") as answer:
                    if answer.read().count(b"resnet") == 2:
                        break
            except OSError:
                pass
            assert board.poll() is None, (root / "server.log").read_text()
            time.sleep(0.5)
        yield address, root
    finally:
        board.terminate()
        assert board.wait(20) == 0  # it ends itself, and takes its links with it


@pytest.fixture(scope="module")
def sees(served: tuple[str, Path]) -> Iterator[Callable[..., str]]:
    """Open a tab of TensorBoard and wait until its text holds what is expected; the text."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in FLAGS.split():
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))

    def look(tab: str, *expected: str) -> str:
        text = ""
        for attempt in range(160):
            # Opened again: what the server had not read yet, the page does not ask for later.
            if attempt in (0, 10, 30, 70, 110):
                driver.get("about:blank")
                driver.get(f"{served[0]}#{tab}")
            text = str(driver.execute_script(TEXT))
            if all(re.search(pattern, text) for pattern in expected):
                return text
            time.sleep(0.25)
        missing = [pattern for pattern in expected if not re.search(pattern, text)]
        raise AssertionError(f"{tab}: {missing} not in {text[-1500:]}")

    yield look
    driver.quit()


def test_the_first_view_has_loss_auroc_and_learning_rate(sees: Callable[..., str]) -> None:
    text = sees(
        "custom_scalars",
        "grid/resnet14 sgd 40x f0 s0",
        "Overview",
        "AUROC by case, validation",
        r"loss [^M]*Matches \( ?4 ?\)",  # between them, once it is drawn, the numbers of an axis
        "learning rate",
    )
    assert text.index("loss") < text.index("AUROC by case")


def test_scalars_have_no_diagonal_line(sees: Callable[..., str]) -> None:
    text = sees("timeseries", "images_per_second", "grid/resnet10 adamw 40x f0 s0")
    assert "epoch" not in text


def test_images_text_graph_and_pr_curve(sees: Callable[..., str]) -> None:
    sees("images", "grid/resnet10 adamw 40x f0 s0", r"test \d+", r"train 2", r"val \d+")
    sees("text", "config/text_summary", "model: weights: null", "label/text_summary", "SYNTHETIC IMAGES")
    sees("graphs", "Op graph", r"Run \(2\)")
    sees("pr_curves", "precision_recall/test", "step")


def test_hparams_shows_what_was_swept_and_real_numbers(sees: Callable[..., str]) -> None:
    text = sees(
        "hparams",
        "Hyperparameters model optimizer augment",
        "scored/val_case_auroc",
        r"resnet14 sgd d4",
        r"0\.\d{4}",
    )
    assert text.index("model") < text.index("batch_size")


def test_a_port_that_is_taken_is_one_line(served: tuple[str, Path]) -> None:
    port = served[0].rstrip("/").rpartition(":")[2]
    command = [sys.executable, "-m", "histo_lightning.report", "tensorboard=true", f"port={port}"]
    done = subprocess.run(command, cwd=served[1], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"port={port}: TensorBoard cannot use it" in done.stderr
    assert "Traceback" not in done.stderr


def test_short_names() -> None:
    assert short_name("resnet34_sgd_40x_case_kfold-0_s0_1a2b3c4d") == "resnet34 sgd 40x f0 s0"
    assert short_name("resnet34_sgd_40x_image_random-3_s1_1a2b3c4d-2") == "resnet34 sgd 40x image random-3 s1"
    assert short_name("first_1a2b3c4d") == "first"


def test_equal_short_names_stay_apart_and_a_second_look_changes_nothing(tmp_path: Path) -> None:
    for name in ("runs/a_11111111", "runs/a_22222222", "sweeps/s/a_33333333"):
        (tmp_path / "outputs" / name / "tensorboard").mkdir(parents=True)
    links = tmp_path / "links"
    for _ in range(2):
        assert link_runs(tmp_path / "outputs", links) == 3
        assert sorted(
            path.relative_to(links).as_posix() for path in links.rglob("*") if path.is_symlink()
        ) == [
            "a",
            "a_22222222",
            "s/a",
        ]
