"""The sweeper: hands the jobs that the front door has expanded, checked and found unfinished to Hydra's launcher."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

_JOBS: ContextVar[Sequence[Sequence[str]]] = ContextVar("jobs of the sweep")


@contextmanager
def jobs_to_launch(jobs: Sequence[Sequence[str]]) -> Iterator[None]:
    """Within this context a :class:`JobSweeper` launches these jobs; each is a list of overrides."""
    token = _JOBS.set(jobs)
    try:
        yield
    finally:
        _JOBS.reset(token)


class JobSweeper(Sweeper):
    """Launches the jobs of :func:`jobs_to_launch`; a job that fails raises nothing here, so the others run.

    ``params`` (key to values) is a sweep that an experiment's file asks for, ``products`` a list of such sweeps whose jobs
    are in one sweep folder: a study of several arms is no product of its keys. The front door reads both.
    """

    def __init__(
        self,
        max_batch_size: int | None = None,
        params: dict[str, str] | None = None,
        products: Sequence[dict[str, str]] | None = None,
    ) -> None:
        self.params, self.products = params, products
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        assert self.launcher is not None
        assert self.config is not None
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        return self.launcher.launch([list(job) for job in _JOBS.get()], initial_job_idx=0)
