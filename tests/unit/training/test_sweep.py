"""Sweeps without their runs: plans, jobs' configs, what is compared, and the launchers' settings."""

import json
import os
from pathlib import Path

import pytest
import submitit
from hydra import compose
from hydra.core.plugins import Plugins

from factories.configs import read_line
from histo_lightning.classifier.hardware import cores
from histo_lightning.config.compose import config_tree
from histo_lightning.config.identity import hashed, readable_name
from histo_lightning.config.schema import Config
from histo_lightning.config.tree import conf_dir
from histo_lightning.errors import UserError
from histo_lightning.runs import RunFolder
from histo_lightning.training.sweep import Jobs, comparison_of, jobs_at_once, level_of, print_failures
from histo_lightning.training.sweep_folder import SweepFolder, states_line, watched


def jobs_of(*arguments: str) -> Jobs:
    return {readable_name(job.config): job for job in read_line("-m", *arguments, check=None).jobs}  # type: ignore[arg-type]


# --- what is compared ---


def test_jobs_that_say_the_same_are_one() -> None:
    assert [job.config.seed for job in jobs_of("seed=0,0,1").values()] == [0, 1]  # type: ignore[union-attr]


def test_what_a_sweep_compares() -> None:
    assert comparison_of(jobs_of("model=resnet34,resnet18")) == {
        "factor": "model",
        "reference": "resnet18",
        "score": "case_auroc",
        "standard_error": "jackknife",
        "levels": ["resnet34", "resnet18"],
    }
    assert comparison_of(jobs_of("optimizer=sgd,adam", "study.factor=optimizer"))["reference"] == "sgd"
    frozen = jobs_of(
        "model.freeze_backbone=false,true", "study.factor=model.freeze_backbone", "study.reference=true"
    )
    assert comparison_of(frozen) == {
        "factor": "model.freeze_backbone",
        "reference": "true",
        "score": "case_auroc",
        "standard_error": "jackknife",
        "levels": ["false", "true"],
    }
    flags = jobs_of("trainer.accumulate_grad_batches=1,2", "study.factor=trainer.accumulate_grad_batches")
    assert comparison_of(flags)["levels"] == ["1", "2"]
    assert level_of(Config(epochs=7), "epochs") == "7"


def test_a_reference_or_factor_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"not among the sweep's resnet34, resnet50"):
        comparison_of(jobs_of("model=resnet34,resnet50", "study.reference=resnet18"))
    with pytest.raises(UserError, match=r"study.factor=optimizer.momentum: not every job has it"):
        comparison_of(jobs_of("optimizer=sgd,adam", "study.factor=optimizer.momentum"))


# --- the folder ---


def test_the_plan_is_kept_and_a_changed_one_is_not_hidden(tmp_path: Path) -> None:
    jobs = jobs_of("seed=0,1")
    folder = SweepFolder(tmp_path)
    folder.write_plan(["seed=0,1"], jobs, comparison_of(jobs))
    first = (tmp_path / "sweep.json").read_bytes()
    folder.write_plan(["seed=0,1"], jobs, comparison_of(jobs))
    assert (tmp_path / "sweep.json").read_bytes() == first
    folder.write_plan(["seed=0,1"], jobs, comparison_of(jobs) | {"score": "image_auroc"})
    now = json.loads((tmp_path / "sweep.json").read_text())
    assert now["hash"] != json.loads(first)["hash"]
    assert [entry["hash"] for entry in now["earlier"]] == [json.loads(first)["hash"]]
    assert [entry["run"] for entry in now["jobs"]] == list(jobs)


def test_a_job_s_config_is_read_back_the_same(tmp_path: Path) -> None:
    line = (
        "experiment=thesis",
        "logger=[csv,tensorboard]",
        "trainer.gradient_clip_val=0.5",
        "imports=[json]",
    )
    (name, job), *_ = jobs_of(*line, "seed=3").items()
    folder = SweepFolder(tmp_path)
    folder.write_job(name, job.config, job.hydra)  # type: ignore[arg-type]
    config, hydra = folder.read_job(name)
    assert config == job.config
    assert hashed(config) == hashed(job.config)  # type: ignore[arg-type]
    assert hydra == job.hydra


def test_the_newest_folder_of_a_job_counts_and_failures_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = jobs_of("seed=0,1,2")
    one, two, three = jobs
    folder = SweepFolder(tmp_path)
    folder.fail(one, jobs[one].config, "no data")  # type: ignore[arg-type]
    for name in (two, f"{two}-2"):
        with RunFolder(tmp_path / name).recorded():
            pass
    assert folder.run_of(two).path.name == f"{two}-2"
    assert [folder.run_of(name).state for name in jobs] == ["failed", "finished", "pending"]
    assert (folder.run_of(one).path / "config.yaml").is_file()
    assert print_failures(folder, jobs) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"failed: {one}: no data",
        f"pending: {three}: never started",
        "2 of 3 jobs failed; the same command runs them again",
    ]
    states = {name: folder.run_of(name).state for name in jobs}
    line = states_line(states, list(jobs), seconds=240.0)
    assert line == "jobs: 1 finished, 1 pending, 1 failed; about 2 min 0 s left"
    with watched(folder, list(jobs), list(jobs)):
        pass
    first, last = capsys.readouterr().out.splitlines()
    assert first == f"3 jobs, 1 of them finished before: {tmp_path}"
    assert last.startswith("jobs: 1 finished, 1 pending, 1 failed")


# --- launchers ---


