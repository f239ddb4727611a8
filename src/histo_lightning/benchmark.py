"""``python -m histo_lightning.benchmark``: speed against the limit of the hardware and the naive pipeline."""

from importlib import import_module
from pathlib import Path
from typing import Any

import histo_lightning
from histo_lightning.config.command_line import front_door
from histo_lightning.config.schema import BenchmarkConfig

REPOSITORY = str(Path(__file__).resolve().parents[2])


def benchmarks(module: str) -> Any:
    """A module of the benchmarks: they lie in the package (a wheel), else at the repository root."""
    if REPOSITORY not in histo_lightning.__path__:
        histo_lightning.__path__.append(REPOSITORY)
    return import_module(f"histo_lightning.benchmarks.{module}")


def run(config: BenchmarkConfig) -> None:
    """Measure, print the table, write ``json``."""
    benchmarks("suite").run(config)


main = front_door("benchmark", run, __name__)
