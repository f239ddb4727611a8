"""Launchers on existing engines, where the plugins' own lose the other jobs when one is killed.

hydra-submitit-launcher starts every local job at once and stops waiting at the first that dies; hydra-ray-launcher does
the latter too, and needs a cloudpickle that joblib refuses. Engines are submitit and Ray themselves.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher
from omegaconf import DictConfig, OmegaConf, open_dict

from histo_lightning.errors import UserError

SECONDS_BETWEEN_LOOKS = 0.2


def _outcome(wait: Callable[[], Any], overrides: Sequence[str]) -> JobReturn:
    """What a job returned; a failed return where its process was killed or its time was up."""
    try:
        found = wait()
        assert isinstance(found, JobReturn)
        return found
    except (
        Exception
    ) as error:  # whatever the engine raises for a lost job: the job's own file says interrupted
        return JobReturn(overrides=list(overrides), status=JobStatus.FAILED, _return_value=error)


class _SubmititLauncher(BaseSubmititLauncher):
    """Shared by the two: executor and calls as hydra-submitit-launcher makes them."""

    def __init__(self, jobs_at_once: int | None = None, **params: Any) -> None:
        super().__init__(**params)
        self.jobs_at_once = jobs_at_once

    def _executor(self) -> Any:
        import submitit

        own = dict(self.params)
        folder = own.pop("submitit_folder")
        shared = ("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes")
        retries = {"slurm_max_num_timeout": own.pop("max_num_timeout")} if "max_num_timeout" in own else {}
        executor = submitit.AutoExecutor(folder=folder, cluster=self._EXECUTOR, **retries)
        executor.update_parameters(
            **{
                key if key in (*shared, "name", "stderr_to_stdout") else f"{self._EXECUTOR}_{key}": value
                for key, value in own.items()
            }
        )
        return executor

    def _calls(self, job_overrides: Sequence[Sequence[str]], first: int) -> list[tuple[Any, ...]]:
        return [
            (list(overrides), "hydra.sweep.dir", first + i, f"job_{first + i}", Singleton.get_state())
            for i, overrides in enumerate(job_overrides)
        ]


@contextmanager
def _stderr_to(log: Path) -> Iterator[None]:
    """Processes started within write their stderr to ``log``: on Ctrl-C submitit's controllers show tracebacks."""
    log.parent.mkdir(parents=True, exist_ok=True)
    kept = os.dup(2)
    try:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class LocalLauncher(_SubmititLauncher):
    """submitit on this machine, with at most ``jobs_at_once`` processes."""

    _EXECUTOR = "local"

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        executor = self._executor()
        waiting = deque(self._calls(job_overrides, initial_job_idx))
        running: list[Any] = []
        jobs: list[Any] = []
        assert self.config is not None
        log = Path(str(self.config.hydra.sweep.dir)) / ".submitit" / "controllers.log"
        try:
            while waiting or running:
                while waiting and len(running) < (self.jobs_at_once or 1):
                    with _stderr_to(log):
                        jobs.append(executor.submit(self, *waiting.popleft()))
                    running.append(jobs[-1])
                time.sleep(SECONDS_BETWEEN_LOOKS)
                running = [job for job in running if not job.done()]
        except KeyboardInterrupt:  # submitit's processes have survived it: stop them as one stops a run
            for job in running:
                job.cancel()
            raise
        return [_outcome(job.result, overrides) for job, overrides in zip(jobs, job_overrides, strict=True)]


class SlurmLauncher(_SubmititLauncher):
    """submitit on Slurm: one job array; Slurm's ``array_parallelism`` limits how many run at once."""

    _EXECUTOR = "slurm"

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        try:
            executor = self._executor()
        except RuntimeError as error:  # submitit looks for sbatch
            raise UserError(
                f"hydra/launcher=submitit_slurm: {error}; start it on a Slurm login node"
            ) from error
        jobs = executor.map_array(self, *zip(*self._calls(job_overrides, initial_job_idx), strict=True))
        return [
            _outcome(partial(_first_result, job), overrides)
            for job, overrides in zip(jobs, job_overrides, strict=True)
        ]


def _first_result(job: Any) -> Any:
    return job.results()[0]  # of the first of the job's processes


def _run_on_ray(
    context: HydraContext, config: DictConfig, task: TaskFunction, singletons: dict[Any, Any]
) -> JobReturn:
    setup_globals()
    Singleton.set_state(singletons)
    HydraConfig.instance().set_config(config)
    return run_job(
        hydra_context=context,
        task_function=task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


class RayLauncher(Launcher):
    """Ray tasks: ``init`` goes to ``ray.init`` (an ``address`` joins a cluster), ``remote`` to ``ray.remote``."""

    def __init__(self, init: DictConfig, remote: DictConfig) -> None:
        self.init: Any = OmegaConf.to_container(init, resolve=True)
        self.remote: Any = OmegaConf.to_container(remote, resolve=True)
        self.config: DictConfig | None = None
        self.task: TaskFunction | None = None
        self.context: HydraContext | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        try:
            import ray
        except ImportError as error:
            raise UserError(
                "hydra/launcher=ray: Ray is not installed; pip install 'histo-lightning[ray]'"
            ) from error
        assert self.context is not None
        assert self.config is not None
        started = not ray.is_initialized()
        if started:
            ray.init(**self.init)
        run: Any = ray.remote(**self.remote)(_run_on_ray)
        waiting = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = f"job_{number}"
                config.hydra.job.num = number
            waiting.append(run.remote(self.context, config, self.task, Singleton.get_state()))
        try:
            return [
                _outcome(partial(ray.get, job), overrides)
                for job, overrides in zip(waiting, job_overrides, strict=True)
            ]
        finally:
            if started:
                ray.shutdown()
