"""``predict``: probabilities of any image, test-time augmentation, the device, files that cannot be read."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from histo_lightning.classifier.hardware import device_of
from histo_lightning.config.schema import PredictConfig, TrainerConfig
from histo_lightning.errors import UserError
from histo_lightning.evaluation import read_predictions
from histo_lightning.inference.predict import (
    Prediction,
    find_images,
    folder_name,
    predict,
    table_row,
)
from histo_lightning.inference.trained import Trained
from histo_lightning.runs import unquote_cell

QUIET = TrainerConfig(accelerator="cpu", progress="none")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [{k: unquote_cell(v) for k, v in row.items()} for row in csv.DictReader(file)]


def test_predictions_of_files_are_those_of_the_run(run: Path, cache_dir: Path, tmp_path: Path) -> None:
    (drawn,) = (cache_dir / "histo_lightning" / "synthetic").glob("v*-1x140-seed0")
    config = PredictConfig(
        checkpoint=str(run / "checkpoints" / "best.ckpt"),
        input=f"{drawn}/**/*-40-*.png",
        trainer=QUIET,
        output_dir=str(tmp_path),
        json=str(tmp_path / "found.json"),
        batch_size=7,
    )
    folder, predictions = predict(config)
    own = read_predictions(run / "predictions" / "test.csv")
    found = {Path(row["path"]).name: row for row in rows(folder / "predictions.csv")}
    assert len(found) == len(predictions) == 82
    threshold = json.loads((run / "metrics.json").read_text())["operating_point"]["threshold"]
    for image, p in zip(own.image, own.p_malignant, strict=True):
        row = found[image]
        assert float(row["p_malignant"]) == pytest.approx(p, abs=1e-5)
        assert row["predicted"] == (
            "malignant" if float(row["p_malignant"]) > float(row["p_benign"]) else "benign"
        )
        assert row["decision"] == ("malignant" if float(row["p_malignant"]) >= threshold else "benign")
    figures = json.loads((tmp_path / "found.json").read_text())
    assert figures["images"] == 82
    assert sum(figures["decisions"].values()) == 82


def test_test_time_augmentation_is_the_mean_of_the_eight_orientations(run: Path) -> None:
    trained = Trained.load(run / "checkpoints" / "best.ckpt", device_of(QUIET))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 37, 56, 3), dtype=np.uint8)
    expected = []
    for image in pixels:
        views = [np.rot90(image, k) for k in range(4)]
        views += [view[:, ::-1] for view in views]
        one = [
            torch.softmax(torch.tensor(trained.logits(v[None])), dim=1)[0]
            for v in map(np.ascontiguousarray, views)
        ]
        expected.append(torch.stack(one).mean(dim=0).numpy())
    assert np.allclose(trained.probabilities(pixels, tta=True), expected, atol=1e-6)
    alone = trained.probabilities(pixels[:1], tta=True)
    assert np.allclose(alone, trained.probabilities(pixels, tta=True)[:1], atol=1e-6)


def test_any_file_name_and_size_is_taken_and_bad_files_are_named(run: Path, command, tmp_path: Path) -> None:
    folder = tmp_path / "my images [1]"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name, size in (("=cmd,'x'.png", (90, 60)), ("b c.jpg", (60, 90)), ("c.tif", (64, 64))):
        Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(folder / name)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = command(
        "predict", f"checkpoint={run}/checkpoints/best.ckpt", f"input={folder}", "gradcam=true", "tta=d4"
    )
    assert done.returncode == 2, done.stderr
    assert "broken.png" in done.stderr
    (out,) = (tmp_path / "outputs" / "predictions").iterdir()
    table = rows(out / "predictions.csv")
    assert [Path(row["path"]).name for row in table] == ["=cmd,'x'.png", "b c.jpg", "broken.png", "c.tif"]
    assert table[2]["error"]
    assert table[2]["p_malignant"] == ""
    assert all(0 <= float(row["p_malignant"]) <= 1 for row in table if not row["error"])
    overlays = sorted((out / "gradcam").glob("*.png"))
    assert [path.name for path in overlays] == ["00001__cmd_x_.png", "00002_b_c.png", "00004_c.png"]
    for path in overlays:
        with Image.open(path) as image:  # the field and its overlay
            assert image.width % 2 == 0
            assert image.mode == "RGB"
    page = (out / "index.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 3
    assert "http" not in page.replace("http-equiv", "")


def test_inputs_that_name_nothing_are_refused(tmp_path: Path, run: Path) -> None:
    for wanted, message in (
        ("", "input is not set"),
        (str(tmp_path), "no image there"),
        ("/no/*.png", "no image"),
    ):
        with pytest.raises(UserError, match=message):
            find_images(wanted)
    with pytest.raises(UserError, match="checkpoint is not set"):
        predict(PredictConfig(input=str(run / "plots"), trainer=QUIET))
    assert folder_name("/data/slides/*-[0-9].png") == "slides"
    assert folder_name("/data/a b/c.png") == "c.png"


def test_the_subtypes_of_malignant_tumours_are_added_up(run: Path) -> None:
    trained = Trained.load(run / "checkpoints" / "best.ckpt", torch.device("cpu"))
    assert (trained.classes, trained.malignant_columns) == (["benign", "malignant"], [1])
    names = ["PC", "A", "F", "DC", "PT", "TA", "LC", "MC"]
    trained.classifier.metadata["class_to_idx"] = {name: index for index, name in enumerate(names)}
    assert trained.malignant_columns == [0, 3, 6, 7]
    one = Prediction(Path("a.png"), probabilities=np.array([0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]))
    row = table_row(one, trained)
    assert float(row["p_malignant"]) == pytest.approx(0.6)
    assert (row["p_PC"], row["predicted"]) == ("0.3", "PC")


@pytest.mark.parametrize(("gpu", "device"), [(None, "cuda:0"), (0, "cuda:0"), (2, "cuda:2")])
def test_the_gpu_that_is_asked_for_is_used(
    gpu: int | None, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert device_of(TrainerConfig(gpu=gpu, threads=1)) == torch.device(device)
    assert device_of(TrainerConfig(accelerator="cpu", gpu=gpu, threads=1)) == torch.device("cpu")
    with pytest.raises(UserError, match=r"trainer\.gpu=3: this machine shows 3 GPU"):
        device_of(TrainerConfig(gpu=3))
