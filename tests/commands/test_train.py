"""``train`` from outside: what a run leaves, how it goes on, and what it refuses."""

import json
import math
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics as reference
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from factories.configs import composed
from factories.runs import (
    PICTURES,
    SMALL,
    environment,
    finish,
    logits_of,
    main_here,
    read,
    rows,
    run_folder,
    scores_again,
    start,
    train_here,
    wait_for_epoch,
)
from histo_lightning.classifier import Classifier
from histo_lightning.classifier.checkpoint import save_atomic
from histo_lightning.config.schema import Config
from histo_lightning.data import BreakHisDataModule
from histo_lightning.data.breakhis.names import census
from histo_lightning.errors import UserError
from histo_lightning.runs.manifest import damaged
from histo_lightning.training.run import run_training

ROOT = Path(__file__).resolve().parents[2]
HISTORY = "epoch,lr,train_loss,train_accuracy,val_loss,val_accuracy,val_balanced_accuracy,val_auroc,val_case_auroc,images_per_second"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache_dir: Path):
    """One whole run, in a folder with a space in its name; shared by the tests that only read it."""
    root = tmp_path_factory.mktemp("a run")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "histo_lightning",
            "train",
            *SMALL,
            "epochs=3",
            "json=scores.json",
            "report.formats=[svg]",
        ],
        cwd=root,
        env=environment(cache_dir),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return root, run_folder(root), done


def test_the_run_folder_is_whole(finished) -> None:
    root, folder, done = finished
    assert re.fullmatch(r"[A-Za-z0-9._-]+_[0-9a-f]{8}", folder.name)
    for name in [
        "config.yaml",
        "split.json",
        "status.json",
        "history.csv",
        "metrics.json",
        "train.log",
        ".hydra/config.yaml",
        ".hydra/overrides.yaml",
        ".hydra/hydra.yaml",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "predictions/val.csv",
        "predictions/test.csv",
        "report.html",
    ]:
        assert (folder / name).stat().st_size > 0, name
    pictures = {kind: {path.stem for path in (folder / "plots").glob(f"*.{kind}")} for kind in ("png", "svg")}
    assert len(pictures["png"]) >= 6  # the page needs them, also where only others were asked for
    assert pictures["svg"] == pictures["png"]
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert not list(folder.rglob("*.tmp"))
    status = read(folder / "status.json")
    assert (status["state"], status["error"], status["test_read"]) == ("finished", None, 1)
    assert status["versions"]["torch"] == torch.__version__.split("+")[0]
    assert read(root / "scores.json") == read(folder / "metrics.json")
    assert read(folder / "metrics.json")["data"] == "synthetic"
    assert read(folder / "metrics.json")["shortened"] == ""
    assert re.search(r"^epoch 3/3  train_loss \d\.\d{3}  val_loss", done.stdout, re.MULTILINE)
    for line in (f"report:      outputs/runs/{folder.name}/report.html", "checkpoint:", "tensorboard:"):
        assert line in done.stdout


def test_the_log_holds_the_epochs_and_what_was_chosen(finished) -> None:
    _, folder, _ = finished
    text = (folder / "train.log").read_text()
    for epoch in (1, 2, 3):
        assert f"epoch {epoch}/3  train_loss" in text
    metrics = read(folder / "metrics.json")
    assert f"scored: best.ckpt, epoch {metrics['best_epoch'] + 1}" in text
    assert f"'threshold': {metrics['operating_point']['threshold']}" in text
    assert "temperature" in text
    assert "WARNING" not in text


def test_history_has_the_agreed_columns_and_finite_numbers(finished) -> None:
    _, folder, _ = finished
    assert (folder / "history.csv").read_text().splitlines()[0] == HISTORY
    table = rows(folder / "history.csv")
    assert [row["epoch"] for row in table] == ["0", "1", "2"]
    assert all(math.isfinite(float(value)) for row in table for value in row.values())


