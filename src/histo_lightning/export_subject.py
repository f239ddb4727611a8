"""What ``export`` is about: a checkpoint's classifier, how it sees images, and how to say so in ``metadata.json``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import histo_lightning
from histo_lightning.classifier import Classifier
from histo_lightning.data.augment import normalise
from histo_lightning.data.breakhis.names import SUBTYPE_CLASS
from histo_lightning.errors import UserError

INPUT, OUTPUTS = "image", ("logits", "probabilities")
SMALLEST_SIDE = 33  # below it the last map is 1 pixel a side, a case that torch.export keeps apart


@dataclass(frozen=True)
class Subject:
    """A classifier in evaluation mode on the CPU, and what its checkpoint says about images."""

    classifier: Classifier
    mean: Tensor  # float32, 3, in units of [0, 1]
    std: Tensor
    height: int
    width: int

    @property
    def any_size(self) -> bool:
        """Whether height and width of an exported graph are free.

        The deep stem pools its shortcuts with rounding up, so odd and even sides would be different graphs.
        """
        stem = self.classifier.hparams["stem"]
        return bool(stem != "deep") and min(self.height, self.width) >= SMALLEST_SIDE

    def reference(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 B x H x W x 3 -> logits and probabilities, as this package computes them."""
        with torch.no_grad():
            inputs = normalise(images, self.mean, self.std)
            return self.classifier.logits(inputs), self.classifier(inputs).exp()


def load_subject(checkpoint: Path) -> Subject:
    """A checkpoint's classifier with the normalisation and size of its images; raise UserError where they lack."""
    classifier = Classifier.from_checkpoint(checkpoint)
    about = classifier.metadata
    missing = [key for key in ("class_to_idx", "input_size", "normalisation") if not about.get(key)]
    if missing:
        raise UserError(
            f"{checkpoint}: it does not say its {', '.join(missing)}; use one that training has saved"
        )
    normalisation = about["normalisation"]
    mean, std = (torch.tensor(normalisation[key], dtype=torch.float32) for key in ("mean", "std"))
    _, height, width = about["input_size"]
    return Subject(classifier, mean, std, int(height), int(width))


def describe(
    subject: Subject, format_name: str, packages: Sequence[str], checkpoint_sha256: str
) -> dict[str, Any]:
    """What a user of the file needs to know; all that can be said before the file exists."""
    about, graph = subject.classifier.metadata, format_name != "safetensors"
    classes = dict(sorted(about["class_to_idx"].items(), key=lambda item: item[1]))
    sides: list[int | str] = [subject.height, subject.width]
    if graph and subject.any_size:
        sides = ["height", "width"]
    fixed = graph and not subject.any_size
    return {
        "format": format_name,
        "classes": list(classes),
        "class_to_idx": classes,
        "model": {key: subject.classifier.hparams[key] for key in ("model", "head", "hidden", "stem")},
        "input": {
            "name": INPUT,
            "dtype": "float32",
            "shape": ["batch", 3, *sides],
            "smallest_side": None if fixed else SMALLEST_SIDE,
            "trained_size": [3, subject.height, subject.width],
            "channels": "RGB",
            "range": [0.0, 1.0],
            "normalisation": about["normalisation"] | {"inside_graph": graph},
            "preparation": _preparation(subject, graph),
        },
        "outputs": {
            "names": list(OUTPUTS) if graph else list(OUTPUTS[:1]),
            "dtype": "float32",
            "shape": ["batch", len(classes)],
            "probabilities": "softmax of the logits, without the temperature",
        },
        "transforms": about.get("transforms"),
        "threshold": about.get("threshold"),
        "threshold_rule": _threshold_rule(classes),
        "operating_point": about.get("operating_point"),
        "temperature": about.get("temperature"),
        "seen_cases": about.get("seen_cases"),
        "split_hash": about.get("split_hash"),
        "checkpoint": {"sha256": checkpoint_sha256, "epoch": about.get("epoch")},
        "versions": {"histo_lightning": histo_lightning.__version__, "torch": version("torch")}
        | {package: version(package) for package in packages},
    }


def _preparation(subject: Subject, graph: bool) -> str:
    """How an image file becomes an input, in words."""
    config = subject.classifier.metadata.get("config") or {}
    stored = (config.get("dataset") or {}).get("short_side") or round(config.get("image_size", 0) * 8 / 7)
    scaled = (
        f"scaled to a short side of {stored} (Pillow's BILINEAR, equal in both directions), "
        if stored
        else ""
    )
    last = "divided by 255" if graph else "divided by 255, minus mean, divided by std (by channel)"
    return f"RGB, {scaled}centre of {subject.height} x {subject.width} (height x width), {last}"


def _threshold_rule(classes: Mapping[str, int]) -> str:
    columns = [index for name, index in classes.items() if SUBTYPE_CLASS.get(name, name) == "malignant"]
    what = (
        f"probabilities[:, {columns[0]}]" if len(columns) == 1 else f"the sum of probabilities[:, {columns}]"
    )
    return f"malignant where {what} >= threshold"


def as_texts(facts: Mapping[str, Any]) -> dict[str, str]:
    """Facts for a header that holds strings only: whatever is no string is JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


def export_name(run_name: str | None, checkpoint: Path) -> str:
    """``run_name``, else the name of the checkpoint's run folder, else of its file."""
    parent = checkpoint.resolve().parent
    name = run_name or (parent.parent.name if parent.name == "checkpoints" else "") or checkpoint.stem
    if not name.strip("."):
        raise UserError(f"run_name={name}: is no name of a folder of its own; use letters and digits")
    return name
