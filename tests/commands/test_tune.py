"""The real ``tune`` command on the drawn set: what it leaves, the test set, kills, two shells, failures."""

import csv
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factories.forkserver import Command, server
from factories.runs import SMALL, environment, read, start
from histo_lightning.tuning.results import OPTIMISTIC


def tune(cwd: Path, cache_dir: Path, *overrides: str, small: tuple[str, ...] = SMALL) -> Command:
    line = ["-m", "histo_lightning.tune", *small, *overrides]
    return server().run(line, cwd, environment(cache_dir), timeout=550)


def study_folder(cwd: Path) -> Path:
    (folder,) = (cwd / "outputs" / "studies").iterdir()
    return folder


def trials(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def essence(folder: Path) -> list[dict[str, str]]:
    """The table without what a clock or a kill may change."""
    return [
        {name: value for name, value in row.items() if name not in ("seconds", "attempts")}
        for row in trials(folder)
    ]


def times_read(folder: Path, part: str) -> list[int]:
    return [read(path)["test_read"] for path in sorted((folder / part).glob("*/status.json"))]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path):
    root = tmp_path_factory.mktemp("a study")
    done = tune(root, cache_dir, "tune.trials=2", "epochs=1", "json=study.json")
    assert done.returncode == 0, done.stderr
    return root, study_folder(root), done


def test_the_study_folder_is_whole(finished) -> None:
    root, folder, done = finished
    assert folder.name.startswith("optimizer_resnet10_adamw_40x_case_kfold-0_s0_")
    for name in ("study.db", "study.json", "trials.csv", "curves.csv", "report.html", "config.yaml"):
        assert (folder / name).stat().st_size > 0, name
    names = {path.stem for path in (folder / "plots").glob("*.png")}
    assert names == {"history", "values_resnet10", "curves_resnet10"}
    assert read(root / "study.json") == read(folder / "study.json")
    study = read(folder / "study.json")
    assert (study["state"], study["counts"]["complete"], study["counts"]["failed"]) == ("finished", 2, 0)
    assert study["search"]["epochs"] == 1
    assert f"report.html: outputs/studies/{folder.name}/report.html" in done.stdout
    assert not list(folder.rglob("*.tmp"))


def test_a_trial_s_value_is_its_run_s_and_reads_validation_only(finished) -> None:
    _, folder, _ = finished
    for row in trials(folder):
        run = folder / "trials" / row["runs"]
        metrics = read(run / "metrics.json")
        assert float(row["value"]) == min(metrics["monitored"])
        assert metrics["test"] is None
        assert not (run / "predictions" / "test.csv").exists()
        lines = (run / "config.yaml").read_text()
        assert row["optimizer.lr"] in lines
        assert "test: false" in lines
    assert times_read(folder, "trials") == [0, 0]


def test_the_best_setting_is_scored_once(finished) -> None:
    _, folder, done = finished
    study = read(folder / "study.json")
    (run,) = study["final"]["runs"]
    final = folder / "final" / run["run"]
    best = min(trials(folder), key=lambda row: float(row["value"]))
    assert study["best"]["trial"] == study["final"]["trial"] == int(best["trial"])
    assert times_read(folder, "final") == [1]
    assert study["protocol"]["test_read"] == 1
    assert run["same_training"] is True  # the same network again, bit for bit
    assert run["test"] == read(final / "metrics.json")["test"]
    assert best["optimizer.lr"] in (final / "config.yaml").read_text()
    assert "test set read 1 time(s)" in done.stdout
    kept = {path.parent.parent.name for path in (folder / "trials").glob("*/checkpoints/*.ckpt")}
    assert kept == {best["runs"]}
    assert (final / "checkpoints" / "best.ckpt").is_file()


