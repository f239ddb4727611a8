"""Checkpoints that are whole or absent: ``best.ckpt`` and ``last.ckpt``, nothing else."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from lightning_fabric.utilities.types import _PATH
from pytorch_lightning.callbacks import ModelCheckpoint

from histo_lightning.errors import UserError


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the body is done.

    An exception raised inside ``torch.save`` comes out of its C++ writer as a RuntimeError, like a full disk.
    """
    if threading.current_thread() is not threading.main_thread():  # signals only ever reach the main one
        yield
        return
    arrived: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: arrived.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if arrived:
            signal.raise_signal(arrived[0])


def save_atomic(checkpoint: dict[str, Any], path: Path) -> None:
    """``torch.save`` to a temporary file, fsync, rename; raise UserError where the disk is full or closed to us."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _uninterrupted():
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"{path}: the checkpoint cannot be written ({error}); free space, the same command goes on"
        ) from error


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written with fsync and rename."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        save_atomic(checkpoint, Path(path))


def checkpoints(folder: Path, monitor: str, mode: str) -> list[ModelCheckpoint]:
    """Best epoch by ``monitor`` (the first one of equals); and the last, written after it at the end of every epoch.

    Two callbacks, because ``save_last=True`` writes only when the best changes.
    """
    shared: dict[str, Any] = {
        "dirpath": folder,
        "auto_insert_metric_name": False,
        "enable_version_counter": False,  # else a reused folder gets best-v1.ckpt
        "save_on_train_epoch_end": True,
    }
    best = ModelCheckpoint(filename="best", monitor=monitor, mode=mode, save_top_k=1, **shared)
    return [best, ModelCheckpoint(filename="last", monitor=None, save_top_k=1, **shared)]
