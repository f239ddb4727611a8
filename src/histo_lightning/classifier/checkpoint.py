"""Checkpoint files: read safely, written in one step or not at all."""

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from lightning_fabric.utilities.types import _PATH
from torch import nn

from histo_lightning.classifier.contents import check_archive, check_values
from histo_lightning.config.exits import signals_held
from histo_lightning.errors import UserError
from histo_lightning.runs.files import replacing, write_atomic
from histo_lightning.runs.manifest import check_file, digest_of, list_checkpoint, unlist_checkpoint

CHECKPOINT_FORMAT = 2
FIT_STATE = (
    *("optimizer_states", "lr_schedulers", "callbacks", "loops"),
    *("current_model_state", "averaging_state"),
)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint of ours safely, on the CPU; UserError where it is missing, damaged, or of another format."""
    file = Path(path)
    if not file.is_file():
        raise UserError(f"{file}: no such checkpoint; give a run's checkpoints/best.ckpt")
    listed = check_file(file)
    try:
        check_archive(file, sums=not listed)
        checkpoint: Any = torch.load(file, map_location="cpu", weights_only=True)
        check_values(checkpoint)
    except Exception as error:  # any bytes may be in the file, and unpickling raises what it likes
        reason = [*str(error).splitlines(), type(error).__name__][0][:120]
        raise UserError(f"{file}: cannot be read as a checkpoint ({reason})") from error
    about = checkpoint.get("histo_lightning") if isinstance(checkpoint, dict) else None
    if not isinstance(about, dict) or "hyper_parameters" not in checkpoint:
        raise UserError(f"{file}: not a checkpoint of histo_lightning; plain weights go to model.weights")
    if about.get("format") != CHECKPOINT_FORMAT:
        problem = f"its format is {about.get('format')}, this version reads {CHECKPOINT_FORMAT}"
        raise UserError(f"{file}: {problem}; use histo_lightning {about.get('version')}")
    return dict(checkpoint)


def load_state(module: nn.Module, state: dict[str, Any], path: str | Path) -> None:
    """Load weights strictly; raise UserError that names the first parameter that does not fit."""
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        problem = next((line.strip() for line in str(error).splitlines()[1:] if line.strip()), error)
        advice = "use the same model, head and stem"
        raise UserError(f"{path}: its weights do not fit this network ({problem}); {advice}") from error


def save_atomic(checkpoint: dict[str, Any], path: Path) -> None:
    """``torch.save`` in one step, listed in its run's manifest; UserError where it fails."""
    try:
        # An exception of a signal's handler comes out of the C++ writer of torch.save like a full disk.
        with signals_held(), replacing(path) as file:
            torch.save(checkpoint, file)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
            list_checkpoint(path, file.tell(), digest)
        digest_of(path, digest)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        reason = "no space left on device" if "unexpected pos" in str(error) else error
        problem = f"the checkpoint cannot be written ({reason}); free space, the same command goes on"
        raise UserError(f"{path}: {problem}") from error


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written with fsync and rename."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any = None) -> None:
        save_atomic(checkpoint, Path(path))


def link_checkpoint(source: Path, target: Path) -> None:
    """Give a checkpoint a second name in its folder, in one step; a copy where the file system knows no links."""
    draft, digest = target.with_name(f".{target.name}.{os.getpid()}.tmp"), digest_of(source)
    with signals_held():
        list_checkpoint(target, source.stat().st_size, digest)
        try:
            os.link(source, draft)
            draft.replace(target)
        except OSError:
            write_atomic(target, source.read_bytes())
        digest_of(target, digest)


def weights_only(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint without what only a resumed training would read."""
    return {name: value for name, value in checkpoint.items() if name not in FIT_STATE}


def keep_weights(scored: Path, *, stripped: bool) -> None:
    """Leave of a finished run's checkpoints the scored one, ``stripped`` already or not of what a resumed training would read."""
    if not stripped:
        save_atomic(weights_only(read_checkpoint(scored)), scored)
    last = scored.with_name("last.ckpt")
    unlist_checkpoint(last)
    last.unlink()
