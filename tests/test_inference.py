"""A trained checkpoint at work: evaluated only on cases it has not seen, predicting any image, explained."""

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from PIL import Image
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from histo_lightning.baselines import mean_colour
from histo_lightning.classifier import Classifier
from histo_lightning.data import BreakHisDataModule
from histo_lightning.data.augment import Recipe
from histo_lightning.decisions import choose, store_choice
from histo_lightning.errors import UserError
from histo_lightning.evaluating import evaluate
from histo_lightning.evaluation import make_table, read_predictions, score_predictions
from histo_lightning.evaluation.table_csv import unquote_cell
from histo_lightning.explain import attribution, heat
from histo_lightning.inference import ORIENTATIONS, Trained, oriented
from histo_lightning.predicting import find_images, folder_name, malignant_probability, predict
from histo_lightning.report.gallery import overlay
from histo_lightning.schema import DatasetConfig, EvaluateConfig, PredictConfig, TrainerConfig

SETTINGS = [
    "model=resnet10",
    "epochs=1",
    "image_size=32",
    "dataset.images_per_slide=1",
    "dataset.image_size=140",
]
QUIET = TrainerConfig(accelerator="cpu", progress="none")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Path:
    """The folder of a small finished run, by the real command."""
    root = tmp_path_factory.mktemp("trained")
    subprocess.run(
        [sys.executable, "-m", "histo_lightning.train", *SETTINGS, "trainer.progress=none"],
        cwd=root,
        env=os.environ | {"XDG_CACHE_HOME": str(cache_dir)},
        check=True,
        capture_output=True,
    )
    (folder,) = (root / "outputs" / "runs").iterdir()
    return folder


@pytest.fixture
def settings(run: Path, tmp_path: Path, cache_dir: Path) -> EvaluateConfig:
    return EvaluateConfig(
        checkpoint=str(run / "checkpoints" / "best.ckpt"),
        dataset=DatasetConfig(images_per_slide=1, image_size=140),
        trainer=QUIET,
        output_dir=str(tmp_path),
        cache_dir=str(cache_dir / "histo_lightning"),
    )


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [{k: unquote_cell(v) for k, v in row.items()} for row in csv.DictReader(file)]


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
    trained = Trained.load(run / "checkpoints" / "best.ckpt", QUIET)
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
    assert len({oriented(pixels, *way).tobytes() for way in ORIENTATIONS}) == 8
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
    assert len(list((out / "gradcam").glob("*.png"))) == 3
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
    p = np.array([0.1, 0.1, 0.1, 0.1, 0.3, 0.1, 0.1, 0.1])
    assert malignant_probability(p, ["A", "F", "PT", "TA", "DC", "LC", "MC", "PC"]) == pytest.approx(0.6)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(3)
    network = Classifier("resnet10", 3, stem="small", zero_init_residual=False)
    network.train()
    with torch.no_grad():  # running statistics that fit the images
        network.logits(torch.rand(16, 3, 64, 96))
    return network.eval()


def test_grad_cam_is_captum_s(classifier: Classifier) -> None:
    images = torch.rand(4, 3, 64, 96, generator=torch.manual_seed(0))
    targets = torch.tensor([0, 1, 2, 1])
    reference = LayerGradCam(classifier.network, classifier.network.layer4)
    expected = reference.attribute(images, target=targets, relu_attributions=True)[:, 0]
    found = attribution(classifier, images, targets)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-6)
    assert float(found.max()) > 0


def test_grad_cam_plus_plus_is_its_formula(classifier: Classifier) -> None:
    """Equation 19 of Chattopadhyay et al. with the score exp(logit), written out in numpy for every channel."""
    images = torch.rand(2, 3, 64, 96, generator=torch.manual_seed(1))
    stage = classifier.network.forward_features(images).detach().requires_grad_(True)
    logits = classifier.network.fc(classifier.network.avgpool(stage).flatten(1))
    found = attribution(classifier, images, torch.tensor([2, 0]), "gradcam++")
    for i, target in enumerate((2, 0)):
        (slope,) = torch.autograd.grad(logits[i, target], stage, retain_graph=True)
        g, a = slope[i].numpy(), stage[i].detach().numpy()
        total = np.zeros(a.shape[1:])
        for k in range(len(a)):
            below = 2 * g[k] ** 2 + a[k].sum() * g[k] ** 3
            alpha = np.divide(g[k] ** 2, below, out=np.zeros_like(below), where=below != 0)
            total += (alpha * np.maximum(g[k], 0)).sum() * a[k]
        assert np.allclose(found[i].numpy(), np.maximum(total, 0), rtol=1e-3, atol=1e-6)


