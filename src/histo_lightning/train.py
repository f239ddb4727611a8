"""``python -m histo_lightning.train``: one run, or with ``-m`` a sweep of runs."""

import signal
import sys
from pathlib import Path
from typing import Any

from histo_lightning.launch import EXIT_FOUND, guard, launch
from histo_lightning.schema import Config


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupt)  # a stopped job goes on later, like one ended by Ctrl-C
    failures = [outcome for outcome in launch("train", run) if outcome is not None]
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    if failures:
        print(
            f"{len(failures)} job(s) of the sweep failed; the same command runs them again", file=sys.stderr
        )
    return EXIT_FOUND if failures else 0


def run(config: Config, hydra: dict[str, str], in_sweep: bool) -> str | None:
    """One job. In a sweep a job that fails says why and the others go on."""
    from histo_lightning.errors import UserError
    from histo_lightning.training import (
        run_training,
    )  # torch and Lightning take seconds: not for --help or a typo

    parent = Path(config.output_dir) / (f"sweeps/{config.sweep_name}" if in_sweep else "runs")
    try:
        run_training(config, parent, hydra)
    except Exception as error:
        if not in_sweep:
            raise
        return str(error) if isinstance(error, UserError) else f"defect: {type(error).__name__}: {error}"
    return None


if __name__ == "__main__":
    sys.exit(guard(main))
