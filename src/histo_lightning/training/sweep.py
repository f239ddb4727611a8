"""A sweep: data prepared once, finished jobs left alone, the others launched, and results at the end also after failures."""

import gc
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from histo_lightning.classifier.hardware import cores, visible_gpus
from histo_lightning.comparison.leakage import write_leakage_study
from histo_lightning.comparison.results import compare_runs
from histo_lightning.comparison.settings import level_text, value_text
from histo_lightning.config.checks import flatten
from histo_lightning.config.compose import Composition, config_tree, one_line, quoted
from histo_lightning.config.exits import signals_held, stop_on_signals
from histo_lightning.config.identity import readable_name
from histo_lightning.config.schema import Config
from histo_lightning.config.targets import import_modules
from histo_lightning.errors import UserError
from histo_lightning.report.index import refresh_index
from histo_lightning.report.summaries import print_comparison
from histo_lightning.runs import choose_folder, read_json, write_json
from histo_lightning.runs.manifest import check_file, renew, write_manifest
from histo_lightning.training.checks import factors
from histo_lightning.training.cost import Sizes, cost_line
from histo_lightning.training.run import draw_missing, identity_of, prepare_data, run_training
from histo_lightning.training.sweep_folder import Jobs, SweepFolder, watched

PARALLEL = ("joblib", "submitit_local", "ray")  # launchers that run several jobs at once on one machine
_between_jobs = ExitStack()  # holds signals back in a process of joblib
DATA_KEYS = ("dataset.", "split.", "augment.", "magnification", "task", "image_size", "cache_dir")


