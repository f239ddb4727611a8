"""Launchers on submitit and Ray themselves, where the plugins' own lose the other jobs when one is killed."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher
from omegaconf import DictConfig, OmegaConf, open_dict

from histo_lightning.config.exits import SIGNALS
from histo_lightning.errors import UserError

SECONDS_BETWEEN_LOOKS, SECONDS_TO_END = 0.2, 10
Overrides = Sequence[Sequence[str]]  # of each job


def _outcomes(jobs: Sequence[Any], result: Callable[[Any], Any], overrides: Overrides) -> list[JobReturn]:
    """What each job returned; a failed return where its process was killed or its time was up."""
    outcomes = []
    for job, given in zip(jobs, overrides, strict=True):
        try:
            outcomes.append(result(job))
        except Exception as error:  # the engine's own: the job's own file says interrupted
            outcomes.append(JobReturn(list(given), status=JobStatus.FAILED, _return_value=error))
    return outcomes


class _SubmititLauncher(BaseSubmititLauncher):
    """Shared by the two: executor and calls as hydra-submitit-launcher makes them."""

    def __init__(self, jobs_at_once: int = 1, **params: Any) -> None:
        super().__init__(**params)
        self.jobs_at_once = jobs_at_once

    def _executor(self) -> Any:
        import submitit

        own = dict(self.params)
        folder = own.pop("submitit_folder")
        retries = {"slurm_max_num_timeout": own.pop("max_num_timeout")} if "max_num_timeout" in own else {}
        executor = submitit.AutoExecutor(folder=folder, cluster=self._EXECUTOR, **retries)
        shared = BaseQueueConf.__dataclass_fields__
        names = {key: key if key in shared else f"{self._EXECUTOR}_{key}" for key in own}
        executor.update_parameters(**{names[key]: value for key, value in own.items()})
        return executor

    def _calls(self, jobs: Overrides, first: int) -> list[tuple[Any, ...]]:
        return [
            (list(overrides), "hydra.sweep.dir", number, f"job_{number}", Singleton.get_state())
            for number, overrides in enumerate(jobs, start=first)
        ]


@contextmanager
def _stderr_to(log: Path) -> Iterator[None]:
    """Processes started within write their stderr to ``log``: on Ctrl-C submitit's controllers show tracebacks."""
    log.parent.mkdir(parents=True, exist_ok=True)
    stderr = os.dup(2)
    try:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


class LocalLauncher(_SubmititLauncher):
    """submitit on this machine, with at most ``jobs_at_once`` processes."""

    _EXECUTOR = "local"

    def launch(self, job_overrides: Overrides, initial_job_idx: int) -> Sequence[JobReturn]:
        assert self.config is not None
        log = Path(str(self.config.hydra.sweep.dir)) / ".submitit" / "controllers.log"
        executor = self._executor()
        started: list[Any] = []

        def running() -> list[Any]:
            return [job for job in started if not job.done()]

        try:
            for call in self._calls(job_overrides, initial_job_idx):
                with _stderr_to(log):
                    started.append(executor.submit(self, *call))
                while len(running()) >= self.jobs_at_once:
                    time.sleep(SECONDS_BETWEEN_LOOKS)
            while running():
                time.sleep(SECONDS_BETWEEN_LOOKS)
        except KeyboardInterrupt:  # submitit's processes have survived it: stop them as one stops a run
            for job in running():
                with suppress(OSError):  # its processes; submitit would kill them a second later
                    for pid in Path(f"/proc/{job.job_id}/task/{job.job_id}/children").read_text().split():
                        os.kill(int(pid), signal.SIGINT)
            until = time.monotonic() + SECONDS_TO_END
            while running() and time.monotonic() < until:
                time.sleep(SECONDS_BETWEEN_LOOKS)
            for job in running():
                job.cancel()
            raise
        return _outcomes(started, lambda job: job.result(), job_overrides)