def test_predictions_cover_the_split_and_give_the_scores_again(finished) -> None:
    _, folder, _ = finished
    split, metrics = read(folder / "split.json"), read(folder / "metrics.json")
    for part in ("val", "test"):
        table = rows(folder / "predictions" / f"{part}.csv")
        assert [row["image"] for row in table] == split["parts"][part]
        assert {row["case"] for row in table} == set(split["cases"][part])
        label = np.array([int(row["label"]) for row in table])
        p = np.array([float(row["p_malignant"]) for row in table])
        logits = np.array([[float(row["logit_benign"]), float(row["logit_malignant"])] for row in table])
        assert np.allclose(p, 1 / (1 + np.exp(logits[:, 0] - logits[:, 1])))
        assert [row["class"] for row in table] == [("benign", "malignant")[i] for i in label]
        image = metrics[part]["image"]
        assert image["n"] == len(table)
        assert image["auroc"]["value"] == pytest.approx(reference.roc_auc_score(label, p))
        assert image["accuracy"]["value"] == pytest.approx(np.mean((p > 0.5) == label))
        assert image["micro_f1"]["value"] == pytest.approx(
            reference.f1_score(label, p > 0.5, average="micro")
        )
        assert image["log_loss"]["value"] == pytest.approx(reference.log_loss(label, p))
        assert scores_again(folder, part) == metrics[part]
    assert metrics["schema"] == 1
    assert metrics["epochs"] == 3


def test_train_scores_are_those_of_the_scored_epoch_s_batches_or_of_a_pass(
    finished, tmp_path: Path, cache_dir: Path
) -> None:
    _, folder, _ = finished
    metrics, split = read(folder / "metrics.json"), read(folder / "split.json")
    last = rows(folder / "history.csv")[-1]
    train, batch = metrics["train"], 16
    assert metrics["train_scores"] == "epoch"
    assert train["image"]["n"] == len(split["parts"]["train"]) // batch * batch
    assert train["image"]["accuracy"]["value"] == pytest.approx(float(last["train_accuracy"]), abs=1e-6)
    assert train["image"]["log_loss"]["value"] == pytest.approx(float(last["train_loss"]), rel=1e-4)
    assert 0 < train["case"]["n"] <= len(split["cases"]["train"])
    again = train_here(tmp_path, cache_dir, "train_scores=pass", "epochs=1")
    assert read(again / "metrics.json")["train"]["image"]["n"] == len(split["parts"]["train"])
    assert "scored epoch, augmented" not in (again / "report.html").read_text()
    assert "scored epoch, augmented" in (folder / "report.html").read_text()


def test_no_case_stands_on_two_sides(finished) -> None:
    _, folder, _ = finished
    cases = {part: set(names) for part, names in read(folder / "split.json")["cases"].items()}
    assert not cases["train"] & cases["val"]
    assert not cases["train"] & cases["test"]
    assert not cases["val"] & cases["test"]
    assert sum(map(len, cases.values())) == 70


def test_the_checkpoint_loads_safely_and_says_what_it_is(finished) -> None:
    _, folder, _ = finished
    split, metrics = read(folder / "split.json"), read(folder / "metrics.json")
    for name in ("best", "last"):
        checkpoint = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        about = checkpoint["histo_lightning"]
        assert set(about) >= {
            "format",
            "version",
            "config",
            "class_to_idx",
            "input_size",
            "output_size",
            "batch_size",
            "transforms",
            "normalisation",
            "split_hash",
            "train_cases",
            "val_cases",
            "seen_cases",
            "epoch",
            "threshold",
        }
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["histo_lightning"]
    assert best["class_to_idx"] == {"benign": 0, "malignant": 1}
    assert best["split_hash"] == split["hash"]
    assert set(best["seen_cases"]) == set(split["cases"]["train"]) | set(split["cases"]["val"])
    assert not set(best["seen_cases"]) & set(split["cases"]["test"])
    assert (best["output_size"], best["batch_size"]) == (2, 16)
    assert best["epoch"] == metrics["best_epoch"] == len(metrics["monitored"]) - 1
    assert best["config"]["model"]["name"] == "resnet10"


