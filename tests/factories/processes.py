"""What processes of the tests do; a started process imports this, so it imports little."""

import signal
from pathlib import Path
from typing import Any

from histo_lightning.runs import RunFolder


def hold_run(path: Path, ready: Any) -> None:
    """Work in a run folder until killed."""
    run = RunFolder(path)
    with run.locked(), run.recorded():
        ready.set()
        signal.pause()
