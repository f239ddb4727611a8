"""From run folders to the study's files: real splits, made-up predictions with a known leak, and what goes wrong."""

import itertools
import json
import shutil
import subprocess
import sys
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import yaml

from histo_lightning.config import check, hashed, readable_name, to_config
from histo_lightning.data.breakhis.census import census_names
from histo_lightning.data.breakhis.records import record_of
from histo_lightning.data.splits import SplitConfig, build_split
from histo_lightning.data.splits.label_shuffling import labelled
from histo_lightning.evaluation.table_checks import make_table
from histo_lightning.evaluation.table_csv import write_predictions
from histo_lightning.launch import conf_dir
from histo_lightning.leakage_results import analyse, write_leakage_study
from histo_lightning.leakage_runs import arm_of, read_study
from histo_lightning.schema import Config

GROUP = {"slide_kfold": "slide", "official": "slide", "image_random": "image"}
SHARED = ("14-15570", "14-18842", "14-19979")  # malignant cases with several slides
RECORDS = [
    r
    for r in map(record_of, sorted(census_names()))
    if r.magnification == 100 and r.sequence <= 12 and (r.class_name == "benign" or r.case < "14-13200" or r.case in SHARED)
]  # fmt: skip
LEAK = 1.2  # what a case in train adds to a margin


