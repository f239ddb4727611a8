"""What ``export`` does: write a model file, compare it with the checkpoint, put it in place with ``metadata.json``."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from histo_lightning.config.schema import ExportConfig
from histo_lightning.display import console
from histo_lightning.errors import UserError
from histo_lightning.export_formats import FORMATS, Runner
from histo_lightning.export_subject import OUTPUTS, Subject, describe, export_name, load_subject
from histo_lightning.runs import read_json, write_atomic, write_json

TOLERANCE = 1e-4  # largest difference of a probability; what is meant to differ is rounding, about 1e-7
METADATA = "metadata.json"
PATCH = 8  # pixels a side of the squares in a test image: noise of single pixels would average out


@dataclass(frozen=True)
class Export:
    """A whole export: its folder, the model file in it, and what ``metadata.json`` says."""

    folder: Path
    model: Path
    metadata: dict[str, Any]


def export(config: ExportConfig) -> Export:
    """Write ``<output_dir>/exports/<name>/``, whole or not at all.

    Models of the same checkpoint in other formats stay beside the new one; an export of another checkpoint under
    the same name is replaced.

    Raises:
        UserError: an optional package is missing, the checkpoint cannot be used, the folder cannot be written, or
            the model's probabilities differ from the checkpoint's by more than ``TOLERANCE``.
    """
    form = FORMATS[config.format]
    form.require(config.format)
    if not config.checkpoint:
        raise UserError("checkpoint= is missing: give a run's checkpoints/best.ckpt")
    checkpoint = Path(config.checkpoint)
    subject = load_subject(checkpoint)
    folder = Path(config.output_dir) / "exports" / export_name(config.run_name, checkpoint)
    _refuse_foreign(folder)
    facts = describe(subject, config.format, form.packages, _sha256(checkpoint))
    with _replaced(folder) as new:
        model = new / form.file
        content, added = form.build(subject, facts)
        write_atomic(model, content)
        metadata = (
            facts
            | added
            | {
                "file": form.file,
                "bytes": model.stat().st_size,
                "sha256": _sha256(model),
                "parity": parity(form.reader(model, subject), subject),
            }
        )
        metadata["other_files"] = _keep_others(folder, new, metadata)
        write_json(new / METADATA, metadata)
    done = Export(folder, folder / form.file, metadata)
    if config.json:
        write_json(Path(config.json), as_json(done))
    return done


def parity_images(subject: Subject) -> Iterator[tuple[str, Tensor]]:
    """Batches to compare on: a name and uint8 B x H x W x 3, the same ones at every export."""
    generator = torch.Generator().manual_seed(0)
    height, width = subject.height, subject.width

    def patches(batch: int, height: int, width: int) -> Tensor:
        shape = (batch, -(-height // PATCH), -(-width // PATCH), 3)
        colours = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        large = colours.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)
        return large[:, :height, :width].contiguous()

    for batch in (1, 2, 5):
        yield f"{batch} random", patches(batch, height, width)
    yield "1 black", torch.zeros(1, height, width, 3, dtype=torch.uint8)
    yield "1 white", torch.full((1, height, width, 3), 255, dtype=torch.uint8)
    if subject.any_size:
        yield "2 random of another size", patches(2, height + 13, width + 6)


def parity(run: Runner, subject: Subject) -> dict[str, Any]:
    """Largest absolute differences from the classifier; raise UserError above ``TOLERANCE`` or where it is undefined."""
    worst = {name: torch.zeros(()) for name in OUTPUTS}
    batches = []
    for name, images in parity_images(subject):
        batches.append(f"{name}: {list(images.shape)}")
        with torch.no_grad():
            for output, ours, theirs in zip(OUTPUTS, subject.reference(images), run(images), strict=True):
                if ours.shape != theirs.shape:
                    raise UserError(
                        f"parity: {output} have the shape {list(theirs.shape)}, not {list(ours.shape)}"
                    )
                worst[output] = torch.maximum(worst[output], (ours - theirs).abs().max())  # keeps a NaN
    found = {name: float(value) for name, value in worst.items()}
    if not found["probabilities"] <= TOLERANCE:
        raise UserError(
            f"parity: probabilities differ from the checkpoint's by {found['probabilities']:.3g}, allowed is "
            f"{TOLERANCE:g}; nothing was written: use format=safetensors, or other versions of the exporter"
        )
    return {"largest_difference": found, "tolerance": TOLERANCE, "batches": batches}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_foreign(folder: Path) -> None:
    """Raise UserError where replacing ``folder`` would delete something that is no export."""
    ours = {METADATA, *(form.file for form in FORMATS.values())}
    if folder.is_dir():
        foreign = sorted(path.name for path in folder.iterdir() if path.name not in ours)
        if foreign:
            raise UserError(
                f"{folder}: holds {foreign[0]}, which is no part of an export; choose another run_name"
            )


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of ``folder`` when the body is done; else nothing has changed."""
    new, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    try:
        new.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); choose another output_dir") from error
    try:
        yield new
        _swap(new, folder, old)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror or error}); free space or choose output_dir"
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _swap(new: Path, folder: Path, old: Path) -> None:
    if not folder.exists():
        new.rename(folder)
        return
    folder.rename(old)  # a folder with content cannot be renamed over
    try:
        new.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _keep_others(folder: Path, new: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Carry over what ``folder`` holds of the same checkpoint in other formats: metadata by file name."""
    before = read_json(folder / METADATA)
    known = {before.get("file"): before, **(before.get("other_files") or {})}
    kept = {}
    for name, about in known.items():
        same = about.get("checkpoint") == metadata["checkpoint"]
        if same and name != metadata["file"] and (folder / str(name)).is_file():
            shutil.copyfile(folder / str(name), new / str(name))
            kept[str(name)] = {key: value for key, value in about.items() if key != "other_files"}
    return kept


def as_json(done: Export) -> dict[str, Any]:
    """The figures of an export."""
    keys = ("format", "file", "bytes", "sha256", "parity")
    return {"folder": str(done.folder)} | {key: done.metadata[key] for key in keys}


def say(done: Export) -> None:
    """Print where the model is, its size, and how closely it agrees with the checkpoint."""
    out, worst = console(), done.metadata["parity"]["largest_difference"]
    out.print(f"{'model:':<14} {done.model} ({done.metadata['bytes'] / 1e6:.1f} MB)", markup=False)
    out.print(f"{'metadata.json:':<14} {done.folder / METADATA}", markup=False)
    out.print(
        f"{'parity:':<14} largest difference from the checkpoint {worst['logits']:.2g} in logits, "
        f"{worst['probabilities']:.2g} in probabilities (allowed {TOLERANCE:g})",
        markup=False,
    )
