"""The parts of a split: their records and labels, and their images as data sets, from stored pixels or by Pillow."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms

from histo_lightning.data.augment import Recipe
from histo_lightning.data.breakhis.names import CLASSES, SUBTYPES
from histo_lightning.data.breakhis.records import PARTS, Record
from histo_lightning.data.pixels.cache import Pixels
from histo_lightning.data.splits import Split
from histo_lightning.errors import UserError

Batch = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Part(Dataset[Batch]):
    """One part of a split: its records, labels and cases (int64) in the order of ``index``, and their stored pixels.

    A batch: ``image`` uint8 B x H x W x 3; ``label``, ``index`` (position in the part) and ``case`` int64, B.
    """

    records: tuple[Record, ...]
    labels: Tensor
    cases: Tensor
    pixels: Pixels
    rows: NDArray[np.int64]

    @property
    def names(self) -> list[str]:
        """The file names of its images."""
        return [record.image for record in self.records]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        index = torch.tensor(indices)
        image = torch.from_numpy(self.pixels.take(self.rows[indices]))
        return {"image": image, "label": self.labels[index], "case": self.cases[index], "index": index}


def class_indices(task: str) -> dict[str, int]:
    """The index of each class, by name."""
    names = SUBTYPES if task == "subtype" else CLASSES
    return {name: index for index, name in enumerate(names)}


def build_parts(split: Split, records: Sequence[Record], pixels: Pixels, task: str) -> dict[str, Part]:
    """The parts of a split by name; ``records`` are those of its images, with the labels to train on.

    Raises:
        UserError: ``task=subtype``, and a name that does not say the subtype.
    """
    for record in records:
        if task == "subtype" and not record.subtype:
            raise UserError(f"{record.path}: task=subtype needs BreakHis names, which say the subtype")
    classes, by_image = class_indices(task), {record.image: record for record in records}
    row_of = {image: row for row, image in enumerate(pixels.images)}
    names = sorted({record.case or record.image for record in records})
    case_numbers = {name: number for number, name in enumerate(names)}
    parts = {}
    for part in PARTS:
        members = tuple(by_image[image] for image in split.parts[part])
        labels = [classes[record.subtype if task == "subtype" else record.class_name] for record in members]
        cases = [case_numbers[record.case or record.image] for record in members]
        rows = np.array([row_of[record.image] for record in members], dtype=np.int64)
        parts[part] = Part(members, torch.tensor(labels), torch.tensor(cases), pixels, rows)
    return parts


class PillowDataset(Dataset[Batch]):
    """The images of a part, one at a time from its file: the thesis's pipeline, kept for comparison.

    The transforms of ``augment=thesis`` by torchvision, with random numbers from (seed, epoch, index) alone. Keys are
    (epoch, index); a batch's ``image`` is float32 B x 3 x S x S, normalised.
    """

    def __init__(
        self, part: Part, root: Path, recipe: Recipe, mean: Tensor, std: Tensor, *, train: bool, seed: int
    ) -> None:
        self.part, self.root, self.seed, self.names = part, root, seed, part.names
        steps = [transforms.Resize(round(recipe.size * 8 / 7)), transforms.CenterCrop(recipe.size)]
        if train:
            steps[1] = transforms.RandomResizedCrop(recipe.size, recipe.crop_scale, recipe.crop_ratio)
        if train and recipe.horizontal_flip:
            steps.append(transforms.RandomHorizontalFlip())
        if train and recipe.rotation_degrees:
            steps.append(transforms.RandomRotation(recipe.rotation_degrees))
        steps += [transforms.ToTensor(), transforms.Normalize(mean.tolist(), std.tolist())]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.part.records)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, index = key
        path = self.root / self.part.records[index].path
        with Image.open(path) as image, torch.random.fork_rng(devices=[]):
            torch.manual_seed(((self.seed * 100_003 + epoch) * 1_000_003 + index) % 2**63)
            pixels = self.transform(image.convert("RGB"))
        label, case = self.part.labels[index], self.part.cases[index]
        return {"image": pixels, "label": label, "case": case, "index": torch.tensor(index)}