def write_run(folder: Path, name: str, fold: int, seed: int, **split) -> Path:
    """A finished run as ``train`` leaves it, but for its network: the margin of an image knows whether its case was seen."""
    config = Config()
    config.split = SplitConfig(name=name, group=GROUP.get(name, "case"), fold=fold, **split)
    config.seed, config.magnification, config.model.name = seed, "100x", "resnet10"
    settings = asdict(config.split)
    plan = SplitConfig(name=settings.pop("name"), **settings)
    found = build_split(RECORDS, plan, magnification="100x")
    by_name = {r.image: r for r in labelled(RECORDS, plan)}
    tested = [by_name[image] for image in found.parts["test"]]
    rng = np.random.default_rng([seed, fold, len(found.parts["train"])])
    effect = {c: np.random.default_rng(int(c.split("-")[1])).normal() for c in {r.case for r in tested}}
    signal = 0.0 if plan.shuffle_labels else 0.8
    seen = set(found.cases["train"])
    margin = [
        signal + effect[r.case] * (not plan.shuffle_labels) + LEAK * (r.case in seen) + rng.normal()
        for r in tested
    ]
    logit = [m if r.class_name == "malignant" else -m for r, m in zip(tested, margin, strict=True)]
    path = folder / readable_name(config)
    table = make_table(
        "binary",
        image=[r.image for r in tested],
        path=[r.path for r in tested],
        class_name=[r.class_name for r in tested],
        subtype=[r.subtype for r in tested],
        slide=[r.slide for r in tested],
        case=[r.case for r in tested],
        magnification=[r.magnification for r in tested],
        part="test",
        logits=np.column_stack([np.zeros(len(logit)), logit]),
    )
    write_predictions(path / "predictions" / "test.csv", table)
    (path / "config.yaml").write_text(yaml.safe_dump(asdict(config)))
    (path / "split.json").write_text(json.dumps(found.as_dict()))
    (path / "status.json").write_text(json.dumps({"state": "finished", "error": None}))
    return path


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole study of two seeds."""
    folder = tmp_path_factory.mktemp("sweep")
    for seed, fold in itertools.product((0, 1), range(5)):
        for share in (0.0, 0.25, 0.5, 1.0):
            write_run(folder, "injection", fold, seed, injected=share)
        for kind in ("image_random", "slide_kfold", "case_kfold"):
            write_run(folder, kind, fold, seed)
        for variant in ({}, {"clean": True}, {"matched": True}):
            write_run(folder, "official", fold + 1, seed, **variant)
    for fold in range(5):
        for share in (0.0, 1.0):
            write_run(folder, "injection", fold, 0, injected=share, shuffle_labels=True)
        for kind in ("image_random", "case_kfold"):
            write_run(folder, kind, fold, 0, shuffle_labels=True)
    return folder


@pytest.fixture
def copy(sweep: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(sweep, tmp_path / "sweep"))


def test_the_study_finds_the_leak_that_was_put_in(sweep: Path) -> None:
    page = write_leakage_study(sweep)
    assert page == sweep / "leakage.html"
    assert {p.name for p in sweep.glob("leakage.*")} == {
        f"leakage.{e}" for e in ("html", "json", "md", "png", "svg")
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

    found = analyse(read_study(sweep))
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
        {"run": "never_started", "overrides": []}
    ]
    (copy / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    (copy / "jobs").mkdir()
    (copy / "jobs" / "never_started.json").write_text(
        json.dumps({"state": "failed", "error": "split: <no> such fold"})
    )
    page = write_leakage_study(copy)
    found = json.loads((copy / "leakage.json").read_text())
    told = {m["run"]: m["why"] for m in found["missing"]}
    assert told[lost.name] == "failed: the loss is not finite"
    assert "test.csv" in told[damaged.name]
    assert told["never_started"] == "failed: split: <no> such fold"
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
    found = analyse(read_study(copy))
    assert any("training parts differ in size: benign images" in p for p in found["problems"])
    assert any("2 recipes (they differ in epochs)" in p for p in found["problems"])
    told = {m["run"]: m["why"] for m in found["missing"]}
    assert told[other.name] == "another recipe (epochs)"
    assert "test=false" in told[unread.name]


def test_another_test_part_in_one_arm_is_said_and_only_common_images_count(copy: Path) -> None:
    path = next(copy.glob("*_injection-1-1_s0_*"))
    lines = (path / "predictions" / "test.csv").read_text().splitlines()
    (path / "predictions" / "test.csv").write_text("\n".join(lines[:-1]) + "\n")
    found = analyse(read_study(copy))
    assert any("not tested on the same images" in p for p in found["problems"])
    full = next(p for p in found["blocks"]["injection"]["pairs"] if p["arm"] == "injected 1")
    half = next(p for p in found["blocks"]["injection"]["pairs"] if p["arm"] == "injected 0.5")
    assert full["auroc"]["images"] == half["auroc"]["images"] - 1


def test_names_of_arms() -> None:
    assert arm_of({"name": "injection", "injected": None}).name == "injected 0"
    assert arm_of({"name": "injection", "injected": 0.25, "shuffle_labels": True}).shuffled
    assert arm_of({"name": "official", "clean": True}).name == "official clean"
    assert arm_of({"name": "folders"}) is None


def test_the_analysis_needs_no_torch(sweep: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from histo_lightning.leakage_results import write_leakage_study;"
        f"write_leakage_study(Path({str(sweep)!r})); print({{m.split('.')[0] for m in sys.modules}} & {{'torch', 'pytorch_lightning'}})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def study_file() -> dict:
    return yaml.safe_load((conf_dir() / "experiment" / "leakage_study.yaml").read_text())


def test_every_job_of_the_shipped_study_is_a_valid_config_with_a_name_of_its_own() -> None:
    from hydra import compose, initialize_config_dir

    study = study_file()
    names, hashes, arms = [], set(), set()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        bases = {
            kind: to_config(compose("train", overrides=[f"split={kind}"]))
            for kind in ("injection", "image_random", "slide_kfold", "case_kfold", "official")
        }
    for product in study["hydra"]["sweeper"]["products"]:
        for values in itertools.product(*(str(v).split(",") for v in product.values())):
            job = dict(zip(product, values, strict=True))
            config = deepcopy(bases[job.pop("split")])
            for key in ("epochs", "scored_weights", "image_size", "batch_size"):
                setattr(config, key, study[key])
            for key, value in job.items():
                home = config.split if key.startswith("split.") else config
                assert hasattr(home, key.split(".")[-1])
                setattr(home, key.split(".")[-1], yaml.safe_load(value))
            check(config)
            names.append(readable_name(config))
            hashes.add(hashed(config))
            arms.add(arm_of(asdict(config.split)))
    assert len(names) == len(set(names)) == len(hashes) == 170
    assert {a.name for a in arms if not a.shuffled} == {
        "injected 0", "injected 0.25", "injected 0.5", "injected 1", "image_random", "slide_kfold", "case_kfold",
        "official", "official clean", "official matched",
    }  # fmt: skip
    assert {a.name for a in arms if a.shuffled} == {"injected 0", "injected 1", "image_random", "case_kfold"}


def test_nothing_is_chosen_on_validation_in_the_study() -> None:
    study = study_file()
    assert study["scored_weights"] == "last"
    assert study["early_stopping"]["patience"] is None
    assert study["ema"]["decay"] is not None
    assert study["hydra"]["mode"] == "MULTIRUN"


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["split.injected=1"], "it belongs to injection"),
        (["split=injection", "split.injected=0.1"], "allowed are 0"),
        (["split=injection", "split.injected=2"], "a number from 0 to 1"),
        (["split=injection", "magnification=all"], "at one magnification"),
        (["split=injection", "split.group=slide"], "groups by case"),
        (["split.matched=true"], "only split=official"),
        (["split=official", "split.matched=true", "split.clean=true"], "give one of them"),
        (["split=official", "split.shuffle_labels=true"], "only split=case_kfold, image_random"),
        (["split.shuffle_labels=true", "task=subtype"], "use task=binary"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(overrides: list[str], text: str) -> None:
    from hydra import compose, initialize_config_dir

    from histo_lightning.errors import UserError
    from histo_lightning.launch import prepare_argument

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = compose("train", overrides=[prepare_argument(o) for o in overrides])
    with pytest.raises(UserError, match=text):
        to_config(composed)
