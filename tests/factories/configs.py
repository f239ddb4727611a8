"""Command lines read as the front doors read them, without a process."""

import sys
from copy import deepcopy
from functools import cache
from typing import Any
from unittest import mock

from histo_lightning.config.command_line import read_command
from histo_lightning.config.compose import Composition
from histo_lightning.config.schema import Config
from histo_lightning.training.checks import check_runs


def read_line(*arguments: str, command: str = "train", check: Any = check_runs) -> Composition:
    """What a command makes of its arguments; for ``train`` all jobs are checked."""
    with mock.patch.object(sys, "argv", [command, *arguments]):
        read = read_command(command, check if command == "train" else None)
    assert read is not None
    return read


def configs_of(*arguments: str) -> list[Config]:
    """The configs of all jobs of a line of ``train``, built from, not tried out."""
    return [job.config for job in read_line(*arguments, check=None).jobs]  # type: ignore[misc]


def composed(*overrides: str) -> Config:
    """The config of one run, not tried out."""
    return deepcopy(_composed(overrides))


@cache
def _composed(overrides: tuple[str, ...]) -> Config:
    (config,) = configs_of(*overrides)
    return config
