"""A trained network with all it needs to see images as in training: scale, view, normalisation, classes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from histo_lightning.classifier import Classifier
from histo_lightning.classifier.contents import check_metadata
from histo_lightning.config.checks import stored_config
from histo_lightning.config.schema import Config
from histo_lightning.data.augment import Recipe, evaluation_view
from histo_lightning.data.breakhis.names import SUBTYPE_CLASS
from histo_lightning.errors import UserError
from histo_lightning.evaluation.table import softmax

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Trained:
    """A checkpoint's network in evaluation mode, float32, on a device; ``mean`` and ``std`` are float32, 3, in [0, 1]."""

    classifier: Classifier
    recipe: Recipe
    mean: Tensor
    std: Tensor
    config: Config  # of its training

    @classmethod
    def load(cls, path: str | Path, device: torch.device, imports: Sequence[str] = ()) -> "Trained":
        """Load a checkpoint onto a device; UserError where it is unusable; ``imports`` are modules with a network of its own."""
        if not str(path):
            raise UserError("checkpoint is not set: give a run's checkpoints/best.ckpt")
        classifier = Classifier.from_checkpoint(path, imports=list(imports)).to(device)
        about = classifier.metadata
        try:
            check_metadata(about, int(classifier.hparams["num_classes"]))
            config = stored_config(about["config"])
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        if config.split.shuffle_labels:
            problem = "was trained on shuffled labels, a control of the leakage study"
            raise UserError(f"checkpoint={path}: {problem}; it knows nothing about tissue, give another")
        recipe = Recipe(**asdict(config.augment), size=config.image_size)
        mean, std = (torch.tensor(about["normalisation"][key], device=device) for key in ("mean", "std"))
        return cls(classifier, recipe, mean, std, config)

    @property
    def about(self) -> dict[str, Any]:
        """The checkpoint's ``histo_lightning`` dict."""
        return self.classifier.metadata

    @property
    def short_side(self) -> int:
        """Short side in pixels of the stored images that it was trained on."""
        return int(self.config.dataset.short_side or round(self.recipe.size * 8 / 7))

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width in pixels of the images that it was evaluated on in training."""
        return self.about["input_size"][1], self.about["input_size"][2]

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the logits."""
        return sorted(self.about["class_to_idx"], key=self.about["class_to_idx"].__getitem__)

    @property
    def malignant_columns(self) -> list[int]:
        """Indices of the classes that are malignant tumours."""
        return [i for i, name in enumerate(self.classes) if SUBTYPE_CLASS.get(name, name) == "malignant"]

    def view(self, pixels: Pixels) -> Tensor:
        """What the network sees of stored images, uint8 B x H x W x 3 -> float32 B x 3 x H' x W'."""
        images = torch.from_numpy(np.array(pixels, order="C")).to(self.mean.device)
        return evaluation_view(images, self.recipe, self.mean, self.std)

    def logits(self, pixels: Pixels) -> Floats:
        """Logits of stored images, uint8 B x H x W x 3 -> float64 B x classes."""
        with torch.inference_mode():
            return np.asarray(self.classifier.logits(self.view(pixels)).double().cpu())

    def probabilities(self, pixels: Pixels, *, tta: bool = False) -> Floats:
        """Class probabilities, float64 B x classes, of each image alone; with ``tta`` the mean over the eight orientations."""
        logits = self.classifier.logits
        with torch.inference_mode():
            output = self.classifier.averaged(logits, self.view(pixels)) if tta else logits(self.view(pixels))
        return softmax(np.asarray(output.double().cpu()))