def jobs_at_once(per_gpu: int = 1) -> int:
    """How many jobs one machine runs at a time: ``per_gpu`` on each GPU if there are any, else as many as cores, if the memory is enough."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return visible_gpus() * per_gpu or max(min(cores(), int(memory / 2e9)), 1)  # 2 GB a job


OmegaConf.register_new_resolver("jobs_at_once", jobs_at_once, replace=True)


def sweep(command: Composition) -> int:
    """Run a sweep, and write its results also where jobs failed or Ctrl-C ended it; the number of unfinished jobs."""
    jobs: Jobs = {}
    for job in command.jobs:
        jobs.setdefault(readable_name(job.config), job)  # the same settings once
    first = command.jobs[0].config
    folder = SweepFolder(Path(first.output_dir) / "sweeps" / first.sweep_name)
    try:
        run_sweep(command, jobs, folder)
    except KeyboardInterrupt:
        write_results(folder, [], first)  # without pictures
        raise
    return write_results(folder, list(jobs), first) + print_failures(folder, jobs)


def write_results(folder: SweepFolder, drawn: Sequence[str], first: Config) -> int:
    """Pictures of the runs ``drawn``, then ``results.csv``, ``results.md`` and ``report.html`` of the sweep; how many runs are damaged."""
    shown = first.trainer.progress != "none"
    finished = [run.path for run in map(folder.run_of, drawn) if run.state == "finished"]
    for line in draw_missing(finished, shown):
        print(line, file=sys.stderr)
    results = compare_runs([folder.path], folder.path, formats=first.report.formats)
    if first.json:
        write_json(Path(first.json), results)
    study = write_leakage_study(folder.path)
    write_manifest(folder.path)
    broken = [row for row in results["unfinished"] if row["state"] == "damaged"]
    for row in broken:
        print(f"damaged: {row['run']}: {row['error']}", file=sys.stderr)
    refresh_index(Path(first.output_dir))
    if not shown:
        print(f"report: {folder.path / 'report.html'}")
    elif study is not None:
        words = read_json(folder.path / "leakage.json")["words"].values()
        print(*words, study, folder.path / "leakage.md", folder.path / "results.csv", sep="\n")
    else:
        print_comparison(results, folder.path, unfinished=False)
    return len(broken)


def run_sweep(command: Composition, jobs: Jobs, folder: SweepFolder) -> None:
    """Run every unfinished job; the state of each is in its run folder. UserError where nothing can run."""
    command = replace(command, launcher=_chosen(command, jobs))
    several = any(job.config.trainer.strategy == "ddp" for job in jobs.values())
    if several and not command.launcher.startswith("submitit"):
        mend = "several processes a job run through hydra/launcher=submitit_local or submitit_slurm only"
        raise UserError(f"trainer=ddp with -m and hydra/launcher={command.launcher}: {mend}")
    shown = next(iter(jobs.values())).config.trainer.progress != "none"
    check_file(folder.path / "sweep.json")
    renew(folder.path)
    folder.write_plan(command.overrides, jobs, comparison_of(jobs))
    waiting = _unfinished(jobs, folder)
    placed = _placed({name: jobs[name] for name in waiting}, command.launcher)
    for name, config in placed.items():
        folder.write_job(name, config, jobs[name].hydra)
    if waiting and shown and command.launcher != "submitit_slurm":  # whose jobs run elsewhere
        at_once = min(_at_once(jobs), len(waiting)) if command.launcher in PARALLEL else 1
        runs = [(placed[name], sizes) for name, sizes in waiting.items()]
        with suppress(UserError):  # this machine lacks their GPU: each job says so, or runs on another one
            print(cost_line(runs, at_once, folder.path), flush=True)
    with watched(folder, list(jobs), list(waiting)) if shown else nullcontext():
        if waiting:
            _launch(command, folder, list(waiting), next(iter(jobs.values())).config.trainer.jobs_per_gpu)


def _at_once(jobs: Jobs) -> int:
    return jobs_at_once(next(iter(jobs.values())).config.trainer.jobs_per_gpu)


def _chosen(command: Composition, jobs: Jobs) -> str:
    """The launcher that was named, else joblib where many jobs can share the machine: the same whenever a sweep is started again."""
    named = any("hydra/launcher=" in override for override in command.overrides)
    several = any(job.config.trainer.strategy == "ddp" for job in jobs.values())
    free = command.launcher == "basic" and not named and not several
    return "joblib" if free and len(jobs) > 2 * _at_once(jobs) > 2 else command.launcher


def _launch(command: Composition, folder: SweepFolder, names: list[str], per_gpu: int) -> None:
    """Let Hydra's launcher run the jobs. An engine that breaks down (joblib, when a worker is killed) loses no results."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    warnings.filterwarnings("ignore", "A worker stopped while some jobs")  # joblib, of one that has grown
    options = [line for line in command.overrides if line.lstrip("+").startswith("hydra.launcher")]
    options += [f"hydra/launcher={command.launcher}", f"jobs_per_gpu={per_gpu}"]
    options.append(f"sweep={quoted(str(folder.path))}")
    try:
        with one_line(), config_tree():
            loader = GlobalHydra.instance().config_loader()
            config = loader.load_configuration("job", options, RunMode.MULTIRUN)
            context = HydraContext(loader, Callback())  # type: ignore[arg-type]  # the interface of all callbacks
            launcher = Plugins.instance().instantiate_launcher(context, run_job, config)
            overrides = [[options[-1], f"job='{name}'"] for name in names]
            with signals_held(forward=True) if command.launcher == "joblib" else nullcontext():
                done = launcher.launch(overrides, initial_job_idx=0)
            for job in done:
                if job.status == JobStatus.FAILED and isinstance(job._return_value, Exception):
                    print(f"a job left no result: {_first_line(job._return_value)}", file=sys.stderr)
    except UserError:
        raise
    except Exception as error:  # the engine's own: errors of jobs are recorded, not raised
        print(f"the launcher stopped: {type(error).__name__}: {_first_line(error)}", file=sys.stderr)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def comparison_of(jobs: Jobs) -> dict[str, Any]:
    """What the sweep compares: fixed before its first job."""
    study = next(iter(jobs.values())).config.study
    levels = list(dict.fromkeys(level_of(job.config, study.factor) for job in jobs.values()))
    if study.reference is None:
        reference = "resnet18" if "resnet18" in levels else levels[0]
    elif (reference := level_text(study.reference)) not in levels:
        raise UserError(f"study.reference={reference}: is not among the sweep's {', '.join(levels)}")
    return asdict(study) | {"reference": reference, "levels": levels}


