"""Runs on several processes: which one this is, and the folder that they share."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from histo_lightning.config.exits import EXIT_INTERRUPTED
from histo_lightning.errors import UserError
from histo_lightning.runs import RunFolder

FOLDER = "HISTO_RUN_FOLDER"  # where the first process works; the others are started with it
RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")  # torchrun and submitit, Slurm, Lightning's launcher
PATIENCE_SECONDS = 300.0


def rank() -> int:
    """The number of this process among those of the run; 0 where it is the only one, or the first."""
    return next((int(os.environ[name]) for name in RANKS if os.environ.get(name, "").isdigit()), 0)


@contextmanager
def first_of_several(folder: Path) -> Iterator[None]:
    """In the first process: give the others the folder; leave no trace of them in the environment afterwards."""
    names = {FOLDER, "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} - set(os.environ)
    os.environ[FOLDER] = str(folder.resolve())
    try:
        yield
    finally:
        leave_group()
        for name in names:
            os.environ.pop(name, None)


def leave_group() -> None:
    """Close the connections between the processes: one that ends with them open may end with a status that is not 0."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def folder_of_first(parent: Path, name: str) -> Path:
    """In another process: the folder of the first one, which is waited for where Lightning did not start this process."""
    if FOLDER in os.environ:
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
        return Path(os.environ[FOLDER])
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        for path in sorted(parent.glob(f"{name}*"), reverse=True):
            run = RunFolder(path)
            if run.alive and run.status.get("state") == "running":
                return path
        time.sleep(0.5)
    raise UserError(f"{parent / name}: the first process has not begun its run; look at its messages")


def _end_with_parent(parent: int) -> None:
    """A process whose command was killed would work on unseen, without its lock."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(EXIT_INTERRUPTED)
