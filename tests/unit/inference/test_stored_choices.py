"""What a checkpoint carries besides its weights is chosen on validation, never on test images."""

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from factories.runs import train_here
from histo_lightning.classifier import Classifier
from histo_lightning.data import BreakHisDataModule
from histo_lightning.evaluation import make_table, read_predictions
from histo_lightning.training.results import choose, mean_colour, store_choice


def test_what_is_chosen_comes_from_validation_and_is_kept_in_the_checkpoint(
    run: Path, tmp_path: Path
) -> None:
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["histo_lightning"]
    metrics = json.loads((run / "metrics.json").read_text())
    validation = read_predictions(run / "predictions" / "val.csv")
    choice = choose(validation, 0.95)
    assert checkpoint["threshold"] == choice["threshold"] == metrics["operating_point"]["threshold"]
    assert checkpoint["operating_point"] == choice["operating_point"]
    assert checkpoint["temperature"] == choice["temperature"]
    malignant = validation.malignant == 1
    weights = np.array([1 / (validation.case == case).sum() for case in validation.case])
    caught = malignant & (validation.p_malignant >= choice["threshold"])
    assert weights[caught].sum() / weights[malignant].sum() >= 0.95
    for level in ("image", "slide", "case"):
        assert metrics["val"][level]["at_threshold"]["apparent"] is True
        assert "apparent" not in metrics["test"][level]["at_threshold"]
        assert metrics["test"][level]["at_threshold"]["threshold"] == choice["threshold"]
    benign = replace_labels(validation)
    assert choose(benign, 0.95)["threshold"] is None
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
        train_here(
            root, tmp_path, "dataset=folders", f"dataset.root={root}", "model=resnet10", "image_size=32", "epochs=2", "batch_size=4",
            "trainer.progress=none", base=(), pictures=False,
        )  # fmt: skip
        (path,) = root.glob("outputs/runs/*/checkpoints/best.ckpt")
        stored.append(torch.load(path, weights_only=True))
    one, two = stored
    assert all(torch.equal(one["state_dict"][k], two["state_dict"][k]) for k in one["state_dict"])
    for key in ("threshold", "operating_point", "temperature", "normalisation", "epoch"):
        assert one["histo_lightning"][key] == two["histo_lightning"][key], key


def test_the_mean_colour_baseline_is_scikit_learn_s_regression(run: Path, cache_dir: Path) -> None:
    data = BreakHisDataModule(
        images_per_slide=1,
        synthetic_size=140,
        image_size=32,
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
        colours[part] = data.pixels.take(members.rows).mean(axis=(1, 2))
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