def _queue_watcher() -> Any:
    """submitit's watcher of jobs for a Slurm without accounting, where its ``sacct`` fails: it asks ``squeue``."""
    from submitit.slurm.slurm import SlurmInfoWatcher

    class QueueWatcher(SlurmInfoWatcher):
        def _make_command(self) -> list[str] | None:
            waiting = self._registered - self._finished
            return ["squeue", "--me", "--states=all", "--format=%i|%T|%N"] if waiting else None

        def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
            rows = string.decode() if isinstance(string, bytes) else string
            known = super().read_info("\n".join(["JobID|State|NodeList", *rows.splitlines()[1:]]))
            ended = {"State": "COMPLETED", "NodeList": ""}  # so long ago that Slurm has forgotten it
            return {job: known.get(job, ended) for job in self._registered}

    return QueueWatcher(delay_s=60)


class SlurmLauncher(_SubmititLauncher):
    """submitit on Slurm: one job array; Slurm's ``array_parallelism`` limits how many run at once."""

    _EXECUTOR = "slurm"

    def launch(self, job_overrides: Overrides, initial_job_idx: int) -> Sequence[JobReturn]:
        from submitit import SlurmJob
        from submitit.core.utils import FailedJobError

        try:
            executor = self._executor()
        except RuntimeError as error:  # submitit looks for sbatch
            raise UserError(f"hydra/launcher=submitit_slurm: {error}; start on a Slurm login node") from error
        if subprocess.run(["sacct", "--allocations"], capture_output=True).returncode:
            SlurmJob.watcher = _queue_watcher()
        try:
            jobs = executor.map_array(self, *zip(*self._calls(job_overrides, initial_job_idx), strict=True))
        except FailedJobError as error:  # sbatch's own words are its last line
            reason = f"{str(error).strip().splitlines()[-1]}; set hydra.launcher.* for your cluster"
            raise UserError(f"hydra/launcher=submitit_slurm: {reason}") from error
        return _outcomes(jobs, lambda job: job.results()[0], job_overrides)  # of its first process


def _run_on_ray(
    folder: Path, context: HydraContext, config: DictConfig, task: TaskFunction, singletons: Any
) -> JobReturn:
    os.chdir(folder)  # a worker of a cluster starts in the folder of its node
    setup_globals()
    Singleton.set_state(singletons)
    HydraConfig.instance().set_config(config)
    return run_job(task, config, "hydra.sweep.dir", "hydra.sweep.subdir", hydra_context=context)


class RayLauncher(Launcher):
    """Ray tasks: ``init`` goes to ``ray.init`` (an ``address`` joins a cluster), ``remote`` to ``ray.remote``."""

    def __init__(self, init: DictConfig, remote: DictConfig) -> None:
        self.init: Any = OmegaConf.to_container(init, resolve=True)
        self.remote: Any = OmegaConf.to_container(remote, resolve=True)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Overrides, initial_job_idx: int) -> Sequence[JobReturn]:
        try:
            import ray
        except ImportError as error:
            mend = "pip install 'histo-lightning[ray]'"
            raise UserError(f"hydra/launcher=ray: Ray is not installed; {mend}") from error
        started = not ray.is_initialized()
        if started:
            joins = bool(self.init.get("address"))  # a cluster has its own number of cores
            handlers = {each: known for each in SIGNALS if callable(known := signal.getsignal(each))}
            ray.init(**self.init | ({"num_cpus": None} if joins else {}))
            for each, handler in handlers.items():  # Ray's own ends this process at once
                signal.signal(each, handler)
        run: Any = ray.remote(**self.remote)(_run_on_ray)
        jobs = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id, config.hydra.job.num = f"job_{number}", number
            jobs.append(run.remote(Path.cwd(), self.context, config, self.task, Singleton.get_state()))
        try:
            return _outcomes(jobs, ray.get, job_overrides)
        except KeyboardInterrupt:  # in each of its processes too, which end at their next step
            for job in jobs:
                ray.cancel(job)
            ray.wait(jobs, num_returns=len(jobs), timeout=SECONDS_TO_END)
            raise
        finally:
            if started:
                ray.shutdown()
