"""The sweeper: hands the jobs that the front door has expanded, checked and found unfinished to Hydra's launcher."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

_JOBS: ContextVar[Sequence[Sequence[str]]] = ContextVar("jobs of the sweep")


@contextmanager
def jobs_to_launch(jobs: Sequence[Sequence[str]]) -> Iterator[None]:
    """Within this context a :class:`JobSweeper` launches these jobs; each is a list of overrides."""
    token = _JOBS.set(jobs)
    try:
        yield
    finally:
        _JOBS.reset(token)


class JobSweeper(BasicSweeper):
    """Hydra's basic sweeper, but for what the front door has done already.

    ``products`` is a list of sweeps (key to values, as in ``params``) whose jobs stand in one sweep folder: a study of
    several arms is no product of its keys. A job that fails raises nothing here, so the others run.
    """

    def __init__(
        self,
        max_batch_size: int | None = None,
        params: dict[str, str] | None = None,
        products: Sequence[dict[str, str]] | None = None,
    ) -> None:
        super().__init__(max_batch_size, params)
        self.products = products

    def sweep(self, arguments: list[str]) -> Any:
        assert self.launcher is not None
        assert self.config is not None
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        jobs = _JOBS.get()
        return self.launcher.launch([list(job) for job in jobs], initial_job_idx=0) if jobs else []
