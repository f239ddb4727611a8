"""Sweeps by the real command: failures, kills, a second start, two at once; plans and launchers."""

import csv
import itertools
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
import submitit
from histo_lightning.sweep_folder import SweepFolder, plan_of
from histo_lightning.sweeping import _distinct, comparison_of, level_of
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins

from histo_lightning import launch
from histo_lightning.config.command_line import read_command
from histo_lightning.config.schema import Config
from histo_lightning.config.tree import conf_dir
from histo_lightning.errors import UserError

SMALL = ("experiment=smoke", "dataset.images_per_slide=2", "dataset.image_size=140", "trainer=cpu")


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def command_line(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> launch.Command:
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    return read_command("train")


# --- what is to run ---


def test_a_sweep_is_every_combination_in_hydras_order(monkeypatch: pytest.MonkeyPatch) -> None:
    found = command_line(monkeypatch, "-m", "model=resnet18,resnet34", "optimizer=sgd,adam", "seed=1")
    assert found.multirun
    assert [(c.model.name, c.optimizer.name, c.seed) for c in found.configs] == [
        (model, optimizer, 1)
        for model, optimizer in itertools.product(("resnet18", "resnet34"), ("sgd", "adam"))
    ]
    assert len({c.sweep_name for c in found.configs}) == 1
    assert re.fullmatch("sweep_[0-9a-f]{8}", found.configs[0].sweep_name)


def test_the_folder_depends_on_what_is_run_not_on_how(monkeypatch: pytest.MonkeyPatch) -> None:
    def name(*arguments: str) -> str:
        return str(command_line(monkeypatch, "-m", *arguments).configs[0].sweep_name)

    plain = name("seed=0,1", "model=resnet34")
    assert plain == name("model=resnet34", "seed=0,1", "hydra/launcher=joblib", "output_dir=elsewhere")
    assert plain != name("model=resnet34", "seed=0,2")
    assert name("seed=0,1", "sweep_name=mine") == "mine"


def test_the_depth_study_is_a_sweep_without_m(monkeypatch: pytest.MonkeyPatch) -> None:
    found = command_line(monkeypatch, "experiment=depth_study")
    assert found.multirun
    assert len(found.jobs) == 3 * 4 * 5 * 5
    jobs = _distinct(found)
    assert len(jobs) == 300
    assert comparison_of(jobs) == {
        "factor": "model",
        "reference": "resnet18",
        "score": "case_auroc",
        "levels": ["resnet18", "resnet34", "resnet50"],
    }
    for config in found.configs:  # equal budget, no choice on validation
        assert (config.epochs, config.scored_weights, config.ema.decay, config.early_stopping.patience) == (
            found.configs[0].epochs,
            "last",
            0.99,
            None,
        )
    assert sys.argv[1] == "--multirun"


def test_what_the_command_line_says_wins_over_the_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    found = command_line(
        monkeypatch, "experiment=depth_study", "magnification=100x", "seed=0", "model=resnet10"
    )
    assert len(found.jobs) == 5
    assert {(c.model.name, c.magnification, c.seed) for c in found.configs} == {("resnet10", "100x", 0)}
    assert [c.split.fold for c in found.configs] == [0, 1, 2, 3, 4]


def test_products_are_sweeps_of_their_own_in_one_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    experiment = tmp_path / "conf" / "experiment"
    experiment.mkdir(parents=True)
    (experiment / "arms.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    products:\n"
        '      - {split: "image_random,case_kfold", split.fold: "0,1"}\n'
        '      - {split: official, split.fold: "1,2,3", split.clean: "true,false"}\n'
    )
    for entry in conf_dir().iterdir():
        if entry.name != "experiment":
            (tmp_path / "conf" / entry.name).symlink_to(entry)
    monkeypatch.setattr(launch, "conf_dir", lambda: tmp_path / "conf")
    found = command_line(monkeypatch, "experiment=arms", "seed=3,4")
    kinds = [(c.split.name, c.split.fold, c.split.clean, c.seed) for c in found.configs]
    first = [(s, f, False, r) for s in ("image_random", "case_kfold") for f in (0, 1) for r in (3, 4)]
    second = [("official", f, clean, r) for f in (1, 2, 3) for clean in (True, False) for r in (3, 4)]
    assert kinds == first + second


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-m", "epochs=1,abc"), "epochs: Value 'abc'"),
        (("-m", "model=resnet18,resnet19"), "did you mean 'resnet18'"),
        (("-m", "seed=0,1", "study.factor=modle"), "did you mean 'model'"),
        (("-m", "seed=0,1", "study.score=case_auc"), "did you mean 'case_auroc'"),
        (("seed=0,1",), "add -m"),
        (("-m", "seed=0,1", "hydra/launcher=jobli"), "launcher"),
    ],
)
def test_every_job_is_validated_before_the_first(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        command_line(monkeypatch, *arguments)


def test_other_commands_do_not_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["prepare", "-m", "seed=0,1"])
    with pytest.raises(UserError, match="only train and tune do"):
        read_command("prepare")


