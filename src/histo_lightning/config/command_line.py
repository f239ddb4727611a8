"""The command line that every front door shares: its flags, and what they print."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from histo_lightning.config.compose import Composition, config_tree, read_jobs
from histo_lightning.config.exits import start_program
from histo_lightning.config.help import SWEEPING, help_text
from histo_lightning.errors import UserError
from histo_lightning.runs.version import __version__


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise UserError(f"{message} (see --help)")


def _flags(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("-c", "--cfg", choices=("job", "hydra", "all"))
    parser.add_argument("-r", "--resolve", action="store_true")
    parser.add_argument("-p", "--package")
    parser.add_argument("-cd", "--config-dir", action="append", default=[])
    # `~callbacks.x` and `key=-1` are overrides, not flags; flags may be anywhere on the line.
    return parser.parse_intermixed_args(list(arguments))


def read_command(command: str, check: Callable[[Sequence[Any]], None] | None = None) -> Composition | None:
    """Read ``sys.argv``, and ``check`` the configs of all jobs before any work; None where something was printed instead."""
    flags = _flags(sys.argv[1:])
    if flags.version or flags.help:
        print(f"histo_lightning {__version__}" if flags.version else help_text(command, *flags.overrides[:1]))
        return None
    if flags.multirun and command not in SWEEPING:
        raise UserError(f"{command} takes no -m: only {' and '.join(SWEEPING)} do")
    for folder in flags.config_dir:
        if not Path(folder).is_dir():
            raise UserError(f"--config-dir {folder}: no such folder")
    if folders := ",".join(f"file://{Path(folder).resolve()}" for folder in flags.config_dir):
        flags.overrides.append(f"hydra.searchpath=[{folders}]")
    with config_tree():
        read = read_jobs(command, flags.overrides, multirun=flags.multirun)
    if flags.cfg:
        for job in read.jobs:
            print(_shown(job.hydra, flags), end="" if len(read.jobs) == 1 else "---\n")
        return None
    if check is not None:
        check([job.config for job in read.jobs])
    return read


def _shown(texts: dict[str, str], flags: argparse.Namespace) -> str:
    files = {"job": ("config",), "hydra": ("hydra",), "all": ("config", "hydra")}[flags.cfg]
    tree: Any = OmegaConf.merge(*(OmegaConf.create(texts[f"{name}.yaml"]) for name in files))
    if flags.package and flags.package != "_global_":
        tree = OmegaConf.select(tree, flags.package)
        if tree is None:
            raise UserError(f"--package {flags.package}: there is no such key in the config")
    return OmegaConf.to_yaml(tree, resolve=flags.resolve) if OmegaConf.is_config(tree) else f"{tree}\n"


def front_door(command: str, work: Callable[[Any], int | None], module: str) -> Callable[[], int]:
    """The ``main`` of a command: ``work(config)`` for each job, the largest exit status; started where ``module`` is the program itself."""

    def main() -> int:
        read = read_command(command)
        return max((work(job.config) or 0 for job in read.jobs), default=0) if read is not None else 0

    start_program(main, module)
    return main
