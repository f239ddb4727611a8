"""``python -m histo_lightning.train``: one run, or with ``-m`` a sweep of runs."""

import signal
import sys
from pathlib import Path
from typing import Any

from histo_lightning.launch import EXIT_FOUND, guard, read_command, run_here
from histo_lightning.schema import Config


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def run(config: Config, hydra: dict[str, str]) -> None:
    """One run."""
    from histo_lightning.training import run_training  # torch and Lightning take seconds: not for a typo

    run_training(config, Path(config.output_dir) / "runs", hydra)


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupt)  # a stopped job goes on later, like one ended by Ctrl-C
    command = read_command("train")
    if not command.multirun:
        run_here("train", run)
        return 0
    from histo_lightning.sweeping import sweep  # as above

    return EXIT_FOUND if sweep(command) else 0


if __name__ == "__main__":
    sys.exit(guard(main))
