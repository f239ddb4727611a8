"""The thesis's pipeline: every image opened, decoded and transformed by itself with Pillow. Kept for comparison.

The same transforms as ``augment=thesis``, by torchvision on Pillow images, seeded by (seed, epoch, sample).
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms

from histo_lightning.data.augment import Recipe
from histo_lightning.data.parts import Batch


def pillow_transforms(recipe: Recipe, mean: Tensor, std: Tensor, *, train: bool) -> transforms.Compose:
    """A Pillow image -> float32 3 x size x size: resized, cut (in training at random, flipped, turned), normalised."""
    steps = [transforms.Resize(round(recipe.size * 8 / 7))]
    if train:
        steps.append(
            transforms.RandomResizedCrop(recipe.size, scale=recipe.crop_scale, ratio=recipe.crop_ratio)
        )
    else:
        steps.append(transforms.CenterCrop(recipe.size))
    if train and recipe.horizontal_flip:
        steps.append(transforms.RandomHorizontalFlip())
    if train and recipe.rotation_degrees:
        steps.append(transforms.RandomRotation(recipe.rotation_degrees))
    return transforms.Compose(
        [*steps, transforms.ToTensor(), transforms.Normalize(mean.tolist(), std.tolist())]
    )


class PillowDataset(Dataset[Batch]):
    """One image at a time from its file. Keys are (epoch, index); a batch's ``image`` is float32 B x 3 x S x S.

    Args:
        paths: files by index.
        transform: its random numbers come from (seed, epoch, index) alone.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Sequence[int],
        cases: Sequence[int],
        transform: transforms.Compose,
        seed: int,
    ) -> None:
        self.paths, self.labels, self.cases = paths, labels, cases
        self.transform, self.seed = transform, seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, index = key
        with Image.open(self.paths[index]) as image, torch.random.fork_rng(devices=[]):
            torch.manual_seed(((self.seed * 100_003 + epoch) * 1_000_003 + index) % 2**63)
            pixels = self.transform(image.convert("RGB"))
        numbers = {"label": self.labels[index], "case": self.cases[index], "index": index}
        return {"image": pixels} | {name: torch.tensor(value) for name, value in numbers.items()}
