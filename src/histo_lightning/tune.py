"""``python -m histo_lightning.tune``: search for hyper-parameters on one fold's validation part."""

import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from histo_lightning.config.command_line import launch
from histo_lightning.config.exits import EXIT_FOUND, guard
from histo_lightning.config.schema import TuneConfig
from histo_lightning.errors import UserError


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def run(config: TuneConfig) -> int:
    """One study; returns how many of its trials failed."""
    if find_spec("optuna") is None:
        raise UserError("tune: needs Optuna; pip install 'histo-lightning[tune]'")
    from histo_lightning.tuning.study import tune  # Optuna and torch: not for --help or a typo

    return tune(config, Path(config.output_dir) / "studies", hydra)


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupt)  # a stopped search goes on later, like one ended by Ctrl-C
    failed = sum(launch("tune", run))
    if failed:
        print(f"{failed} trial(s) failed; trials.csv says why", file=sys.stderr)
    return EXIT_FOUND if failed else 0


if __name__ == "__main__":
    sys.exit(guard(main))