def test_jobs_that_say_the_same_are_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = command_line(monkeypatch, "-m", "seed=0,0,1")
    assert [job.config.seed for job in _distinct(found)] == [0, 1]


def test_a_reference_must_be_in_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    found = command_line(monkeypatch, "-m", "model=resnet34,resnet50", "study.reference=resnet18")
    with pytest.raises(UserError, match="not among the sweep's resnet34, resnet50"):
        comparison_of(_distinct(found))
    found = command_line(monkeypatch, "-m", "optimizer=sgd,adam", "study.factor=optimizer")
    assert comparison_of(_distinct(found))["reference"] == "sgd"
    assert level_of(Config(epochs=7), "epochs") == "7"
    found = command_line(
        monkeypatch, "-m", "model.freeze_backbone=false,true", "study.factor=model.freeze_backbone",
        "study.reference=true",
    )  # fmt: skip
    assert comparison_of(_distinct(found)) == {
        "factor": "model.freeze_backbone",
        "reference": "true",
        "score": "case_auroc",
        "levels": ["false", "true"],
    }


# --- the folder ---


def _hold(path: Path, name: str, ready) -> None:
    folder = SweepFolder(path)
    with folder.job(name), folder.recorded(name):
        ready.set()
        time.sleep(600)


def test_a_killed_job_is_interrupted_and_a_living_one_runs(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    worker = context.Process(target=_hold, args=(tmp_path, "job", ready))
    worker.start()
    assert ready.wait(60)
    folder = SweepFolder(tmp_path)
    assert folder.state("job")["state"] == "running"
    folder.put_back("job")
    assert folder.state("job")["state"] == "running"  # nobody takes it away from a living process
    worker.kill()
    worker.join()
    entry = folder.state("job")
    assert (entry["state"], entry["error"]) == ("interrupted", "its process was killed")
    folder.put_back("job")
    assert folder.state("job")["state"] == "pending"


def test_a_job_records_how_it_ended(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    for name, error, state in (
        ("a", None, "finished"),
        ("b", UserError("no data"), "failed"),
        ("c", ValueError("x"), "failed"),
        ("d", KeyboardInterrupt(), "interrupted"),
    ):
        with suppress(type(error)) if error is not None else nullcontext(), folder.recorded(name) as entry:
            entry["run"] = name
            if error is not None:
                raise error
        assert folder.state(name)["state"] == state
    assert folder.state("b")["error"] == "no data"
    assert folder.state("c")["error"] == "defect: ValueError: x"
    assert folder.state("never")["state"] == "pending"


def test_the_plan_is_kept_and_a_changed_one_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    jobs = _distinct(command_line(monkeypatch, "-m", "seed=0,1"))
    folder = SweepFolder(tmp_path)
    plan = plan_of(["seed=0,1"], jobs, comparison_of(jobs))
    folder.write_plan(plan)
    first = (tmp_path / "sweep.json").read_bytes()
    folder.write_plan(plan_of(["seed=0,1"], jobs, comparison_of(jobs)))
    assert (tmp_path / "sweep.json").read_bytes() == first
    folder.write_plan(plan_of(["seed=0,1"], jobs, comparison_of(jobs) | {"score": "image_auroc"}))
    now = read(tmp_path / "sweep.json")
    assert now["hash"] != plan["hash"]
    assert [entry["hash"] for entry in now["earlier"]] == [plan["hash"]]


# --- launchers ---


@pytest.mark.parametrize("name", ["joblib", "submitit_local", "submitit_slurm", "ray"])
def test_our_launchers_compose_and_can_be_made(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command_line(monkeypatch, "-m", "seed=0,1", f"hydra/launcher={name}", "sweep_name=x")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", overrides=[f"hydra/launcher={name}"], return_hydra_config=True)
    launcher = Plugins.instance()._instantiate(config.hydra.launcher)
    assert type(launcher).__name__.lower().startswith(name.split("_")[-1])
    cores = len(os.sched_getaffinity(0))
    at_once = {
        "joblib": lambda: launcher.joblib["n_jobs"],
        "submitit_local": lambda: launcher.jobs_at_once,
        "ray": lambda: launcher.init["num_cpus"],
        "submitit_slurm": lambda: cores,
    }
    assert at_once[name]() == cores


def test_the_slurm_script_asks_for_what_the_config_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for tool in ("srun", "sbatch"):
        (tmp_path / tool).write_text("#!/bin/sh\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    overrides = [
        "hydra/launcher=submitit_slurm",
        "hydra.launcher.partition=gpu",
        "hydra.launcher.timeout_min=90",
        f"hydra.launcher.submitit_folder={tmp_path}/jobs",
    ]
    command_line(monkeypatch, "-m", "seed=0,1", *overrides)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", overrides=overrides, return_hydra_config=True)
    executor = Plugins.instance()._instantiate(config.hydra.launcher)._executor()
    assert isinstance(executor._executor, submitit.SlurmExecutor)
    script = executor._executor._make_submission_file_text("python -u -m work", "unique")
    for line in (
        "#SBATCH --partition=gpu",
        "#SBATCH --time=90",
        "#SBATCH --gpus-per-node=1",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --mem=16GB",
        "#SBATCH --nodes=1",
        "#SBATCH --job-name=histo_lightning",
        "#SBATCH --signal=USR2@120",
    ):
        assert line in script, script
    assert "python -u -m work" in script
    assert executor._executor.max_num_timeout == 3
    assert executor._executor.parameters["array_parallelism"] == 16


def test_slurm_without_slurm_is_one_line(command) -> None:
    done = command("train", "-m", *SMALL, "seed=0,1", "hydra/launcher=submitit_slurm", PATH="/usr/bin:/bin")
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "login node" in done.stderr


def test_ddp_in_a_sweep_needs_processes_of_its_own(command) -> None:
    done = command("train", "-m", *SMALL[:3], "seed=0,1", "trainer=ddp", "trainer.accelerator=cpu")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "submitit_local" in done.stderr


# --- real sweeps ---

SWEEP = (
    "-m",
    *SMALL,
    "split.fold=0,9",
    "seed=0,1",
    "optimizer=sgd",
    "optimizer.lr=1e-3,100",
    "scheduler=constant",
    "trainer.precision=32-true",
    "sweep_name=s",
)


def sweep_folder(root: Path) -> Path:
    return root / "outputs" / "sweeps" / "s"


def states(root: Path) -> dict[str, str]:
    return {p.stem: read(p)["state"] for p in sorted((sweep_folder(root) / "jobs").glob("*.json"))}


def results(root: Path) -> list[dict[str, str]]:
    with (sweep_folder(root) / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def predictions(root: Path) -> dict[str, bytes]:
    found = sweep_folder(root).glob("*/predictions/test.csv")
    return {path.parts[-3]: path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path):
    """A sweep in which a fold does not exist and a learning rate makes the loss explode."""
    root = tmp_path_factory.mktemp("swept")
    done = subprocess.run(
        [sys.executable, "-m", "histo_lightning.train", *SWEEP],
        cwd=root,
        env=os.environ | {"XDG_CACHE_HOME": str(cache_dir)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return root, done


def test_a_failed_job_stops_no_other(swept) -> None:
    root, done = swept
    assert done.returncode == 3, done.stderr
    assert done.stderr.splitlines()[-1] == "6 of 8 jobs failed; the same command runs them again"
    assert "Traceback" not in done.stderr
    assert sorted(states(root).values()) == ["failed"] * 6 + ["finished"] * 2
    reasons = [read(p)["error"] for p in (sweep_folder(root) / "jobs").glob("*.json")]
    assert sum("split.fold=9: out of range" in str(reason) for reason in reasons) == 4
    assert sum("diverged" in str(reason) for reason in reasons) == 2


def test_the_results_name_every_job(swept) -> None:
    root, _ = swept
    rows = results(root)
    assert sorted(row["state"] for row in rows) == ["failed"] * 6 + ["finished"] * 2
    for row in rows:
        if row["state"] == "finished":
            metrics = read(sweep_folder(root) / row["run"] / "metrics.json")
            assert float(row["test_image_auroc"]) == metrics["test"]["image"]["auroc"]["value"]
            assert int(row["parameters"]) == metrics["cost"]["parameters"]
            assert (sweep_folder(root) / row["run"] / "report.html").is_file()
    assert (sweep_folder(root) / "report.html").is_file()
    assert (sweep_folder(root) / "results.md").is_file()


def test_the_same_sweep_again_leaves_what_is_finished(swept, command) -> None:
    root, _ = swept
    files = list(sweep_folder(root).rglob("*.ckpt"))
    finished = {p.name for p in sweep_folder(root).iterdir() if (p / "report.html").is_file()}
    before = {p: p.stat().st_mtime_ns for p in files if p.parts[-3] in finished}
    assert before
    done = command("train", *SWEEP, cwd=root)
    assert done.returncode == 3
    assert "2 of them finished before" in done.stdout
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_a_sweep_that_was_killed_ends_in_the_same_results(swept, cache_dir: Path, tmp_path: Path) -> None:
    whole, _ = swept
    env = os.environ | {"XDG_CACHE_HOME": str(cache_dir)}
    line = [sys.executable, "-m", "histo_lightning.train", *SWEEP, "optimizer.lr=1e-3", "split.fold=0"]
    first = subprocess.Popen(
        line,
        cwd=tmp_path,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while first.poll() is None:  # in the middle of the second job
        if any(
            len(p.read_text().splitlines()) > 1 for p in sweep_folder(tmp_path).glob("*_s1_*/history.csv")
        ):
            os.killpg(first.pid, signal.SIGKILL)
        time.sleep(0.01)
    assert first.returncode == -signal.SIGKILL
    assert "finished" in states(tmp_path).values()
    again = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert predictions(tmp_path) == predictions(whole)
    assert {row["state"] for row in results(tmp_path)} == {"finished"}


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_other_launchers_give_the_same_to_the_last_bit(
    launcher: str, command, tmp_path: Path, cache_dir: Path
) -> None:
    line = ("-m", *SMALL, "seed=0,1,2", "sweep_name=s", "trainer.threads=1")
    one = tmp_path / "basic"
    one.mkdir()
    assert command("train", *line, cwd=one).returncode == 0
    done = command("train", *line, f"hydra/launcher={launcher}")
    assert done.returncode == 0, done.stderr
    assert "3 finished" in done.stdout
    assert predictions(tmp_path) == predictions(one)
    assert len(predictions(one)) == 3


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_a_killed_job_loses_no_results(launcher: str, tmp_path: Path, cache_dir: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "histo_lightning.train",
            "-m",
            *SMALL,
            "seed=0,1,2",
            "sweep_name=s",
            "epochs=6",
            f"hydra/launcher={launcher}",
        ],
        cwd=tmp_path,
        env=os.environ | {"XDG_CACHE_HOME": str(cache_dir)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    killed = False
    while process.poll() is None and not killed:
        for history in sweep_folder(tmp_path).glob("*_s0_*/history.csv"):
            lock = (history.parent / ".lock").stat().st_ino
            for entry in Path("/proc/locks").read_text().splitlines():
                if entry.split()[5].endswith(f":{lock}"):
                    os.kill(int(entry.split()[4]), signal.SIGKILL)
                    killed = True
        time.sleep(0.05)
    out, err = process.communicate(timeout=300)
    assert killed
    assert process.returncode == 3, (out, err)
    assert "Traceback" not in err
    found = sorted(row["state"] for row in results(tmp_path))
    if launcher == "joblib":  # a killed worker takes the others with it; the same command goes on
        assert "the launcher stopped: TerminatedWorkerError" in err
        assert "interrupted" in found
    else:
        assert found == ["finished", "finished", "interrupted"]
        assert err.splitlines()[-1].startswith("1 of 3 jobs failed")


@pytest.mark.long
def test_two_sweeps_in_one_folder_do_each_job_once(tmp_path: Path, cache_dir: Path) -> None:
    line = [sys.executable, "-m", "histo_lightning.train", "-m", *SMALL, "seed=0,1,2,3", "sweep_name=s"]
    env = os.environ | {"XDG_CACHE_HOME": str(cache_dir)}
    both = [
        subprocess.Popen(
            line, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in both:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, (out, err)
    runs = [p for p in sweep_folder(tmp_path).iterdir() if (p / "metrics.json").is_file()]
    assert len(runs) == 4
    assert all(read(run / "status.json")["test_read"] == 1 for run in runs)
    assert len(results(tmp_path)) == 4
