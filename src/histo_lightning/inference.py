"""A trained network with all it needs to see images as it was taught to: scale, view, normalisation, classes."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from histo_lightning.classifier import Classifier
from histo_lightning.classifier.hardware import resolve
from histo_lightning.config.schema import TrainerConfig
from histo_lightning.data.augment import Recipe, evaluation_view
from histo_lightning.errors import UserError

Floats = NDArray[np.float64]
# The eight orientations of an image (H x W x 3): turned by k quarters, then mirrored or not.
ORIENTATIONS = tuple((quarters, mirrored) for mirrored in (False, True) for quarters in range(4))


@dataclass(frozen=True)
class Trained:
    """A checkpoint's network in evaluation mode, float32, on a device."""

    classifier: Classifier
    recipe: Recipe
    mean: Tensor
    std: Tensor

    @classmethod
    def load(cls, path: str | Path, trainer: TrainerConfig) -> "Trained":
        """Load a checkpoint onto the device that ``trainer`` asks for.

        Raises:
            UserError: no checkpoint was given, it cannot be read or was trained on shuffled labels, or no GPU is there.
        """
        if not str(path):
            raise UserError("checkpoint is not set: give a run's checkpoints/best.ckpt")
        hardware = resolve(trainer)
        torch.set_num_threads(hardware.threads)
        device = torch.device("cuda" if hardware.accelerator == "gpu" else "cpu")
        classifier = Classifier.from_checkpoint(path).to(device)
        about = classifier.metadata
        if (about["config"].get("split") or {}).get("shuffle_labels"):
            raise UserError(
                f"checkpoint={path}: was trained on shuffled labels, a control of the leakage study; it knows nothing about "
                "tissue, give another"
            )
        augment = {
            k: v for k, v in about["config"]["augment"].items() if k in {f.name for f in fields(Recipe)}
        }
        for pair in ("crop_scale", "crop_ratio"):
            augment[pair] = (augment[pair][0], augment[pair][1])
        statistics = about["normalisation"]
        return cls(
            classifier,
            Recipe(size=int(about["config"]["image_size"]), **augment),
            torch.tensor(statistics["mean"], device=device),
            torch.tensor(statistics["std"], device=device),
        )

    @property
    def about(self) -> dict[str, Any]:
        """The checkpoint's ``histo_lightning`` dict."""
        return self.classifier.metadata

    @property
    def short_side(self) -> int:
        """Short side in pixels of the stored images that it was trained on."""
        wanted = self.about["config"]["dataset"]["short_side"]
        return int(wanted) if wanted else round(self.recipe.size * 8 / 7)

    @property
    def names(self) -> list[str]:
        """Class names in the order of the logits."""
        return sorted(self.about["class_to_idx"], key=lambda name: self.about["class_to_idx"][name])

    @property
    def task(self) -> str:
        return str(self.about["config"]["task"])

    def seen(self, pixels: NDArray[np.uint8]) -> Tensor:
        """What the network sees of stored images, uint8 B x H x W x 3 -> float32 B x 3 x H' x W'."""
        images = torch.from_numpy(np.array(pixels, order="C")).to(self.mean.device)
        return evaluation_view(images, self.recipe, self.mean, self.std)

    def logits(self, pixels: NDArray[np.uint8]) -> Floats:
        """Logits of stored images, uint8 B x H x W x 3 -> float64 B x classes."""
        with torch.inference_mode():
            found: Floats = self.classifier.logits(self.seen(pixels)).double().cpu().numpy()
        return found

    def probabilities(self, pixels: NDArray[np.uint8], *, tta: bool = False) -> Floats:
        """Class probabilities, float64 B x classes; with ``tta`` the mean over the eight orientations.

        Batch norm keeps its running statistics, so an image's result does not depend on its batch.
        """
        views = [oriented(pixels, *way) for way in (ORIENTATIONS if tta else ORIENTATIONS[:1])]
        found: Floats = np.mean([_softmax(self.logits(view)) for view in views], axis=0)
        return found


def oriented(pixels: NDArray[np.uint8], quarters: int, mirrored: bool) -> NDArray[np.uint8]:
    """Images B x H x W x 3 turned by ``quarters`` of a full turn, then mirrored left to right."""
    turned = np.rot90(pixels, quarters, axes=(1, 2))
    return turned[:, :, ::-1] if mirrored else turned


def _softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float64)