def test_the_same_command_reports_and_more_trials_after_the_test_are_refused(
    finished, cache_dir: Path
) -> None:
    root, folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix == ".ckpt"}
    done = tune(root, cache_dir, "tune.trials=2", "epochs=1")
    assert done.returncode == 0, done.stderr
    assert study_folder(root) == folder
    assert "finished: 2 trials complete" in done.stdout
    assert "SYNTHETIC IMAGES: says nothing about tissue" in done.stdout
    assert times_read(folder, "final") == [1]
    assert before
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    more = tune(root, cache_dir, "tune.trials=3", "epochs=1")
    assert more.returncode == 2
    (line,) = more.stderr.splitlines()
    assert "its test set has been read, so tune.trials=3 would choose among more settings" in line


def started(cwd: Path, cache_dir: Path, *overrides: str) -> Command:
    cwd.mkdir(exist_ok=True)
    return start(cwd, cache_dir, *SMALL, *overrides, program="histo_lightning.tune")


def wait_for(cwd: Path, pattern: str, process: Command) -> None:
    until = time.monotonic() + 300
    while not list(cwd.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, pattern
        time.sleep(0.05)


LONGER = ("tune.trials=4", "epochs=3", "tune.pruner_trials=1", "tune.random_trials=2")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    done = tune(root, cache_dir, *LONGER)
    assert done.returncode == 0, done.stderr
    return study_folder(root)


@pytest.mark.long
@pytest.mark.parametrize(
    "moment",
    ["trials/trial_0001_*/history.csv", "trials/trial_0002_*/checkpoints/last.ckpt", "final/*/history.csv", "plots/history.png"],
)  # fmt: skip
def test_kill_9_at_any_moment_and_the_same_command_gives_the_same(
    undisturbed: Path, tmp_path: Path, cache_dir: Path, moment: str
) -> None:
    cut = tmp_path / "cut"
    process = started(cut, cache_dir, *LONGER)
    wait_for(cut, f"outputs/studies/*/{moment}", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    cut = cut.rename(tmp_path / "moved")
    again = tune(cut, cache_dir, *LONGER)
    assert again.returncode == 0, again.stderr
    one, other = undisturbed, study_folder(cut)
    assert essence(one) == essence(other)
    assert (one / "curves.csv").read_bytes() == (other / "curves.csv").read_bytes()
    assert read(one / "study.json")["best"] == read(other / "study.json")["best"]
    assert (
        read(one / "study.json")["final"]["runs"][0]["test"]
        == read(other / "study.json")["final"]["runs"][0]["test"]
    )
    assert times_read(other, "final") == [1]
    assert set(times_read(other, "trials")) == {0}


@pytest.mark.long
def test_ctrl_c_goes_on_later(tmp_path: Path, cache_dir: Path) -> None:
    process = started(tmp_path, cache_dir, *LONGER)
    wait_for(tmp_path, "outputs/studies/*/trials/trial_0001_*/history.csv", process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75, said
    assert said.splitlines()[-1].startswith("interrupted: the same command goes on")
    done = tune(tmp_path, cache_dir, *LONGER)
    assert done.returncode == 0, done.stderr
    found = trials(study_folder(tmp_path))
    assert [row["attempts"] for row in found].count("2") == 1
    assert Counter(row["state"] for row in found).total() == 4


@pytest.mark.long
def test_two_shells_share_one_budget_and_one_goes_on_when_the_other_is_killed(
    tmp_path: Path, cache_dir: Path
) -> None:
    first = started(tmp_path, cache_dir, "tune.trials=6", "epochs=2")
    wait_for(tmp_path, "outputs/studies/*/trials/trial_0001_*/history.csv", first)
    second = started(tmp_path, cache_dir, "tune.trials=6", "epochs=2")
    third = started(tmp_path, cache_dir, "tune.trials=6", "epochs=2")
    wait_for(tmp_path, "outputs/studies/*/trials/trial_0003_*/history.csv", second)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    outputs = [process.communicate(timeout=500) for process in (second, third)]
    assert (second.returncode, third.returncode) == (0, 0), outputs
    folder = study_folder(tmp_path)
    found = trials(folder)
    assert [row["trial"] for row in found] == [str(number) for number in range(6)]
    assert {row["state"] for row in found} <= {"complete", "pruned"}
    assert times_read(folder, "final") == [1]  # by one of the commands
    lines = [line for out, _ in outputs for line in out.splitlines() if line.startswith("trial ")]
    numbers = [line.split()[1] for line in lines]
    assert len(numbers) == len(set(numbers)) >= 3


@pytest.mark.long
def test_a_diverged_trial_is_recorded_and_exit_status_3_says_so(tmp_path: Path, cache_dir: Path) -> None:
    space = (
        "tune.space={optimizer:{weight_decay:null,lr:{low:null,high:null,log:null,choices:[0.001,100.0]}}}"
    )
    changes = (
        "optimizer=sgd",
        "optimizer.momentum=0.99",
        space,
        "tune.trials=2",
        "tune.sampler=random",
        "epochs=2",
    )
    done = tune(tmp_path, cache_dir, *changes, "tune.max_failed=50", "tune.final=false")
    folder = study_folder(tmp_path)
    found = trials(folder)
    failed = [row for row in found if row["state"] == "failed"]
    assert failed, "no draw diverged: another seed is needed"
    assert all("diverged" in row["error"] and row["optimizer.lr"] == "100.0" for row in failed)
    assert sum(row["state"] == "complete" for row in found) == 2
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == f"{len(failed)} trial(s) failed; trials.csv says why"
    again = tune(tmp_path, cache_dir, *changes, "tune.max_failed=50", "tune.final=false")
    assert again.returncode == 3
    assert essence(folder) == [{**row} for row in essence(folder)]
    assert len(trials(folder)) == len(found)


@pytest.mark.long
def test_several_folds_say_optimistic(tmp_path: Path, cache_dir: Path) -> None:
    done = tune(tmp_path, cache_dir, "tune.folds=[0,2]", "nested=false", "tune.trials=2", "epochs=1")
    assert done.returncode == 0, done.stderr
    assert OPTIMISTIC in done.stdout
    folder = study_folder(tmp_path)
    study = read(folder / "study.json")
    assert study["protocol"]["warning"] == OPTIMISTIC
    for row in trials(folder):
        values = [
            min(read(folder / "trials" / run / "metrics.json")["monitored"]) for run in row["runs"].split()
        ]
        assert len(values) == 2
        assert float(row["value"]) == pytest.approx(np.mean(values))
    assert times_read(folder, "final") == [1, 1]


@pytest.mark.long
def test_changed_test_images_leave_the_study_bit_identical(finished, tmp_path: Path, cache_dir: Path) -> None:
    """The poison test: noise in place of every test image, and everything that was searched stays as it was."""
    parts = read(next((finished[1] / "final").glob("*/split.json")))["parts"]
    drawn = {
        path.name: path for path in (cache_dir / "histo_lightning/synthetic/v2-2x140-seed0").rglob("*.png")
    }
    noise = np.random.default_rng(0)
    few = (
        "experiment=smoke",
        "trainer=cpu",
        "trainer.threads=1",
        "dataset=folders",
        "split=folders",
        "image_size=32",
    )
    folders = []
    for name in ("clean", "poisoned"):
        root = tmp_path / name
        for part, images in parts.items():
            for image in images:
                place = (
                    root / "images" / part / ("benign" if image.startswith("SOB_B") else "malignant") / image
                )
                place.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.asarray(Image.open(drawn[image]))
                if (name, part) == ("poisoned", "test"):
                    pixels = noise.integers(0, 256, pixels.shape, dtype=np.uint8)
                Image.fromarray(pixels).save(place)
        changes = (f"dataset.root={root / 'images'}", "tune.trials=3", "tune.random_trials=1", "epochs=2")
        done = tune(root, cache_dir, *changes, small=few)
        assert done.returncode == 0, done.stderr
        folders.append(study_folder(root))
    clean, poisoned = folders
    assert clean.name == poisoned.name
    assert essence(clean) == essence(poisoned)
    assert (clean / "curves.csv").read_bytes() == (poisoned / "curves.csv").read_bytes()
    assert read(clean / "study.json")["best"] == read(poisoned / "study.json")["best"]
    scores = [read(folder / "study.json")["final"]["runs"][0]["test"] for folder in folders]
    assert scores[0] != scores[1]  # the poison is there