def test_heat_is_scaled_and_a_map_without_evidence_changes_nothing() -> None:
    maps = torch.tensor([[[0.0, 1.0], [2.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    found = heat(maps, 20, 30)
    assert found.shape == (2, 20, 30)
    assert (found[0].max(), found[0].min()) == (1.0, 0.0)
    assert not found[1].any()
    field = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    pair = overlay(field, found[1])
    assert np.array_equal(pair[:, :30], field)
    assert np.array_equal(pair[:, 30:], field)
    assert not np.array_equal(overlay(field, found[0])[:, 30:], field)


def test_what_is_chosen_comes_from_validation_and_is_kept_in_the_checkpoint(
    run: Path, tmp_path: Path
) -> None:
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["histo_lightning"]
    metrics = json.loads((run / "metrics.json").read_text())
    validation = read_predictions(run / "predictions" / "val.csv")
    choice = choose(validation, 0.95)
    assert checkpoint["threshold"] == choice.threshold == metrics["operating_point"]["threshold"]
    assert checkpoint["operating_point"] == choice.point
    assert checkpoint["temperature"] == choice.temperature
    malignant = validation.malignant == 1
    weights = np.array([1 / (validation.case == case).sum() for case in validation.case])
    caught = malignant & (validation.p_malignant >= choice.threshold)
    assert weights[caught].sum() / weights[malignant].sum() >= 0.95
    for level in ("image", "slide", "case"):
        assert metrics["val"][level]["at_threshold"]["apparent"] is True
        assert "apparent" not in metrics["test"][level]["at_threshold"]
        assert metrics["test"][level]["at_threshold"]["threshold"] == choice.threshold
    benign = replace_labels(validation)
    assert choose(benign, 0.95).threshold is None
    copy = tmp_path / "c.ckpt"
    shutil.copy(run / "checkpoints" / "best.ckpt", copy)
    store_choice(copy, choose(benign, 0.95))
    assert Classifier.from_checkpoint(copy).metadata["threshold"] == 0.5


def replace_labels(table):
    keep = table.malignant == 0
    held = {field.name: getattr(table, field.name) for field in fields(table)}
    return replace(table, **{k: v[keep] for k, v in held.items() if isinstance(v, np.ndarray)})


def test_nothing_that_is_fitted_depends_on_the_test_images(tmp_path: Path) -> None:
    """Two runs on the same train and validation images, with other test images: every fitted number is the same."""
    generator = np.random.default_rng(0)
    stored = []
    for number in (1, 2):
        root = tmp_path / f"data{number}"
        for part in ("train", "val", "test"):
            for class_name, shade in (("benign", 90), ("malignant", 160)):
                for i in range(4):
                    path = root / part / class_name / f"{part}{class_name}{i}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    if number == 2 and part != "test":
                        shutil.copy(tmp_path / "data1" / part / class_name / path.name, path)
                        continue
                    pixels = generator.integers(0, shade, (40, 60, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(path)
        subprocess.run(
            [
                sys.executable,
                "-m",
                "histo_lightning.train",
                "dataset=folders",
                f"dataset.root={root}",
                "model=resnet10",
                "image_size=32",
                "epochs=2",
                "batch_size=4",
                "trainer.progress=none",
                f"cache_dir={tmp_path / 'c'}",
            ],
            cwd=root,
            check=True,
            capture_output=True,
        )
        (path,) = root.glob("outputs/runs/*/checkpoints/best.ckpt")
        stored.append(torch.load(path, weights_only=True))
    one, two = stored
    assert all(torch.equal(one["state_dict"][k], two["state_dict"][k]) for k in one["state_dict"])
    for key in ("threshold", "operating_point", "temperature", "normalisation", "epoch"):
        assert one["histo_lightning"][key] == two["histo_lightning"][key], key


def test_the_mean_colour_baseline_is_scikit_learn_s_regression(run: Path, cache_dir: Path) -> None:
    data = BreakHisDataModule(
        images_per_slide=1,
        image_size=140,
        recipe=Recipe(size=32, name="d4", dihedral=True),
        cache_dir=cache_dir / "histo_lightning",
    )
    data.setup()
    tables, colours = {}, {}
    for part in ("train", "test"):
        members = data.parts[part]
        tables[part] = make_table(
            "binary",
            **{
                name: [getattr(record, name) for record in members.records]
                for name in ("image", "path", "class_name", "subtype", "slide", "case", "magnification")
            },
            part=part,
            logits=np.zeros((len(members.records), 2)),
        )
        colours[part] = data.pixels.take(members.dataset.rows).mean(axis=(1, 2))
    found = mean_colour(data, tables)
    scaled = StandardScaler().fit(colours["train"])
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000)
    model.fit(scaled.transform(colours["train"]), tables["train"].malignant)
    p = model.predict_proba(scaled.transform(colours["test"]))[:, 1]
    truth = tables["test"].malignant
    assert found["part"] == "test"
    assert found["image"]["auroc"] == pytest.approx(metrics.roc_auc_score(truth, p))
    assert found["image"]["balanced_accuracy"] == pytest.approx(
        metrics.balanced_accuracy_score(truth, p >= 0.5)
    )
    stored = json.loads((run / "metrics.json").read_text())["baselines"]["mean_colour"]
    assert stored == found