def composed_launcher(overrides: list[str]):  # type: ignore[no-untyped-def]
    with config_tree():
        config = compose("job", overrides=[*overrides, "sweep=x"], return_hydra_config=True)
        return Plugins.instance()._instantiate(config.hydra.launcher)


@pytest.mark.parametrize("name", ["joblib", "submitit_local", "submitit_slurm", "ray"])
def test_our_launchers_compose_and_can_be_made(name: str) -> None:
    read = read_line("-m", "seed=0,1", f"hydra/launcher={name}", check=None)
    assert read.launcher == name
    launcher = composed_launcher([f"hydra/launcher={name}"])
    assert type(launcher).__name__.lower().startswith(name.split("_")[-1])
    at_once = {
        "joblib": lambda: launcher.joblib["n_jobs"],
        "submitit_local": lambda: launcher.jobs_at_once,
        "ray": lambda: launcher.init["num_cpus"],
        "submitit_slurm": jobs_at_once,
    }
    assert at_once[name]() == jobs_at_once()


def test_as_many_jobs_at_once_as_gpus_or_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    from histo_lightning.training import sweep

    for gpus, jobs in ((0, cores()), (3, 3)):
        monkeypatch.setattr(sweep, "visible_gpus", lambda gpus=gpus: gpus)
        assert jobs_at_once() == jobs
    assert jobs_at_once(4) == 12


def test_small_jobs_share_a_gpu_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from histo_lightning.training import sweep

    monkeypatch.setattr(sweep, "visible_gpus", lambda: 2)
    monkeypatch.setattr(sweep, "cores", lambda: 12)
    read = read_line("-m", "seed=0,1", "trainer.jobs_per_gpu=3", check=None)
    assert sweep._chosen(read, {str(number): read.jobs[0] for number in range(13)}) == "joblib"
    assert sweep._chosen(read, {str(number): read.jobs[0] for number in range(12)}) == "basic"
    jobs = jobs_of("seed=0,1,2,3,4", "trainer.jobs_per_gpu=3")
    placed = list(sweep._placed(jobs, "joblib").values())
    assert [config.trainer.gpu for config in placed] == [0, 1, 0, 1, 0]
    assert {config.trainer.threads for config in placed} == {2}
    started = dict[str, object]()
    for name in ("joblib", "submitit_local", "ray"):
        launcher = composed_launcher([f"hydra/launcher={name}", "jobs_per_gpu=3"])
        params = getattr(launcher, "joblib", {}) | getattr(launcher, "init", {}) | vars(launcher)
        started[name] = next(params[key] for key in ("n_jobs", "num_cpus", "jobs_at_once") if key in params)
    assert started == {"joblib": 6, "submitit_local": 6, "ray": 6}


@pytest.mark.parametrize(
    ("given", "jobs", "gpus", "chosen"),
    [
        ((), 5, 0, "joblib"),
        ((), 4, 0, "basic"),  # over before joblib's processes have started
        (("hydra/launcher=basic",), 9, 0, "basic"),
        (("hydra/launcher=ray",), 9, 0, "ray"),
        ((), 9, 1, "basic"),  # one GPU takes one job at a time
        ((), 9, 2, "joblib"),
        (("trainer=ddp",), 9, 0, "basic"),  # refused after that
    ],
)
def test_many_jobs_share_a_machine_where_no_launcher_is_named(
    monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], jobs: int, gpus: int, chosen: str
) -> None:
    from histo_lightning.training import sweep

    monkeypatch.setattr(sweep, "visible_gpus", lambda: gpus)
    monkeypatch.setattr(sweep, "cores", lambda: 2)
    read = read_line("-m", *given, check=None)
    assert sweep._chosen(read, {str(number): read.jobs[0] for number in range(jobs)}) == chosen


def test_jobs_on_one_machine_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from histo_lightning.training import sweep

    jobs = jobs_of("seed=0,1,2", "json=x.json")
    monkeypatch.setattr(sweep, "visible_gpus", lambda: 2)
    placed = list(sweep._placed(jobs, "joblib").values())
    assert [config.trainer.gpu for config in placed] == [0, 1, 0]
    assert {config.trainer.threads for config in placed} == {max(cores() // 2, 1)}
    assert {(config.json, config.trainer.progress) for config in placed} == {(None, "none")}
    assert {config.trainer.gpu for config in sweep._placed(jobs, "ray").values()} == {None}
    assert {config.trainer.threads for config in sweep._placed(jobs, "submitit_slurm").values()} == {None}


def test_the_slurm_script_asks_for_what_the_config_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for tool in ("srun", "sbatch"):
        (tmp_path / tool).write_text("#!/bin/sh\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    executor = composed_launcher(
        [
            "hydra/launcher=submitit_slurm",
            "hydra.launcher.partition=gpu",
            "hydra.launcher.timeout_min=90",
            f"hydra.launcher.submitit_folder={tmp_path}/jobs",
        ]
    )._executor()
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


@pytest.mark.parametrize(
    ("launcher", "message"),
    [("basic", "submitit_local"), ("joblib", "submitit_local"), ("ray", "submitit_slurm only")],
)
def test_ddp_in_a_sweep_needs_processes_of_its_own(launcher: str, message: str, tmp_path: Path) -> None:
    from histo_lightning.training.sweep import run_sweep

    read = read_line("-m", "seed=0,1", "trainer=ddp", f"hydra/launcher={launcher}", check=None)
    jobs = {readable_name(job.config): job for job in read.jobs}  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        run_sweep(read, jobs, SweepFolder(tmp_path / "s"))
    assert not (tmp_path / "s").exists()
    assert {path.stem for path in (conf_dir() / "hydra" / "launcher").glob("*.yaml")} > {"joblib"}
