"""From run folders to the study's files: real splits, made-up predictions with a known leak, and what goes wrong."""

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from factories.leakage import write_leakage_run
from histo_lightning.comparison.leakage import analyse, arm_of, read_study, write_leakage_study


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole study of two seeds."""
    folder = tmp_path_factory.mktemp("sweep")
    for seed, fold in itertools.product((0, 1), range(5)):
        for share in (0.0, 0.25, 0.5, 1.0):
            write_leakage_run(folder, "injection", fold, seed, injected=share)
        for kind in ("image_random", "slide_kfold", "case_kfold"):
            write_leakage_run(folder, kind, fold, seed)
        for variant in ({}, {"clean": True}, {"matched": True}):
            write_leakage_run(folder, "official", fold + 1, seed, **variant)
    for fold in range(5):
        for share in (0.0, 1.0):
            write_leakage_run(folder, "injection", fold, 0, injected=share, shuffle_labels=True)
        for kind in ("image_random", "case_kfold"):
            write_leakage_run(folder, kind, fold, 0, shuffle_labels=True)
    return folder


@pytest.fixture
def copy(sweep: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(sweep, tmp_path / "sweep"))


def test_the_study_finds_the_leak_that_was_put_in(sweep: Path) -> None:
    page = write_leakage_study(sweep)
    assert page == sweep / "leakage.html"
    assert {p.name for p in sweep.glob("leakage.*")} == {
        f"leakage.{e}" for e in ("html", "json", "md", "png")
    }
    found = json.loads((sweep / "leakage.json").read_text())
    assert found["runs"] == 120
    assert found["missing"] == found["problems"] == []
    full = next(p for p in found["blocks"]["injection"]["pairs"] if p["arm"] == "injected 1")
    assert full["reference"] == "injected 0"
    assert full["auroc"]["low"] > 0
    assert full["auroc"]["seeds"] == 2
    pairs = {
        (p["arm"], p["among"]): p
        for p in found["blocks"]["official"]["pairs"]
        if p["reference"] == "official clean"
    }
    assert pairs["official", "touched images"]["accuracy"]["value"] > 0.1
    assert abs(pairs["official", "untouched images"]["accuracy"]["value"]) < 0.1
    control = {r["arm"]: r["auroc"] for r in found["control"]["injection"]["arms"]}
    assert abs(control["injected 0"]["value"] - 0.5) < 0.1
    assert control["injected 1"]["value"] > 0.75
    assert {r["arm"] for r in found["control"]["contrast"]["arms"]} == {"image_random", "case_kfold"}
    assert found["doses"]["injected 1"]["share"] == 1.0
    text = (sweep / "leakage.md").read_text()
    assert found["words"]["injection"] in text
    assert "points are not compatible with these data" in found["words"]["injection"]
    html = page.read_text()
    assert html.count("SHUFFLED LABELS") >= 5
    for words in ("patient-level", "best depth", "machine"):
        assert words not in html + text


def test_the_figures_follow_from_the_predictions_files(sweep: Path) -> None:
    """The headline again from the CSV files with pandas-free arithmetic and scikit-learn."""
    import csv

    from sklearn.metrics import roc_auc_score

    def score(share: str, seed: int) -> float:
        right = pairs = 0.0
        for fold in range(5):
            (path,) = sweep.glob(f"resnet10_adamw_100x_injection-{fold}-{share}_s{seed}_*")
            rows = list(csv.DictReader((path / "predictions" / "test.csv").read_text().splitlines()))
            truth = [row["class"] == "malignant" for row in rows]
            weight = sum(truth) * (len(truth) - sum(truth))
            right += weight * roc_auc_score(truth, [float(row["p_malignant"]) for row in rows])
            pairs += weight
        return right / pairs

    found = analyse(*read_study(sweep))
    full = next(p for p in found["blocks"]["injection"]["pairs"] if p["arm"] == "injected 1")
    by_seed = [score("1", s) - score("0", s) for s in (0, 1)]
    assert full["auroc"]["by_seed"] == pytest.approx(by_seed)
    assert full["auroc"]["value"] == pytest.approx(np.mean(by_seed))


def test_failed_and_missing_runs_are_said_and_the_rest_is_computed(copy: Path) -> None:
    lost = next(copy.glob("*_injection-0-1_s0_*"))
    (lost / "status.json").write_text(json.dumps({"state": "failed", "error": "the loss is not finite"}))
    damaged = next(copy.glob("*_official-2-clean_s1_*"))
    (damaged / "predictions" / "test.csv").write_text("image\n")
    jobs = [{"run": p.name, "overrides": []} for p in copy.glob("*/")] + [
        {"run": "failed_at_once", "overrides": []}
    ]
    (copy / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    (copy / "failed_at_once").mkdir()
    (copy / "failed_at_once" / "status.json").write_text(
        json.dumps({"state": "failed", "error": "split: <no> such fold"})
    )
    page = write_leakage_study(copy)
    found = json.loads((copy / "leakage.json").read_text())
    told = {m["run"]: m["why"] for m in found["missing"]}
    assert told[lost.name] == "failed: the loss is not finite"
    assert "test.csv" in told[damaged.name]
    assert told["failed_at_once"] == "failed: split: <no> such fold"
    full = next(p for p in found["blocks"]["injection"]["pairs"] if p["arm"] == "injected 1")
    assert full["coverage"]["folds"] == [1, 2, 3, 4]
    assert full["coverage"]["runs_left_out"] == 3
    assert full["auroc"]["value"] is not None
    html = page.read_text()
    assert "Runs missing or left out: 3." in html
    assert "split: &lt;no&gt; such fold" in html


def test_an_arm_alone_gives_its_scores_and_no_difference(sweep: Path, tmp_path: Path) -> None:
    for path in sweep.glob("*_official-[1-5]_s*"):
        shutil.copytree(path, tmp_path / path.name)
    assert write_leakage_study(tmp_path) is None  # one arm is no study
    for path in sweep.glob("*_case_kfold-[0-4]_s*"):
        shutil.copytree(path, tmp_path / path.name)
    page = write_leakage_study(tmp_path)
    assert page is not None
    found = json.loads((tmp_path / "leakage.json").read_text())
    assert found["blocks"]["injection"] == {"arms": [], "pairs": []}
    assert found["blocks"]["contrast"]["pairs"] == found["blocks"]["official"]["pairs"] == []
    assert "No two arms could be compared." in page.read_text()


def test_other_folders_are_no_leakage_study(sweep: Path, tmp_path: Path) -> None:
    assert write_leakage_study(tmp_path) is None
    assert write_leakage_study(tmp_path / "nowhere") is None
    for path in sweep.glob("*_case_kfold-[0-4]_s*"):
        shutil.copytree(path, tmp_path / path.name)
    assert write_leakage_study(tmp_path) is None
    assert not list(tmp_path.glob("leakage*"))


def test_arms_that_do_not_fit_are_said(copy: Path) -> None:
    path = next(copy.glob("*_injection-1-0.5_s0_*"))
    split = json.loads((path / "split.json").read_text())
    benign = next(i for i in split["parts"]["train"] if "SOB_B" in i)
    split["parts"]["train"].remove(benign)
    (path / "split.json").write_text(json.dumps(split))
    other = next(copy.glob("*_injection-2-0.5_s0_*"))
    config = yaml.safe_load((other / "config.yaml").read_text())
    config["epochs"] = 99
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    unread = next(copy.glob("*_injection-3-0.5_s0_*"))
    config = yaml.safe_load((unread / "config.yaml").read_text())
    config["test"] = False
    (unread / "config.yaml").write_text(yaml.safe_dump(config))
    (unread / "metrics.json").write_text(json.dumps({"best_epoch": 0, "test": None}))
    found = analyse(*read_study(copy))
    assert any("training parts differ in size: benign images" in p for p in found["problems"])
    assert any("2 recipes (they differ in epochs)" in p for p in found["problems"])
    told = {m["run"]: m["why"] for m in found["missing"]}
    assert told[other.name] == "another recipe (epochs)"
    assert "test=false" in told[unread.name]


def test_another_test_part_in_one_arm_is_said_and_only_common_images_count(copy: Path) -> None:
    path = next(copy.glob("*_injection-1-1_s0_*"))
    lines = (path / "predictions" / "test.csv").read_text().splitlines()
    (path / "predictions" / "test.csv").write_text("\n".join(lines[:-1]) + "\n")
    assert path.name in {
        entry["run"] for entry in read_study(copy)[1]
    }  # damaged, unless its split says so too
    split = json.loads((path / "split.json").read_text())
    split["parts"]["test"].remove(lines[-1].split(",")[0])
    (path / "split.json").write_text(json.dumps(split))
    found = analyse(*read_study(copy))
    assert any("not tested on the same images" in p for p in found["problems"])
    full = next(p for p in found["blocks"]["injection"]["pairs"] if p["arm"] == "injected 1")
    half = next(p for p in found["blocks"]["injection"]["pairs"] if p["arm"] == "injected 0.5")
    assert full["auroc"]["images"] == half["auroc"]["images"] - 1


def test_names_of_arms() -> None:
    assert arm_of({"split.name": "injection", "split.injected": None}) == "injected 0"
    assert arm_of({"split.name": "injection", "split.injected": 0.25}) == "injected 0.25"
    assert arm_of({"split.name": "official", "split.clean": True, "split.matched": False}) == "official clean"
    assert arm_of({"split.name": "folders"}) is None


def test_the_analysis_needs_no_torch(sweep: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from histo_lightning.comparison.leakage import write_leakage_study;"
        f"write_leakage_study(Path({str(sweep)!r})); print({{m.split('.')[0] for m in sys.modules}} & {{'torch', 'pytorch_lightning'}})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
