"""``python -m histo_lightning.tune``: search for hyper-parameters on one fold's validation set."""

import signal
import sys
from pathlib import Path
from typing import Any

from histo_lightning.errors import UserError
from histo_lightning.launch import EXIT_FOUND, guard, launch
from histo_lightning.schema import TuneConfig


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def run(config: TuneConfig, hydra: dict[str, str]) -> int:
    """One study; returns how many of its trials failed."""
    from histo_lightning.tuning.study import tune  # torch: not for --help or a typo

    return tune(config, Path(config.output_dir) / "studies", hydra)


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupt)  # a stopped search goes on later, like one ended by Ctrl-C
    try:
        failed = sum(launch("tune", run))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "optuna":
            raise
        raise UserError("tune: needs Optuna; pip install 'histo-lightning[tune]'") from error
    if failed:
        print(f"{failed} trial(s) failed; trials.csv says why", file=sys.stderr)
    return EXIT_FOUND if failed else 0


if __name__ == "__main__":
    sys.exit(guard(main))