def test_the_monitored_epoch_is_scored_where_asked_and_a_finished_run_keeps_its_weights(
    tmp_path: Path, cache_dir: Path
) -> None:
    choice = ("scored_weights=best", "monitor=val_accuracy", "epochs=4", "optimizer.lr=0.01", "keep=weights")
    folder = train_here(tmp_path, cache_dir, *choice, pictures=False)
    metrics = read(folder / "metrics.json")
    assert metrics["best_epoch"] == int(np.argmax(metrics["monitored"]))
    (path,) = (folder / "checkpoints").iterdir()
    kept = torch.load(path, weights_only=True)
    assert not {"optimizer_states", "lr_schedulers", "callbacks", "loops"} & set(kept)
    assert kept["histo_lightning"]["epoch"] == metrics["best_epoch"]
    weights = sum(value.numel() * value.element_size() for value in kept["state_dict"].values())
    assert path.stat().st_size < 1.05 * weights + 100_000
    assert Classifier.from_checkpoint(path).metadata["threshold"] == kept["histo_lightning"]["threshold"]


def small_data(cache_dir: Path) -> BreakHisDataModule:
    """The data of SMALL, by hand."""
    data = BreakHisDataModule(
        image_size=32,
        images_per_slide=2,
        synthetic_size=140,
        batch_size=7,
        cache_dir=cache_dir / "histo_lightning",
    )
    data.setup()
    return data


def test_from_checkpoint_gives_the_predicted_logits_again(finished, cache_dir: Path) -> None:
    _, folder, _ = finished
    classifier = Classifier.from_checkpoint(folder / "checkpoints" / "best.ckpt")
    about = classifier.metadata
    assert set(about["config"]) == set(vars(Config()))
    data = small_data(cache_dir)
    assert data.mean.tolist() == about["normalisation"]["mean"]
    found = {}
    with torch.inference_mode():
        for batch in data.test_dataloader():
            logits = classifier.logits(batch["image"]).tolist()
            for index, row in zip(batch["index"].tolist(), logits, strict=True):
                found[data.parts["test"].records[index].image] = row
    expected = logits_of(folder / "predictions" / "test.csv")
    assert found.keys() == expected.keys()
    again, stored = np.array([found[image] for image in expected]), np.array(list(expected.values()))
    assert np.allclose(again, stored, atol=0.05)
    near = np.abs(stored[:, 1] - stored[:, 0]) < 0.2  # predicted in float32
    assert np.allclose(again[near], stored[near], atol=1e-4)


def test_tensorboard_has_a_point_an_epoch_and_hparams(finished) -> None:
    _, folder, _ = finished
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    tags = set(events.Tags()["scalars"])
    for tag in (
        "train/loss",
        "train/accuracy",
        "val/loss",
        "val/accuracy",
        "val/auroc",
        "val/case_auroc",
        "lr",
        "images_per_second",
    ):
        assert len(events.Scalars(tag)) == 3, tag
    table, losses = rows(folder / "history.csv"), events.Scalars("val/loss")
    assert [event.value for event in losses] == pytest.approx(
        [float(row["val_loss"]) for row in table], rel=1e-5
    )
    metrics = read(folder / "metrics.json")
    value = events.Scalars("scored/val_image_auroc")[0].value
    assert value == pytest.approx(metrics["val"]["image"]["auroc"]["value"], rel=1e-5)
    assert "test/image_auroc" in tags
    assert "_hparams_/session_start_info" in events.summary_metadata


