"""A sweep: data prepared once, finished jobs left alone, the others launched, and an answer at the end whatever happened."""

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from histo_lightning.classifier.hardware import cores, visible_gpus
from histo_lightning.comparison.console import print_comparison
from histo_lightning.comparison.leakage import write_leakage_study
from histo_lightning.comparison.names import level_text, value_text
from histo_lightning.comparison.results import compare_runs
from histo_lightning.config.checks import flatten
from histo_lightning.config.compose import Composition, Job, config_tree
from histo_lightning.config.identity import readable_name
from histo_lightning.config.schema import Config
from histo_lightning.config.targets import import_modules
from histo_lightning.errors import UserError
from histo_lightning.report.index import refresh_index
from histo_lightning.runs import RunFolder, choose_folder, read_json, write_json
from histo_lightning.training.checks import factor_names
from histo_lightning.training.run import identity_of, prepare_data, run_training
from histo_lightning.training.sweep_display import SweepWatch
from histo_lightning.training.sweep_folder import SweepFolder, plan_of

PARALLEL = ("joblib", "submitit_local", "ray")  # launchers that run several jobs at once on one machine
DEPTH_REFERENCE = "resnet18"
Jobs = dict[str, Job]


def jobs_at_once() -> int:
    """How many jobs one machine runs at a time: as many as GPUs where there are any, else as cores."""
    return visible_gpus() or cores()


OmegaConf.register_new_resolver("jobs_at_once", jobs_at_once, replace=True)
OmegaConf.register_new_resolver("visible_gpus", visible_gpus, replace=True)


def sweep(command: Composition) -> int:
    """Run a sweep and write its results, also where jobs failed or Ctrl-C ended it.

    Returns:
        How many jobs are not finished; each is named on stderr with its reason, the count in the last line.

    Raises:
        UserError, KeyboardInterrupt: as :func:`run_sweep`.
    """
    jobs: Jobs = {}
    for job in command.jobs:
        assert isinstance(job.config, Config)
        jobs.setdefault(readable_name(job.config), job)  # without those that say the same thing twice
    folder = SweepFolder.of(_config(next(iter(jobs.values()))))
    try:
        run_sweep(command, jobs, folder)
    except KeyboardInterrupt:
        write_results(folder, jobs, pictures=False)
        raise
    write_results(folder, jobs, pictures=True)
    return say_failures(folder, jobs)


def _config(job: Job) -> Config:
    assert isinstance(job.config, Config)
    return job.config


def write_results(folder: SweepFolder, jobs: Jobs, *, pictures: bool) -> None:
    """Pictures of the runs, then ``results.csv``, ``results.md`` and ``report.html`` of the sweep."""
    first = _config(next(iter(jobs.values())))
    shown = first.trainer.progress != "none"
    if pictures:
        from histo_lightning.training.sweep_pictures import draw_missing

        for line in draw_missing(finished_runs(folder, jobs), shown):
            print(line, file=sys.stderr)
    results = compare_runs([folder.path], folder.path, formats=first.report.formats)
    if first.json:
        write_json(Path(first.json), results)
    study = write_leakage_study(folder.path)
    refresh_index(Path(first.output_dir))
    if not shown:
        print(f"report: {folder.path / 'report.html'}")
    elif study is not None:
        for words in read_json(folder.path / "leakage.json")["words"].values():
            print(words)
        for path in (study, folder.path / "leakage.md", folder.path / "results.csv"):
            print(path)
    else:
        print_comparison(results, folder.path, unfinished=False)


def run_sweep(command: Composition, jobs: Jobs, folder: SweepFolder) -> None:
    """Run every unfinished job of a sweep; what became of each is in its run folder.

    Raises:
        UserError: nothing can run (no data, no permission, a launcher that is not there).
        KeyboardInterrupt: Ctrl-C or SIGTERM; jobs that were running say ``interrupted``.
    """
    _check_launcher(command.launcher, jobs)
    folder.write_plan(plan_of(command.overrides, jobs, comparison_of(jobs)))
    waiting = _unfinished(jobs, folder)
    for name, config in _placed(waiting, command.launcher).items():
        folder.write_job(name, config, waiting[name].hydra)
    with SweepWatch(
        folder, list(jobs), list(waiting), shown=_config(next(iter(jobs.values()))).trainer.progress != "none"
    ):
        if waiting:
            _launch(command, folder, list(waiting))


