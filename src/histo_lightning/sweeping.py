"""A sweep: data prepared once, finished jobs left alone, the others launched, and an answer at the end whatever happened."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from histo_lightning.comparison.names import level_text, value_text
from histo_lightning.config import flatten, readable_name, to_config
from histo_lightning.errors import UserError
from histo_lightning.launch import Command, hydra_texts, run_hydra
from histo_lightning.runs import choose_folder, read_json, write_json
from histo_lightning.schema import Config
from histo_lightning.sweep_display import SweepWatch
from histo_lightning.sweep_folder import Job, SweepFolder, plan_of

PARALLEL = ("joblib", "submitit_local", "ray")  # launchers that run several jobs at once on one machine
DEPTH_REFERENCE = "resnet18"


def visible_gpus() -> int:
    """GPUs that torch sees."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def jobs_at_once() -> int:
    """How many jobs one machine runs at a time: as many as GPUs where there are any, else as cores."""
    from histo_lightning.hardware import cores

    return visible_gpus() or cores()


OmegaConf.register_new_resolver("jobs_at_once", jobs_at_once, replace=True)
OmegaConf.register_new_resolver("visible_gpus", visible_gpus, replace=True)


def sweep(command: Command) -> int:
    """Run a sweep and write its results, also where jobs failed or Ctrl-C ended it.

    Returns:
        How many jobs are not finished; each is named on stderr with its reason, the count in the last line.

    Raises:
        UserError, KeyboardInterrupt: as :func:`run_sweep`.
    """
    jobs = _distinct(command)
    folder = sweep_folder_of(jobs[0].config)
    try:
        run_sweep(command, jobs, folder)
    except KeyboardInterrupt:
        write_results(folder, jobs, pictures=False)
        raise
    write_results(folder, jobs, pictures=True)
    return say_failures(folder, jobs)


def write_results(folder: SweepFolder, jobs: Sequence[Job], *, pictures: bool) -> None:
    """Pictures of the runs, then ``results.csv``, ``results.md`` and ``report.html`` of the sweep."""
    from histo_lightning.comparison.console import print_comparison
    from histo_lightning.comparison.leakage import write_leakage_study
    from histo_lightning.comparison.results import compare_runs

    shown = jobs[0].config.trainer.progress != "none"
    if pictures:
        from histo_lightning.sweep_pictures import draw_missing

        for line in draw_missing(finished_runs(folder, jobs), shown):
            print(line, file=sys.stderr)
    results = compare_runs([folder.path], folder.path)
    if jobs[0].config.json:
        write_json(Path(jobs[0].config.json), results)
    study = write_leakage_study(folder.path)
    if shown and study is not None:
        for words in read_json(folder.path / "leakage.json")["words"].values():
            print(words)
        for path in (study, folder.path / "leakage.md", folder.path / "results.csv"):
            print(path)
    elif shown:
        print_comparison(results, folder.path, unfinished=False)


def run_sweep(command: Command, jobs: Sequence[Job], folder: SweepFolder) -> None:
    """Run every unfinished job of a sweep; what became of each stands in the folder.

    Raises:
        UserError: nothing can run (no data, no permission, a launcher that is not there).
        KeyboardInterrupt: Ctrl-C or SIGTERM; jobs that were running say ``interrupted``.
    """
    _check_launcher(command.launcher, jobs)
    folder.write_plan(plan_of(command.overrides, jobs, comparison_of(jobs)))
    waiting = _unfinished(jobs, folder)
    extra = _placed(waiting, command.launcher)
    from hydra_plugins.histo_lightning_sweeps.sweeper import jobs_to_launch

    with (
        SweepWatch(folder, jobs, waiting),
        jobs_to_launch([[*job.overrides, *extra[job.name]] for job in waiting]),
    ):
        if waiting:
            _launch()


def _launch() -> None:
    """Let Hydra run the jobs. An engine that breaks down (joblib, when a worker is killed) loses no results."""
    try:
        run_hydra("train", run_job)
    except UserError:
        raise
    except (
        Exception
    ) as error:  # of whatever type the engine has; the jobs' own errors are recorded, not raised
        reason = str(error).strip().splitlines()
        print(f"the launcher stopped: {type(error).__name__}: {reason[0] if reason else ''}", file=sys.stderr)


def sweep_folder_of(config: Config) -> SweepFolder:
    return SweepFolder(Path(config.output_dir) / "sweeps" / str(config.sweep_name))


def _distinct(command: Command) -> list[Job]:
    """The jobs, without those that say the same thing twice."""
    jobs: dict[str, Job] = {}
    for overrides, config in zip(command.jobs, command.configs, strict=True):
        assert isinstance(config, Config)
        name = readable_name(config)
        jobs.setdefault(name, Job(name, tuple(overrides), config))
    return list(jobs.values())