def test_the_same_command_again_reports_and_leaves_it(finished, cache_dir: Path) -> None:
    root, folder, _ = finished
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    again = start(root, cache_dir, *SMALL, "epochs=3")
    assert finish(again) == 0
    assert "finished already" in again.stdout
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_a_damaged_status_is_one_line_and_nothing_is_touched(
    finished, tmp_path: Path, cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, _, _ = finished
    shutil.copytree(root / "outputs", tmp_path / "outputs")
    copy = run_folder(tmp_path)
    (copy / "status.json").write_text('{"state": "fini')
    before = {p: p.stat().st_mtime_ns for p in copy.rglob("*") if p.is_file()}
    given = [f"output_dir={tmp_path / 'outputs'}", f"cache_dir={cache_dir / 'histo_lightning'}", "epochs=3"]
    assert main_here("train", *SMALL, *given) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "status.json: is damaged" in err
    assert before == {p: p.stat().st_mtime_ns for p in copy.rglob("*") if p.is_file()}


def test_the_console_script_is_the_same_command(tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "histo-lightning"
    line = [script, "train", *SMALL, "seed=7", "--cfg", "job"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "\nseed: 7\n" in done.stdout


# --- a run that is ended goes on ---

LONG = (*SMALL, "head=mlp", "callbacks=[default,ema]", "callbacks.ema.decay=0.9", "epochs=6")


@pytest.mark.long  # test_kills.py has it in one process for every run of the tests
def test_an_interrupted_and_a_killed_run_go_on_to_the_same_result(tmp_path: Path, cache_dir: Path) -> None:
    """Dropout, EMA, order and augmentation included: bit for bit."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    first = start(whole, cache_dir, *LONG)
    assert finish(first) == 0
    second = start(broken, cache_dir, *LONG, program="histo_lightning train")
    wait_for_epoch(broken, second, 1)
    second.send_signal(signal.SIGINT)
    out, err = second.communicate(timeout=60)
    assert second.returncode == 75, (out, err)
    assert "the same command goes on" in err
    assert read(run_folder(broken) / "status.json")["state"] == "interrupted"
    assert not (run_folder(broken) / "metrics.json").exists()
    third = start(broken, cache_dir, *LONG)
    wait_for_epoch(broken, third, 3)
    third.kill()
    finish(third)
    shutil.move(broken, tmp_path / "moved")  # a folder that was moved goes on like one that was not
    broken = tmp_path / "moved"
    assert read(run_folder(broken) / "status.json")["state"] == "running"
    fourth = start(broken, cache_dir, *LONG)
    assert finish(fourth) == 0
    a, b = run_folder(whole), run_folder(broken)
    for name in ("predictions/test.csv", "predictions/val.csv", "split.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    for row_a, row_b in zip(rows(a / "history.csv"), rows(b / "history.csv"), strict=True):
        assert {k: v for k, v in row_a.items() if k != "images_per_second"} == {
            k: v for k, v in row_b.items() if k != "images_per_second"
        }
    one, two = (torch.load(f / "checkpoints/last.ckpt", weights_only=True) for f in (a, b))
    assert all(torch.equal(one["state_dict"][k], two["state_dict"][k]) for k in one["state_dict"])
    assert "current_model_state" in one  # EMA weights are the ones that are scored


class _Signalling:
    """Pickles as an empty dict, and sends this process a signal on the way."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def __reduce__(self):
        signal.raise_signal(self.number)
        return OrderedDict, ()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_checkpoint_is_written_waits_for_the_whole_file(
    tmp_path: Path, number: signal.Signals
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            save_atomic({"a": torch.ones(1000), "b": _Signalling(number)}, tmp_path / "last.ckpt")
        assert signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, before)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["a"].sum() == 1000


FROZEN = (
    "model.freeze_backbone=true",
    "model.frozen_norm=eval",  # batch statistics would be those of a process's share
    "trainer.precision=32-true",
    "scored_weights=last",
    "epochs=2",
)


def test_two_processes_killed_between_fit_and_scores_go_on_to_one_process_s_scores(
    tmp_path: Path, cache_dir: Path
) -> None:
    one = train_here(tmp_path / "one", cache_dir, *FROZEN, pictures=False)
    line = (
        *SMALL[:3],
        *FROZEN,
        "trainer=ddp",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "trainer.threads=1",
    )
    first = start(tmp_path, cache_dir, *line)
    while first.poll() is None:
        time.sleep(0.01)
        found = list(tmp_path.glob("outputs/runs/*/status.json"))
        if found and read(found[0]).get("fitted"):
            first.kill()
    finish(first)
    assert first.returncode == -signal.SIGKILL
    folder = run_folder(tmp_path)
    assert not (folder / "metrics.json").exists()
    before = (folder / "checkpoints" / "best.ckpt").stat().st_mtime_ns
    history = (folder / "history.csv").read_text()
    assert finish(start(tmp_path, cache_dir, *line)) == 0
    assert (folder / "history.csv").read_text() == history
    assert (folder / "checkpoints" / "best.ckpt").stat().st_mtime_ns > before  # the chosen threshold went in
    assert read(folder / "status.json")["test_read"] == 1  # the same weights tell nothing new
    split = read(folder / "split.json")
    for part in ("val", "test"):
        table = folder / "predictions" / f"{part}.csv"
        assert [row["image"] for row in rows(table)] == split["parts"][part]
        assert scores_again(folder, part) == read(folder / "metrics.json")[part]
        for image, logits in logits_of(one / "predictions" / f"{part}.csv").items():
            assert logits_of(table)[image] == pytest.approx(logits, abs=1e-3)
    state = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert state["network.bn1.num_batches_tracked"] == 0  # its batch norms have been in evaluation mode
    ours, theirs = (read(path / "metrics.json")["test"] for path in (folder, one))
    for level in ("image", "slide", "case"):
        for score in ("accuracy", "auroc", "log_loss", "brier"):
            assert ours[level][score]["value"] == pytest.approx(theirs[level][score]["value"], abs=1e-3)


def test_a_run_ended_between_fit_and_scores_is_not_trained_again(
    tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from histo_lightning.training import run

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run, "write_results", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_here(tmp_path, cache_dir)
    folder = run_folder(tmp_path)
    assert read(folder / "status.json")["state"] == "interrupted"
    history = (folder / "history.csv").read_text()
    (folder / "history.csv").write_text(history.replace("0,", "1,", 1))  # no manifest lists it yet
    with monkeypatch.context() as patched:
        patched.setattr("pytorch_lightning.Trainer.fit", interrupt)
        assert train_here(tmp_path, cache_dir) == folder
    assert (folder / "history.csv").read_text() == history
    assert read(folder / "status.json")["state"] == "finished"
    assert read(folder / "metrics.json")["epochs"] == 2


def test_resume_takes_a_checkpoint_that_fits_and_has_epochs_left(
    finished, tmp_path: Path, cache_dir: Path
) -> None:
    _, folder, _ = finished
    last = f"resume={folder / 'checkpoints' / 'last.ckpt'}"
    with pytest.raises(UserError, match=r"has 3 epochs behind it; set epochs above that \(epochs=3\)"):
        train_here(tmp_path / "a", cache_dir, last, "epochs=3", "run_name=more")
    with pytest.raises(UserError, match="do not fit this network"):
        train_here(tmp_path / "b", cache_dir, last, "model=resnet14")
    with pytest.raises(UserError, match="no such checkpoint"):
        train_here(tmp_path / "c", cache_dir, "resume=nowhere.ckpt")
    assert read(run_folder(tmp_path / "b") / "status.json")["state"] == "failed"
    more = train_here(tmp_path / "d", cache_dir, last, "epochs=4", pictures=False)
    assert [row["epoch"] for row in rows(more / "history.csv")] == ["0", "1", "2", "3"]
    assert rows(more / "history.csv")[:3] == rows(folder / "history.csv")


# --- kinds of runs ---


def test_the_thesis_trains_its_head_on_a_frozen_random_backbone(tmp_path: Path, cache_dir: Path) -> None:
    folder = train_here(
        tmp_path,
        cache_dir,
        "experiment=thesis",
        "model=resnet18",
        "image_size=64",
        "epochs=2",
        "trainer=cpu",
        pictures=False,
    )
    trained = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    torch.manual_seed(0)
    network = {"_target_": "histo_lightning.models.resnet.resnet18", "zero_init_residual": False}
    fresh = Classifier(network, 2, head="mlp").state_dict()
    changed = {
        name.split(".")[1]
        for name in trained
        if not torch.equal(trained[name], fresh[name]) and "weight" in name
    }
    assert changed == {"fc"}
    assert not torch.equal(trained["network.bn1.running_mean"], fresh["network.bn1.running_mean"])
    metrics = read(folder / "metrics.json")
    assert metrics["monitor"] == "val_accuracy"
    assert metrics["test"]["image"]["micro_f1"]["value"] == metrics["test"]["image"]["accuracy"]["value"]


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_random_image_split_scores_visibly_higher_than_a_split_by_case(command, tmp_path: Path) -> None:
    """At ``make train``'s settings, three seeds, at least 0.05 of image AUROC.

    Part of it is the epoch chosen on three benign validation cases; README.md has both figures.
    """
    done = command("train", "-m", "split=case_kfold,image_random", "seed=0,1,2", timeout=3000)
    assert done.returncode == 0, done.stderr
    scores: dict[str, list[float]] = {"case_kfold": [], "image_random": []}
    for path in (tmp_path / "outputs" / "sweeps").glob("*/*/metrics.json"):
        scores[read(path.parent / "split.json")["kind"]].append(read(path)["test"]["image"]["auroc"]["value"])
    assert [len(values) for values in scores.values()] == [3, 3]
    assert np.mean(scores["image_random"]) - np.mean(scores["case_kfold"]) >= 0.05


def test_subtypes_and_an_unread_test_part(
    tmp_path: Path, cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train_here(tmp_path, cache_dir, "task=subtype", "test=false", "epochs=1")
    assert "holds no image of" in capsys.readouterr().out
    assert "holds no image of" in (folder / "train.log").read_text()
    assert not (folder / "predictions" / "test.csv").exists()
    metrics = read(folder / "metrics.json")
    assert metrics["test"] is None
    assert read(folder / "status.json")["test_read"] == 0
    header = (folder / "predictions" / "val.csv").read_text().splitlines()[0].split(",")
    assert [c for c in header if c.startswith("logit_")] == [
        f"logit_{s}" for s in ("A", "F", "PT", "TA", "DC", "LC", "MC", "PC")
    ]
    assert "13412" not in json.dumps(read(folder / "split.json")["parts"])


def test_official_folds_carry_their_label_everywhere(
    tmp_path: Path, cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train_here(tmp_path, cache_dir, "split=official", "split.fold=1", "epochs=1")
    shown = capsys.readouterr().out
    split = read(folder / "split.json")
    assert re.fullmatch(r"CASE-LEAKY \(\d+ images\)", split["label"])
    assert "shares 8 cases between train and test" in shown
    for text in (shown, (folder / "report.html").read_text()):
        assert split["label"] in text
    tested = {s.slide for s in census().values() if s.official[1] == "test"}
    assert {row["slide"] for row in rows(folder / "predictions" / "test.csv")} == tested


def folders_tree(root: Path, count: int = 6) -> Path:
    generator = np.random.default_rng(0)
    for part in ("train", "val", "test"):
        for label, class_name in enumerate(("benign", "malignant")):
            folder = root / part / class_name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 128, (40, 60, 3), dtype=np.uint8) + np.uint8(120 * label)
                Image.fromarray(pixels).save(folder / f"{part} {class_name} {i}.png")
    return root


def test_the_thesis_s_tree_with_any_names(
    tmp_path: Path, cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = folders_tree(tmp_path / "my tree, 40mag")
    line = ("experiment=smoke", "dataset=folders", f"dataset.root={tree}", "trainer=cpu", "image_size=32")
    folder = train_here(tmp_path, cache_dir, *line, "epochs=2", "batch_size=4", base=())
    assert "GROUPING UNKNOWN" in capsys.readouterr().out
    assert "GROUPING UNKNOWN" in (folder / "report.html").read_text()
    metrics = read(folder / "metrics.json")
    assert metrics["data"] == "folders"
    assert metrics["test"]["image"]["n"] == 12
    assert metrics["test"]["image"]["auroc"]["low"] is None
    assert not (metrics["test"]["case"] or {}).get("auroc", {}).get("value")


@pytest.mark.parametrize(
    ("overrides", "label"),
    [
        (("debug=fast_dev_run",), "SHORTENED (debug=fast_dev_run)"),
        (("debug=limit",), "SHORTENED (debug=limit)"),
        (("debug=profile",), "SHORTENED (debug=profile)"),
        (
            ("trainer.limit_val_batches=0", "~callbacks.early_stopping"),
            "SHORTENED (limit_val_batches=0)",
        ),
        (("trainer.limit_train_batches=2", "callbacks=none"), "SHORTENED (limit_train_batches=2)"),
    ],
)
def test_a_shortened_run_carries_its_label(
    tmp_path: Path,
    cache_dir: Path,
    capsys: pytest.CaptureFixture[str],
    overrides: tuple[str, ...],
    label: str,
) -> None:
    folder = train_here(tmp_path, cache_dir, *overrides, pictures="debug=limit" in overrides)
    shown = capsys.readouterr().out
    assert label in shown
    assert "never pooled or compared" in shown
    metrics = read(folder / "metrics.json")
    assert metrics["shortened"] == label
    assert read(folder / "status.json")["state"] == "finished"
    assert "baselines" not in metrics
    if "debug=profile" in overrides:
        assert "run_training_epoch" in (folder / "train.log").read_text()


def test_without_progress_only_the_report_s_path_is_printed(
    tmp_path: Path, cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train_here(tmp_path, cache_dir, "trainer.progress=none", "epochs=1", "~callbacks.early_stopping")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == (f"report: {folder / 'report.html'}\n", "")
    assert "epoch 1/1  train_loss" in (folder / "train.log").read_text()


def test_without_formats_there_are_no_pictures_and_the_page_has_its_tables(
    tmp_path: Path, cache_dir: Path
) -> None:
    line = ("trainer.progress=none", "epochs=1", "report.formats=[]")
    folder = train_here(tmp_path, cache_dir, *line)
    assert not (folder / "plots").exists()
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<img" not in page
    assert "ROC and cases" not in page  # no heading of nothing
    assert "More pictures" not in page
    assert page.count("<table") >= 3
    assert damaged(folder) == {}
    drawn = train_here(tmp_path / "drawn", cache_dir, *line, PICTURES)
    assert (drawn / "plots" / "roc_test.png").is_file()
    assert read(drawn / "metrics.json")["test"] == read(folder / "metrics.json")["test"]
    assert drawn.name == folder.name  # what is shown is not what is computed


def test_loggers_of_three_kinds_write_in_one_run(command, tmp_path: Path) -> None:
    done = command(
        "train", *SMALL, "logger=[csv,mlflow,wandb]", "logger.wandb.offline=true", "epochs=2", WANDB_SILENT="true",
        MLFLOW_DISABLE_TELEMETRY="true",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = run_folder(tmp_path)
    logged = rows(folder / "csv" / "metrics.csv")
    history = rows(folder / "history.csv")
    losses = [float(row["val/loss"]) for row in logged if row["val/loss"]]
    assert losses == pytest.approx([float(row["val_loss"]) for row in history], rel=1e-5)
    with sqlite3.connect(folder / "mlflow.db") as database:
        stored = database.execute("select value from metrics where key = 'val/loss' order by step").fetchall()
    assert [value for (value,) in stored] == pytest.approx(losses, rel=1e-5)
    (written,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    assert b"val/loss" in written.read_bytes()
    assert not (folder / "tensorboard").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs"]


# --- what is refused ---


@pytest.fixture
def breakhis_tree(tmp_path: Path) -> Path:
    """Noise under 82 real slide names at one magnification, 700x460: fast to write, slow to learn."""
    root = tmp_path / "BreaKHis_v1"
    root.mkdir()
    pixels = np.zeros((460, 700, 3), dtype=np.uint8)
    for slide in census().values():
        name = slide.names()[0]
        pixels[:] = zlib.crc32(name.slide.encode()) % 251
        Image.fromarray(pixels).save(root / name.file_name, compress_level=1)
    return root


@pytest.mark.parametrize(
    ("mend", "overrides", "text"),
    [
        (lambda root: None, ["dataset.root="], "dataset.root is not set"),
        (lambda root: None, ["dataset.root=/no/such/folder"], "no such folder"),
        (lambda root: None, ["magnification=200x"], "it holds 40x"),
        (lambda root: None, ["split.fold=9"], "split.fold=9: out of range, allowed are 0 to 4"),
        (
            lambda root: next(root.glob("*.png")).write_bytes(b"\x89PNG broken"),
            [],
            "cannot be read as an image",
        ),
        (lambda root: Image.new("L", (700, 460)).save(next(root.glob("*.png"))), [], "its mode is L"),
        (lambda root: Image.new("RGB", (70, 46)).save(next(root.glob("*.png"))), [], "70x46 pixels"),
    ],
    ids=["unset", "missing", "magnification", "fold", "broken", "mode", "size"],
)
def test_bad_data_ends_in_one_line_and_leaves_nothing(
    breakhis_tree: Path, tmp_path: Path, mend, overrides, text: str
) -> None:
    mend(breakhis_tree)
    given = ["dataset=breakhis", f"dataset.root={breakhis_tree}", "trainer.progress=none", *overrides]
    config = composed(*given, f"cache_dir={tmp_path / 'c'}")
    with pytest.raises(UserError, match=re.escape(text)) as error:
        run_training(config, tmp_path / "outputs" / "runs")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "outputs").exists()


def test_a_monitor_that_validation_cannot_define_is_refused(tmp_path: Path, cache_dir: Path) -> None:
    tree = folders_tree(tmp_path / "tree")
    shutil.rmtree(tree / "val" / "malignant")
    (tree / "val" / "malignant").mkdir()
    config = composed(
        "dataset=folders",
        f"dataset.root={tree}",
        "image_size=32",
        "monitor=val_auroc",
        f"cache_dir={tmp_path / 'c'}",
    )
    with pytest.raises(UserError, match=r"malignant|validation holds one class only"):
        run_training(config, tmp_path / "outputs" / "runs")


def test_a_gpu_that_is_not_there_is_said_before_any_work(command, tmp_path: Path) -> None:
    done = command("train", "trainer=gpu", CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, done.stdout) == (2, "")
    assert "this machine shows 0 GPU" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "outputs").exists()


def test_the_wheel_carries_its_config(finished, tmp_path: Path, cache_dir: Path) -> None:
    """Built, unpacked elsewhere and run from a folder that is not the repository."""
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "outputs", "__pycache__"))
    built = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path / "dist"),
        str(source),
    ]
    subprocess.run(built, check=True, capture_output=True, timeout=120)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    assert (tmp_path / "site" / "histo_lightning" / "conf" / "model" / "resnet34.yaml").is_file()
    (tmp_path / "work").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "histo_lightning.train", "model=resnet34", "--cfg", "job"],
        cwd=tmp_path / "work",
        env=os.environ | {"XDG_CACHE_HOME": str(cache_dir), "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "_target_: histo_lightning.models.resnet.resnet34" in done.stdout
    where = subprocess.run(
        [sys.executable, "-c", "from histo_lightning.config.tree import conf_dir; print(conf_dir())"],
        cwd=tmp_path / "work",
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert Path(where.stdout.strip()) == tmp_path / "site" / "histo_lightning" / "conf"


def test_real_images_of_a_partial_copy(command, tmp_path: Path, real_root: Path) -> None:
    done = command(
        "train", "dataset=breakhis", f"dataset.root={real_root}", "magnification=100x", "model=resnet10", "epochs=1", "image_size=64",
        timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "census: partial copy, 258 of the 7,909" in done.stdout
    split = read(run_folder(tmp_path) / "split.json")
    assert sum(len(names) for names in split["parts"].values()) == 250
    assert "LC-14-13412" not in (run_folder(tmp_path) / "predictions" / "test.csv").read_text()
