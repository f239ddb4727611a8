"""The real command, end to end, on the synthetic tree and on real images."""

import csv
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from histo_lightning.prediction import predict_part
from histo_lightning.processes import end, wait_for
from PIL import Image
from sklearn import metrics as reference
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from histo_lightning.classifier import Classifier
from histo_lightning.classifier.checkpoint import save_atomic
from histo_lightning.config.schema import Config
from histo_lightning.data import BreakHisDataModule
from histo_lightning.data.augment import Recipe
from histo_lightning.data.breakhis.census import census
from histo_lightning.evaluation import score_predictions
from histo_lightning.training.decisions import mark_apparent

SMALL = ("experiment=smoke", "dataset.images_per_slide=2", "dataset.image_size=140", "trainer=cpu")
HISTORY = "epoch,lr,train_loss,train_accuracy,val_loss,val_accuracy,val_balanced_accuracy,val_auroc,val_case_auroc,images_per_second"


def run_folder(root: Path) -> Path:
    (folder,) = [path for path in (root / "outputs" / "runs").iterdir() if path.is_dir()]
    return folder


def read(path: Path):
    return json.loads(path.read_text())


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache_dir: Path):
    """One whole run, in a folder with a space in its name; shared by the tests that only read it."""
    root = tmp_path_factory.mktemp("a run")
    done = subprocess.run(
        [sys.executable, "-m", "histo_lightning.train", *SMALL, "epochs=3", "json=scores.json"],
        cwd=root,
        env=os.environ | {"XDG_CACHE_HOME": str(cache_dir)},
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
    assert len(list((folder / "plots").glob("*.png"))) >= 6
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert not list(folder.rglob("*.tmp"))
    status = read(folder / "status.json")
    assert (status["state"], status["error"], status["test_read"]) == ("finished", None, 1)
    assert status["versions"]["torch"] == torch.__version__.split("+")[0]
    assert read(root / "scores.json") == read(folder / "metrics.json")
    for line in (f"report:      outputs/runs/{folder.name}/report.html", "checkpoint:", "tensorboard:"):
        assert line in done.stdout


def test_history_has_the_agreed_columns_and_finite_numbers(finished) -> None:
    _, folder, _ = finished
    assert (folder / "history.csv").read_text().splitlines()[0] == HISTORY
    table = rows(folder / "history.csv")
    assert [row["epoch"] for row in table] == ["0", "1", "2"]
    assert all(math.isfinite(float(value)) for row in table for value in row.values())


def scores_again(folder: Path, part: str) -> dict:
    """The scores of a part from its table alone, at 0.5 and at the run's operating point."""
    threshold = read(folder / "metrics.json")["operating_point"]["threshold"]
    scores = score_predictions(folder / "predictions" / f"{part}.csv", threshold=threshold)
    if part == "val":
        mark_apparent(scores)
    return scores


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
    assert metrics["train"]["image"]["n"] == len(split["parts"]["train"])


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
    assert best["epoch"] == metrics["best_epoch"] == int(np.argmin(metrics["monitored"]))
    assert best["config"]["model"]["name"] == "resnet10"


def small_data(cache_dir: Path) -> BreakHisDataModule:
    """The data of SMALL, by hand."""
    data = BreakHisDataModule(
        recipe=Recipe(size=32),
        images_per_slide=2,
        image_size=140,
        cache_dir=cache_dir / "histo_lightning",
        batch_size=7,
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
            seen = data.view(batch, training=False)
            for index, row in zip(
                batch["index"].tolist(), classifier.logits(seen["image"]).tolist(), strict=True
            ):
                found[data.parts["test"].records[index].image] = row
    table = rows(folder / "predictions" / "test.csv")
    expected = np.array([[float(row["logit_benign"]), float(row["logit_malignant"])] for row in table])
    assert np.allclose([found[row["image"]] for row in table], expected, atol=1e-4)


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
    value = events.Scalars("hparams/val_image_auroc")[0].value
    assert value == pytest.approx(metrics["val"]["image"]["auroc"]["value"], rel=1e-5)
    assert "test/image_auroc" in tags
    assert "_hparams_/session_start_info" in events.summary_metadata


def test_the_same_command_again_reports_and_leaves_it(finished, cache_dir: Path) -> None:
    root, folder, _ = finished
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    done = subprocess.run(
        [sys.executable, "-m", "histo_lightning.train", *SMALL, "epochs=3"],
        cwd=root,
        env=os.environ | {"XDG_CACHE_HOME": str(cache_dir)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "finished already" in done.stdout
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def start(root: Path, cache_dir: Path, *overrides: str) -> subprocess.Popen:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "histo_lightning.train",
            *SMALL,
            "head=mlp",
            "ema.decay=0.9",
            "epochs=6",
            *overrides,
        ],
        cwd=root,
        env=os.environ | {"XDG_CACHE_HOME": str(cache_dir)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run started in the background (`make test &`) has Ctrl-C ignored, and would hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(process: subprocess.Popen) -> int:
    """Wait, close the pipes, show what went wrong."""
    _, err = process.communicate(timeout=300)
    if process.returncode > 0:
        print(err)
    return process.returncode


def wait_for_epoch(root: Path, process: subprocess.Popen, epoch: int) -> None:
    """Until an epoch has its line: bounded by the test's timeout."""
    while process.poll() is None:
        files = list(root.glob("outputs/runs/*/history.csv"))
        if files and len(rows(files[0])) > epoch:
            return
        time.sleep(0.02)
    pytest.fail(f"ended before epoch {epoch}: {process.communicate()}")


def test_an_interrupted_and_a_killed_run_go_on_to_the_same_result(tmp_path: Path, cache_dir: Path) -> None:
    """Dropout, EMA, order and augmentation included: bit for bit."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    first = start(whole, cache_dir)
    assert finish(first) == 0
    second = start(broken, cache_dir)
    wait_for_epoch(broken, second, 1)
    second.send_signal(signal.SIGINT)
    out, err = second.communicate(timeout=60)
    assert second.returncode == 75, (out, err)
    assert "the same command goes on" in err
    assert read(run_folder(broken) / "status.json")["state"] == "interrupted"
    assert not (run_folder(broken) / "metrics.json").exists()
    third = start(broken, cache_dir)
    wait_for_epoch(broken, third, 3)
    third.kill()
    finish(third)
    assert read(run_folder(broken) / "status.json")["state"] == "running"
    fourth = start(broken, cache_dir)
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


def test_two_processes_share_the_work_and_lose_nothing(command, tmp_path: Path, cache_dir: Path) -> None:
    done = command(
        "train",
        *SMALL[:3],
        "trainer=ddp",
        "trainer.devices=2",
        "trainer.accelerator=cpu",
        "trainer.precision=32-true",
    )
    assert done.returncode == 0, done.stderr
    folder = run_folder(tmp_path)
    split = read(folder / "split.json")
    for part in ("val", "test"):
        assert [row["image"] for row in rows(folder / "predictions" / f"{part}.csv")] == split["parts"][part]
    # The same checkpoint scored by one process.
    classifier = Classifier.from_checkpoint(folder / "checkpoints" / "best.ckpt")
    data = small_data(cache_dir)
    for part in ("val", "test"):
        table = rows(folder / "predictions" / f"{part}.csv")
        shared = [[float(row["logit_benign"]), float(row["logit_malignant"])] for row in table]
        assert np.allclose(predict_part(classifier, data, part), shared, atol=1e-4)
        assert scores_again(folder, part) == read(folder / "metrics.json")[part]


def _ends_at_once(code: int) -> None:
    raise SystemExit(code)


def _ignores_sigterm(ready) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready.set()
    time.sleep(600)


class _JustEnded:
    """A process that was alive at the first look and ended before the second."""

    exitcode = 0

    def __init__(self) -> None:
        reader, writer = os.pipe()
        os.close(writer)
        self.sentinel = reader
        self.looks = 0

    def is_alive(self) -> bool:
        self.looks += 1
        return self.looks == 1

    def join(self) -> None:
        os.close(self.sentinel)


def test_a_process_that_ends_between_two_looks_is_not_waited_for() -> None:
    waiting = threading.Thread(target=wait_for, args=([_JustEnded()],), daemon=True)
    waiting.start()
    waiting.join(20)
    assert not waiting.is_alive()


def test_when_one_process_fails_the_others_are_ended_even_if_deaf() -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    deaf = context.Process(target=_ignores_sigterm, args=(ready,))
    failing = context.Process(target=_ends_at_once, args=(3,))
    deaf.start()
    assert ready.wait(60)
    failing.start()
    wait_for([deaf, failing])
    assert failing.exitcode == 3
    assert deaf.is_alive()
    end([deaf, failing], grace=0.5)
    assert deaf.exitcode == -signal.SIGKILL


def test_a_checkpoint_with_all_epochs_behind_it_is_not_resumed(finished, command) -> None:
    _, folder, _ = finished
    done = command("train", *SMALL, f"resume={folder / 'checkpoints' / 'last.ckpt'}", "run_name=more")
    assert done.returncode == 2
    assert "3 epochs behind it; set epochs above that" in done.stderr


def test_the_thesis_trains_its_head_on_a_frozen_random_backbone(command, tmp_path: Path) -> None:
    done = command(
        "train",
        "experiment=thesis",
        "model=resnet18",
        "image_size=64",
        "epochs=2",
        "trainer=cpu",
        *SMALL[1:3],
    )
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("outputs/runs/*/checkpoints/last.ckpt")
    trained = torch.load(path, weights_only=True)["state_dict"]
    torch.manual_seed(0)
    fresh = Classifier("resnet18", 2, head="mlp", zero_init_residual=False).state_dict()
    changed = {
        name.split(".")[1]
        for name in trained
        if not torch.equal(trained[name], fresh[name]) and "weight" in name
    }
    assert changed == {"fc"}
    assert not torch.equal(trained["network.bn1.running_mean"], fresh["network.bn1.running_mean"])
    metrics = read(path.parents[1] / "metrics.json")
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


def test_subtypes_and_an_unread_test_part(command, tmp_path: Path) -> None:
    done = command("train", *SMALL, "task=subtype", "test=false", "epochs=1")
    assert done.returncode == 0, done.stderr
    folder = run_folder(tmp_path)
    assert "holds no image of" in done.stdout
    assert not (folder / "predictions" / "test.csv").exists()
    metrics = read(folder / "metrics.json")
    assert metrics["test"] is None
    assert read(folder / "status.json")["test_read"] == 0
    header = (folder / "predictions" / "val.csv").read_text().splitlines()[0].split(",")
    assert [c for c in header if c.startswith("logit_")] == [
        f"logit_{s}" for s in ("A", "F", "PT", "TA", "DC", "LC", "MC", "PC")
    ]
    assert "13412" not in json.dumps(read(folder / "split.json")["parts"])


def test_official_folds_carry_their_label_everywhere(command, tmp_path: Path) -> None:
    done = command("train", *SMALL, "split=official", "split.fold=1", "epochs=1")
    assert done.returncode == 0, done.stderr
    folder = run_folder(tmp_path)
    split = read(folder / "split.json")
    assert re.fullmatch(r"CASE-LEAKY \(\d+ images\)", split["label"])
    assert "shares 8 cases between train and test" in done.stdout
    for text in (done.stdout, (folder / "report.html").read_text()):
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


def test_the_thesis_s_tree_with_any_names(command, tmp_path: Path) -> None:
    tree = folders_tree(tmp_path / "my tree, 40mag")
    done = command(
        "train",
        "experiment=smoke",
        "dataset=folders",
        f"dataset.root={tree}",
        "image_size=32",
        "epochs=2",
        "batch_size=4",
    )
    assert done.returncode == 0, done.stderr
    folder = run_folder(tmp_path)
    assert "GROUPING UNKNOWN" in done.stdout
    assert "GROUPING UNKNOWN" in (folder / "report.html").read_text()
    metrics = read(folder / "metrics.json")
    assert metrics["test"]["image"]["n"] == 12
    assert metrics["test"]["image"]["auroc"]["low"] is None
    assert not (metrics["test"]["case"] or {}).get("auroc", {}).get("value")


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
    """In this process, through the same functions as the command: a fresh interpreter each would take minutes."""
    from histo_lightning.launch import compose_all
    from hydra import initialize_config_dir

    from histo_lightning.config.compose import prepare_argument
    from histo_lightning.config.tree import conf_dir
    from histo_lightning.errors import UserError
    from histo_lightning.training.run import run_training

    mend(breakhis_tree)
    given = [
        "dataset=breakhis",
        f"dataset.root={breakhis_tree}",
        "trainer.progress=none",
        f"cache_dir={tmp_path / 'c'}",
        *overrides,
    ]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        (config,) = compose_all("train", [[prepare_argument(a) for a in given]])
    with pytest.raises(UserError, match=re.escape(text)) as error:
        run_training(config, tmp_path / "outputs" / "runs", {})
    assert "\n" not in str(error.value)
    assert not (tmp_path / "outputs").exists()


def test_a_checkpoint_that_does_not_fit_is_refused(finished, command) -> None:
    _, folder, _ = finished
    done = command("train", *SMALL, "model=resnet14", f"resume={folder / 'checkpoints' / 'last.ckpt'}")
    assert done.returncode == 2
    assert "do not fit this network" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_wheel_carries_its_config(finished, tmp_path: Path, cache_dir: Path) -> None:
    """Built, unpacked elsewhere and run from a folder that is not the repository."""
    root = Path(__file__).resolve().parents[1]
    source = tmp_path / "source"
    shutil.copytree(root, source, ignore=shutil.ignore_patterns(".*", "outputs", "__pycache__"))
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
    assert "name: resnet34" in done.stdout
    where = subprocess.run(
        [sys.executable, "-c", "from histo_lightning.launch import conf_dir; print(conf_dir())"],
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