def _launch(command: Composition, folder: SweepFolder, names: list[str]) -> None:
    """Let Hydra's launcher run the jobs. An engine that breaks down (joblib, when a worker is killed) loses no results."""
    from hydra_plugins.histo_lightning_sweeps.sweeper import jobs_to_launch

    os.environ["HYDRA_FULL_ERROR"] = "1"
    launcher = [
        override
        for override in command.overrides
        if override.lstrip("+").startswith(("hydra/launcher", "hydra.launcher"))
    ]
    if command.launcher != "basic" and not any("hydra/launcher" in override for override in launcher):
        launcher.insert(0, f"hydra/launcher={command.launcher}")  # an experiment's file chose it
    path = str(folder.path).replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${")
    try:
        with config_tree(), jobs_to_launch([[f"sweep='{path}'", f"job='{name}'"] for name in names]):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            returns = hydra.multirun(
                "job", run_job, [*launcher, f"sweep='{path}'"], with_log_configuration=False
            )
            for one in returns or []:
                if (
                    isinstance(one, JobReturn)
                    and one.status == JobStatus.FAILED
                    and isinstance(one._return_value, Exception)
                ):
                    print(f"a job could not be started: {one._return_value}", file=sys.stderr)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(str(error).strip().splitlines()[0]) from error
    except UserError:
        raise
    except (
        Exception
    ) as error:  # of whatever type the engine has; the jobs' own errors are recorded, not raised
        reason = str(error).strip().splitlines()
        print(f"the launcher stopped: {type(error).__name__}: {reason[0] if reason else ''}", file=sys.stderr)


def _check_launcher(launcher: str, jobs: Jobs) -> None:
    if not launcher.startswith("submitit") and any(
        _config(job).trainer.strategy == "ddp" for job in jobs.values()
    ):
        raise UserError(
            f"trainer=ddp with -m and hydra/launcher={launcher}: several processes a job run through "
            "hydra/launcher=submitit_local or submitit_slurm only"
        )


def comparison_of(jobs: Jobs) -> dict[str, Any]:
    """What the sweep compares: fixed before its first job."""
    study = _config(next(iter(jobs.values()))).study
    levels = list(dict.fromkeys(level_of(_config(job), study.factor) for job in jobs.values()))
    reference = study.reference and level_text(study.reference)
    if reference is None:
        reference = DEPTH_REFERENCE if DEPTH_REFERENCE in levels else levels[0]
    elif reference not in levels:
        raise UserError(f"study.reference={reference}: is not among the sweep's {', '.join(levels)}")
    return {"factor": study.factor, "reference": reference, "score": study.score, "levels": levels}


def level_of(config: Config, factor: str) -> str:
    """The value of a key (``epochs``) or the choice of a group (``model``) in a config, as text."""
    values = dict(flatten(asdict(config)))
    for name in (factor, f"{factor}.name", factor.replace("trainer.", "trainer.flags.", 1)):
        if name in values:
            return value_text(values[name])
    raise UserError(
        f"study.factor={factor}: not every job has it; it is one of {', '.join(factor_names(config)[:20])}, ..."
    )


def _unfinished(jobs: Jobs, folder: SweepFolder) -> Jobs:
    """The jobs still to do. Data is prepared here, once for each way to cut it.

    Raises:
        UserError: no job's data can be prepared.
    """
    prepared: dict[str, dict[str, str] | UserError] = {}
    waiting: Jobs = {}
    for name, job in jobs.items():
        config = _config(job)
        key = _data_key(config)
        if key not in prepared:
            try:
                prepared[key] = identity_of(config, prepare_data(config))
            except UserError as error:
                prepared[key] = error
        found = prepared[key]
        if isinstance(found, UserError):
            folder.fail(name, config, str(found))
            continue
        run = choose_folder(folder.path, name, config.resume, found | {"config_hash": name[-8:]})
        if run.status.get("state") != "finished":
            waiting[name] = job
    errors = [error for error in prepared.values() if isinstance(error, UserError)]
    if len(errors) == len(prepared):
        raise errors[0]
    return waiting


def _data_key(config: Config) -> str:
    values = flatten(asdict(config))
    ours = ("dataset.", "split.", "augment.", "magnification", "task", "image_size", "cache_dir")
    return repr([item for item in values if item[0].startswith(ours)])


def _placed(jobs: Jobs, launcher: str) -> dict[str, Config]:
    """The configs of jobs, those of one machine placed beside each other: a GPU in turn, a share of the cores."""
    configs = {name: replace(_config(job), json=None) for name, job in jobs.items()}
    gpus, threads = visible_gpus(), max(cores() // jobs_at_once(), 1)
    for turn, (name, config) in enumerate(configs.items()):
        trainer = config.trainer
        trainer = replace(trainer, progress="none" if trainer.progress == "auto" else trainer.progress)
        if launcher in PARALLEL:
            trainer = replace(trainer, threads=trainer.threads or threads)
            if gpus and launcher != "ray" and trainer.accelerator != "cpu":  # Ray hands them out itself
                trainer = replace(trainer, gpu=turn % gpus)
        configs[name] = replace(config, trainer=trainer)
    return configs


def run_job(composed: DictConfig) -> None:
    """One job, in whichever process the launcher chose. What goes wrong is recorded and stops no other job."""
    folder, name = SweepFolder(Path(str(composed.sweep))), str(composed.job)
    config, hydra = folder.read_job(name)
    try:
        import_modules(config.imports)
        run_training(config, folder.path, hydra, pictures=False, wait=True)
    except UserError as error:
        run = folder.run_of(name)
        if run.status.get("state") not in ("failed", "finished", "running"):  # it had no folder yet
            folder.fail(name, config, str(error))
    except Exception:  # recorded in its folder, with its reason
        return


def say_failures(folder: SweepFolder, jobs: Mapping[str, Job]) -> int:
    """Print why jobs are not finished, then how many; that number."""
    failed: dict[str, RunFolder] = {}
    for name in jobs:
        run = folder.run_of(name)
        if run.state != "finished":
            failed[name] = run
    for name, run in failed.items():
        reason = run.status.get("error") or (
            "its process was killed" if run.state == "interrupted" else "never started"
        )
        print(f"{run.state}: {name}: {reason}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(jobs)} jobs failed; the same command runs them again", file=sys.stderr)
    return len(failed)


def finished_runs(folder: SweepFolder, jobs: Mapping[str, Job]) -> list[Path]:
    """The run folders of the finished jobs."""
    runs = [folder.run_of(name) for name in jobs]
    return [run.path for run in runs if run.state == "finished"]
