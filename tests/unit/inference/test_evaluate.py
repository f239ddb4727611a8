"""``evaluate``: the run's own test scores again, and never silently on cases that were seen."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from histo_lightning.config.schema import DatasetConfig, EvaluateConfig, TrainerConfig
from histo_lightning.errors import UserError
from histo_lightning.evaluation import read_predictions, score_predictions
from histo_lightning.inference.evaluate import evaluate
from histo_lightning.report.summaries import print_evaluation

QUIET = TrainerConfig(accelerator="cpu", progress="none")


@pytest.fixture
def settings(run: Path, tmp_path: Path, cache_dir: Path) -> EvaluateConfig:
    return EvaluateConfig(
        checkpoint=str(run / "checkpoints" / "best.ckpt"),
        dataset=DatasetConfig(images_per_slide=1, image_size=140),
        trainer=QUIET,
        output_dir=str(tmp_path),
        cache_dir=str(cache_dir / "histo_lightning"),
    )


@pytest.mark.parametrize("part", ["unseen", "test"])
def test_evaluation_on_the_unseen_cases_is_the_run_s_own_test(
    settings: EvaluateConfig, run: Path, part: str
) -> None:
    folder, metrics = evaluate(replace(settings, part=part))
    own = read_predictions(run / "predictions" / "test.csv")
    again = read_predictions(folder / "predictions.csv")
    position = {image: i for i, image in enumerate(again.image)}
    order = [position[image] for image in own.image]
    assert len(order) == len(again)
    assert np.allclose(again.logits[order], own.logits, atol=1e-5)
    stored = json.loads((run / "metrics.json").read_text())
    assert metrics["scores"]["case"]["auroc"]["value"] == pytest.approx(
        stored["test"]["case"]["auroc"]["value"]
    )
    assert metrics["label"] == ""
    scores = score_predictions(again, threshold=stored["operating_point"]["threshold"])
    assert json.loads((folder / "metrics.json").read_text())["scores"] == scores
    assert "http" not in (folder / "report.html").read_text().replace("http-equiv", "")


def test_an_evaluation_on_drawn_images_and_of_a_shortened_run_says_so(
    settings: EvaluateConfig, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["histo_lightning"]["shortened"] == ""
    checkpoint["histo_lightning"]["shortened"] = "SHORTENED (debug=limit)"
    torch.save(checkpoint, tmp_path / "short.ckpt")
    folder, metrics = evaluate(replace(settings, part="unseen", checkpoint=str(tmp_path / "short.ckpt")))
    assert (metrics["data"], metrics["shortened"]) == ("synthetic", "SHORTENED (debug=limit)")
    print_evaluation(folder, metrics)
    page = (folder / "report.html").read_text()
    for text in (capsys.readouterr().out, page):
        assert "SYNTHETIC IMAGES: says nothing about tissue" in text
        assert "SHORTENED (debug=limit)" in text


def test_seen_cases_are_refused_unless_they_are_asked_for_and_then_it_is_said(
    settings: EvaluateConfig,
) -> None:
    with pytest.raises(UserError, match=r"56 of these cases were seen .*part=unseen scores the others"):
        evaluate(settings)
    with pytest.raises(UserError, match="were seen in training or validation"):
        evaluate(replace(settings, part="train"))
    folder, metrics = evaluate(replace(settings, part="val", allow_seen_cases=True))
    assert metrics["label"].startswith("SEEN CASES (")
    assert metrics["label"] in (folder / "report.html").read_text()
    assert "do not hold for new cases" in (folder / "report.html").read_text()


def test_a_seen_image_is_known_by_its_pixels_under_any_name(
    settings: EvaluateConfig, run: Path, tmp_path: Path, cache_dir: Path
) -> None:
    split = json.loads((run / "split.json").read_text())
    (drawn,) = (cache_dir / "histo_lightning" / "synthetic").glob("v*-1x140-seed0")
    files = {path.name: path for path in drawn.rglob("*.png")}
    root = tmp_path / "tree"
    unseen = list(split["parts"]["test"])
    for part in ("train", "val", "test"):
        for i, letter in enumerate("BM"):
            name = next(n for n in unseen if f"SOB_{letter}_" in n)
            unseen.remove(name)
            folder = root / part / ("benign", "malignant")[i]
            folder.mkdir(parents=True)
            shutil.copy(files[name], folder / f"{part}{i}.png")
    tree = replace(settings, dataset=DatasetConfig(name="folders", root=str(root)))
    _, figures = evaluate(tree)
    assert figures["scores"]["image"]["n"] == 6
    assert figures["scores"]["case"]["reason"]
    victim = next(n for n in split["parts"]["train"] if "SOB_B_" in n)
    Image.open(files[victim]).save(root / "test" / "benign" / "innocent.png", compress_level=9)
    with pytest.raises(UserError, match=r"1 images, e\.g\. case innocent\.png"):
        evaluate(tree)
