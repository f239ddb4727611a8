"""``python -m histo_lightning.train``: one run, or with ``-m`` a sweep of runs."""

import signal
import sys
from typing import Any

from histo_lightning.config.command_line import read_command
from histo_lightning.config.exits import EXIT_FOUND, guard
from histo_lightning.config.schema import Config
from histo_lightning.training.checks import check_runs


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupt)  # a stopped job goes on later, like one ended by Ctrl-C
    command = read_command("train", check_runs)
    if command is None:
        return 0
    if command.multirun:
        from histo_lightning.training.sweep import sweep  # torch and Lightning take seconds: not for --help

        return EXIT_FOUND if sweep(command) else 0
    from histo_lightning.training.run import run_training  # as above

    job = command.jobs[0]
    assert isinstance(job.config, Config)
    run_training(job.config, hydra=job.hydra)
    return 0


if __name__ == "__main__":
    sys.exit(guard(main))
