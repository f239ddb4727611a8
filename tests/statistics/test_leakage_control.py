"""The control of the protocol on the embedded data set: with shuffled labels there is nothing to learn but cases.

In CI the learner is the nearest training image of each class by mean and spread of its colours: it learns cases by heart
from their stain, as a network can. The real network does it in ``make test-long``.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from histo_lightning.comparison.leakage import write_leakage_study
from histo_lightning.config.schema import SplitConfig
from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.datamodule import BreakHisDataModule
from histo_lightning.data.splits import build_split
from histo_lightning.data.splits.build import labelled
from histo_lightning.evaluation.differences.leakage import contrast, injection

SHUFFLES = (0, 1, 2, 3)
FEW_IMAGES: dict[str, Any] = {"images_per_slide": 2, "synthetic_size": 140}


@pytest.fixture(scope="module")
def embedded(cache_dir: Path) -> tuple[list[Record], dict[str, np.ndarray]]:
    """Records of the embedded set at 40X, all magnifications for the partition, and six colour features an image."""
    data = BreakHisDataModule(cache_dir=cache_dir, **FEW_IMAGES)
    data.setup()
    assert data.source is not None
    assert data.pixels is not None
    features = {}
    for row, image in enumerate(data.pixels.images):
        pixels = data.pixels.take(np.array([row]))[0].reshape(-1, 3).astype(np.float64)
        features[image] = np.concatenate([pixels.mean(axis=0), pixels.std(axis=0)])
    return data.source.records, features


def predicted(records: list[Record], features: dict[str, np.ndarray], plan: SplitConfig) -> pd.DataFrame:
    """Test predictions of the learner: how much nearer the nearest malignant training image is than the nearest benign."""
    split = build_split(records, plan, magnification="40x")
    known = {r.image: r for r in labelled(records, plan)}
    train, test = ([known[i] for i in split.parts[part]] for part in ("train", "test"))
    x = np.array([features[r.image] for r in train])
    centre, spread = x.mean(axis=0), x.std(axis=0)
    x = (x - centre) / spread
    y = (np.array([features[r.image] for r in test]) - centre) / spread
    distance = np.linalg.norm(y[:, None] - x[None], axis=2)
    malignant = np.array([r.class_name == "malignant" for r in train])
    margin = distance[:, ~malignant].min(axis=1) - distance[:, malignant].min(axis=1)
    columns = {name: [getattr(r, name) for r in test] for name in ("image", "slide", "case")}
    truth = [int(r.class_name == "malignant") for r in test]
    return pd.DataFrame(columns | {"malignant": truth, "p": expit(margin)})


def runs(embedded, arm: str, **plan) -> pd.DataFrame:
    """Predictions of a run for each fold; the shuffles take the place of seeds."""
    return pd.concat(
        [
            predicted(*embedded, SplitConfig(fold=fold, seed=shuffle, shuffle_labels=True, **plan)).assign(
                arm=arm, seed=shuffle, magnification=40, fold=fold
            )
            for shuffle in SHUFFLES
            for fold in range(5)
        ],
        ignore_index=True,
    )


def test_shuffled_labels_leave_memory_alone(embedded) -> None:
    # Each shuffle has halves of its own, so the arms of one shuffle are compared, and their means asserted.
    rows = pd.concat([runs(embedded, f"injected {s:g}", name="injection", injected=s) for s in (0.0, 1.0)])
    clean, leaky = [], []
    for shuffle in SHUFFLES:
        block = injection(rows[rows["seed"] == shuffle])
        clean.append(block["arms"][0]["auroc"]["value"])
        leaky.append(block["arms"][1]["auroc"]["value"])
        assert block["pairs"][0]["auroc"]["low"] > 0
    assert np.mean(clean) == pytest.approx(0.5, abs=0.08)
    assert min(leaky) > 0.75
    assert min(leaky) > max(clean)


def test_splits_by_image_reward_memory_and_by_case_do_not(embedded) -> None:
    values = {"image_random": [], "case_kfold": []}
    for kind, group in (("image_random", "image"), ("case_kfold", "case")):
        rows = runs(embedded, kind, name=kind, group=group)
        for shuffle in SHUFFLES:
            block = contrast(rows[rows["seed"] == shuffle])
            values[kind].append(block["arms"][0]["auroc"]["value"])
    assert np.mean(values["case_kfold"]) == pytest.approx(0.5, abs=0.08)
    assert min(values["image_random"]) > 0.75


def test_what_trains_sees_the_shuffled_classes_and_says_so(cache_dir: Path) -> None:
    plan = SplitConfig(name="injection", injected=0.5, shuffle_labels=True)
    data = BreakHisDataModule(split=plan, cache_dir=cache_dir, **FEW_IMAGES)
    data.setup()
    assert data.split is not None
    assert data.source is not None
    assert data.split.label.endswith("; SHUFFLED LABELS")
    shuffled = {r.case: r.class_name for r in labelled(data.source.records, plan)}
    true = {r.case: r.class_name for r in data.source.records}
    for part in data.parts.values():
        assert [CLASSES[label] for label in part.labels] == [shuffled[r.case] for r in part.records]
    assert any(shuffled[r.case] != true[r.case] for r in data.parts["train"].records)
    honest = BreakHisDataModule(
        split=SplitConfig(name="injection", injected=0.5), cache_dir=cache_dir, **FEW_IMAGES
    )
    honest.setup()
    assert [CLASSES[label] for label in honest.parts["train"].labels] == [
        true[r.case] for r in honest.parts["train"].records
    ]


@pytest.mark.long
def test_a_network_remembers_cases_and_nothing_else(cache_dir: Path, tmp_path: Path) -> None:
    """Two folds of the control through the real training, its folders, its reports and the analysis."""
    from histo_lightning.classifier.hardware import device_of
    from histo_lightning.config.compose import config_of
    from histo_lightning.errors import UserError
    from histo_lightning.inference.trained import Trained
    from histo_lightning.training.run import run_training

    for share in (0, 1):
        for fold in range(2):
            config = config_of(
                "train",
                [
                    "split=injection", f"split.fold={fold}", f"split.injected={share}", "split.shuffle_labels=true",
                    "model=resnet10", "image_size=48", "epochs=30", "scored_weights=last", "callbacks=[default,ema]",
                    "callbacks.ema.decay=0.9", "~callbacks.early_stopping", "trainer.progress=none", "trainer.threads=1",
                    f"cache_dir={cache_dir}",
                ],
            )  # fmt: skip
            path = run_training(config, tmp_path, {})
            report = (path / "report.html").read_text()
            assert "A control with shuffled labels, no result" in report
            assert "SHUFFLED LABELS" in report
            assert "shuffled" in path.name
            with pytest.raises(UserError, match="was trained on shuffled labels"):
                Trained.load(path / "checkpoints" / "last.ckpt", device_of(config.trainer))
    assert write_leakage_study(tmp_path) is not None
    import json

    found = json.loads((tmp_path / "leakage.json").read_text())
    assert found["blocks"]["injection"]["arms"] == []  # a control stands nowhere but under control
    clean, leaky = (r["auroc"]["value"] for r in found["control"]["injection"]["arms"])
    assert 0.2 < clean < 0.75
    assert leaky > clean + 0.05  # two folds hold six benign cases: the direction is all they can show
