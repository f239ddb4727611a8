"""``python -m histo_lightning.tune``: search for hyper-parameters on one fold's validation set."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from histo_lightning.config.command_line import read_command
from histo_lightning.config.exits import EXIT_FOUND, start_program, stop_on_signals
from histo_lightning.errors import UserError
from histo_lightning.training.checks import check_runs


def check(configs: Sequence[Any]) -> None:
    """Check the runs of every study, and what it searches."""
    try:
        from histo_lightning.tuning.space import check_tuning  # Optuna: not for --help or a typo
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "optuna":
            raise
        raise UserError("tune: needs Optuna; pip install 'histo-lightning[tune]'") from error
    for config in configs:
        check_tuning(config)
    check_runs(configs)


def main() -> int:
    stop_on_signals()
    command = read_command("tune", check)
    if command is None:
        return 0
    from histo_lightning.report.index import refresh_index
    from histo_lightning.tuning.study import tune  # as above

    failed = 0
    for job in command.jobs:
        output = Path(job.config.output_dir)
        failed += tune(job.config, output / "studies", job.hydra)
        refresh_index(output)
    if failed:
        print(f"{failed} trial(s) failed; trials.csv says why", file=sys.stderr)
    return EXIT_FOUND if failed else 0


start_program(main, __name__)