def level_of(config: Config, factor: str) -> str:
    """The value of a key (``epochs``) or the choice of a group (``model``) in a config, as text."""
    values = factors(config)
    if factor not in values:
        names = ", ".join(sorted(values)[:20])
        raise UserError(f"study.factor={factor}: not every job has it; it is one of {names}, ...")
    return value_text(values[factor])


def _unfinished(jobs: Jobs, folder: SweepFolder) -> dict[str, Sizes]:
    """The jobs still to do with what each reads; UserError where data, prepared once for all jobs that share it, fails for all."""
    prepared: dict[str, tuple[dict[str, str], Sizes] | UserError] = {}
    waiting: dict[str, Sizes] = {}
    for name, job in jobs.items():
        config: Config = job.config
        settings = [item for item in flatten(asdict(config)) if item[0].startswith(DATA_KEYS)]
        if (key := repr(settings)) not in prepared:
            try:
                data = prepare_data(config)
                train, val, test = (len(data.parts[part].records) for part in ("train", "val", "test"))
                prepared[key] = identity_of(config, data), Sizes(train, val, test, data.evaluation_size)
            except UserError as error:
                prepared[key] = error
        content = prepared[key]
        if isinstance(content, UserError):
            folder.fail(name, config, str(content))
            continue
        identity, sizes = content
        run = choose_folder(folder.path, name, config.resume, identity | {"config_hash": name[-8:]})
        last = run.path / "checkpoints" / "last.ckpt"  # of a finished run: it was killed at its end
        if run.status.get("state") != "finished" or (config.keep != "all" and last.is_file()):
            waiting[name] = sizes
    errors = [error for error in prepared.values() if isinstance(error, UserError)]
    if len(errors) == len(prepared):
        raise errors[0]
    return waiting


def _placed(jobs: Jobs, launcher: str) -> dict[str, Config]:
    """The configs of jobs; those of one machine share it: a GPU in turn, a part of the cores."""
    gpus, threads = visible_gpus(), max(cores() // _at_once(jobs), 1)
    configs: dict[str, Config] = {}
    for turn, (name, job) in enumerate(jobs.items()):
        trainer = job.config.trainer
        if trainer.progress == "auto":
            trainer = replace(trainer, progress="none")
        if launcher in PARALLEL:
            trainer = replace(trainer, threads=trainer.threads or threads)
            if gpus and launcher != "ray" and trainer.accelerator != "cpu":  # Ray hands them out itself
                trainer = replace(trainer, gpu=turn % gpus)
        configs[name] = replace(job.config, json=None, trainer=trainer, keep=job.config.keep or "weights")
    return configs


def run_job(composed: DictConfig) -> None:
    """One job, in the process that the launcher started. What goes wrong is recorded and stops no other job."""
    folder, name = SweepFolder(Path(str(composed.sweep))), str(composed.job)
    config, hydra = folder.read_job(name)
    one_of_many = HydraConfig.get().runtime.choices["hydra/launcher"] == "joblib"
    try:
        _between_jobs.close()
        if stop_on_signals() and one_of_many:
            return  # so does each of its jobs, until none is left
        import_modules(config.imports)
        run_training(config, folder.path, hydra, pictures=False, wait=True)
    except UserError as error:
        if folder.run_of(name).status.get("state") not in ("failed", "finished", "running"):  # no folder yet
            folder.fail(name, config, str(error))
    except Exception:  # recorded in its folder, with its reason
        return
    except KeyboardInterrupt:  # raised, joblib would kill the others before they are done
        if not one_of_many:
            raise
    finally:
        if one_of_many:
            _between_jobs.enter_context(signals_held())
        gc.collect()  # a trainer and its modules refer to each other: pixels and weights would stay


def print_failures(folder: SweepFolder, jobs: Jobs) -> int:
    """Print why jobs are not finished, then how many; that number."""
    unfinished = {name: run for name in jobs if (run := folder.run_of(name)).state != "finished"}
    for name, run in unfinished.items():
        absent = "its process was killed" if run.state == "interrupted" else "never started"
        print(f"{run.state}: {name}: {run.status.get('error') or absent}", file=sys.stderr)
    if failed := len(unfinished):
        print(f"{failed} of {len(jobs)} jobs failed; the same command runs them again", file=sys.stderr)
    return failed