def _check_launcher(launcher: str, jobs: Sequence[Job]) -> None:
    if not launcher.startswith("submitit") and any(job.config.trainer.strategy == "ddp" for job in jobs):
        raise UserError(
            f"trainer=ddp with -m and hydra/launcher={launcher}: several processes a job run through "
            "hydra/launcher=submitit_local or submitit_slurm only"
        )


def comparison_of(jobs: Sequence[Job]) -> dict[str, Any]:
    """What the sweep compares: fixed before its first job."""
    study = jobs[0].config.study
    levels = list(dict.fromkeys(level_of(job.config, study.factor) for job in jobs))
    reference = study.reference and level_text(study.reference)
    if reference is None:
        reference = DEPTH_REFERENCE if DEPTH_REFERENCE in levels else levels[0]
    elif reference not in levels:
        raise UserError(f"study.reference={reference}: is not among the sweep's {', '.join(levels)}")
    return {"factor": study.factor, "reference": reference, "score": study.score, "levels": levels}


def level_of(config: Config, factor: str) -> str:
    """The value of a key (``epochs``) or the choice of a group (``model``) in a config, as text."""
    values = dict(flatten(asdict(config)))
    return value_text(values[factor] if factor in values else values[f"{factor}.name"])


def _unfinished(jobs: Sequence[Job], folder: SweepFolder) -> list[Job]:
    """The jobs still to do. Data is prepared here, once for each way to cut it.

    Raises:
        UserError: no job's data can be prepared.
    """
    from histo_lightning.training import identity_of, prepare_data

    prepared: dict[str, dict[str, str] | UserError] = {}
    waiting: list[Job] = []
    for job in jobs:
        key = _data_key(job.config)
        if key not in prepared:
            try:
                prepared[key] = identity_of(job.config, prepare_data(job.config))
            except UserError as error:
                prepared[key] = error
        found = prepared[key]
        if isinstance(found, UserError):
            folder.fail(job.name, str(found))
            continue
        identity = found | {"config_hash": job.name[-8:]}
        run = choose_folder(folder.path, job.name, job.config.resume, identity)
        if run.status.get("state") == "finished":
            folder.settle(job.name, run.path.name, run.status)
        else:
            folder.put_back(job.name)
            waiting.append(job)
    errors = [error for error in prepared.values() if isinstance(error, UserError)]
    if len(errors) == len(prepared):
        raise errors[0]
    return waiting


def _data_key(config: Config) -> str:
    values = flatten(asdict(config))
    ours = ("dataset.", "split.", "augment.", "magnification", "task", "image_size", "cache_dir")
    return repr([item for item in values if item[0].startswith(ours)])


def _placed(jobs: Sequence[Job], launcher: str) -> dict[str, list[str]]:
    """Overrides that place jobs of one machine beside each other: a GPU in turn, a share of the cores."""
    extra: dict[str, list[str]] = {job.name: [] for job in jobs}
    if launcher not in PARALLEL:
        return extra
    from histo_lightning.hardware import cores

    gpus, threads = visible_gpus(), max(cores() // jobs_at_once(), 1)
    for turn, job in enumerate(jobs):
        if job.config.trainer.threads is None:
            extra[job.name].append(f"++trainer.threads={threads}")
        if (
            gpus and launcher != "ray" and job.config.trainer.accelerator != "cpu"
        ):  # Ray hands them out itself
            extra[job.name].append(f"++trainer.gpu={turn % gpus}")
    return extra


def run_job(composed: DictConfig) -> None:
    """One job, in whichever process the launcher chose. What goes wrong is recorded and stops no other job."""
    config = to_config(composed)
    assert isinstance(config, Config)
    from histo_lightning.training import run_training  # torch and Lightning take seconds

    folder, name = sweep_folder_of(config), readable_name(config)
    progress = "none" if config.trainer.progress == "auto" else config.trainer.progress
    config = replace(config, trainer=replace(config.trainer, progress=progress), json=None)
    with folder.job(
        name
    ):  # another sweep in this folder may be at it: then it is finished when it is our turn
        try:
            with folder.recorded(name) as entry:
                entry["run"] = run_training(config, folder.path, hydra_texts(composed), pictures=False).name
        except Exception:  # recorded with its reason
            return


def say_failures(folder: SweepFolder, jobs: Sequence[Job]) -> int:
    """Print why jobs are not finished, then how many; that number."""
    states = {job.name: folder.state(job.name) for job in jobs}
    failed = {name: entry for name, entry in states.items() if entry["state"] != "finished"}
    for name, entry in failed.items():
        print(f"{entry['state']}: {name}: {entry.get('error') or 'never started'}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(jobs)} jobs failed; the same command runs them again", file=sys.stderr)
    return len(failed)


def finished_runs(folder: SweepFolder, jobs: Sequence[Job]) -> list[Path]:
    """The run folders of the finished jobs."""
    found = [folder.state(job.name) for job in jobs]
    return [folder.path / str(entry["run"]) for entry in found if entry["state"] == "finished"]
