"""The parts of a split: their records and labels, and their stored pixels as batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from histo_lightning.data.breakhis.names import CLASSES, SUBTYPES
from histo_lightning.data.breakhis.records import PARTS, Record
from histo_lightning.data.pixels.cache import Pixels
from histo_lightning.data.splits import Split
from histo_lightning.errors import UserError

Batch = dict[str, Tensor]


class PartDataset(Dataset[Batch]):
    """The images of one part, as batches of stored pixels.

    A batch: ``image`` uint8 B x H x W x 3; ``label``, ``index`` (position in the part) and ``case`` int64, B.
    """

    def __init__(
        self, pixels: Pixels, rows: NDArray[np.int64], labels: Sequence[int], cases: Sequence[int]
    ) -> None:
        self.pixels, self.rows = pixels, rows
        self.labels, self.cases = (torch.tensor(numbers, dtype=torch.int64) for numbers in (labels, cases))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        index = torch.tensor(indices)
        image = torch.from_numpy(self.pixels.take(self.rows[indices]))
        return {"image": image, "label": self.labels[index], "case": self.cases[index], "index": index}


@dataclass(frozen=True)
class Part:
    """One part of a split: its records (in the order of ``index``), labels and dataset."""

    records: tuple[Record, ...]
    labels: tuple[int, ...]
    dataset: PartDataset


def class_indices(task: str) -> dict[str, int]:
    """The index of each class, by name."""
    names = SUBTYPES if task == "subtype" else CLASSES
    return {name: index for index, name in enumerate(names)}


def build_parts(split: Split, records: Sequence[Record], pixels: Pixels, task: str) -> dict[str, Part]:
    """The parts of a split by name; ``records`` are those of its images, with the labels to train on.

    Raises:
        UserError: ``task=subtype``, and a name that does not say the subtype.
    """
    by_image = {record.image: record for record in records}
    row_of = {image: row for row, image in enumerate(pixels.images)}
    names = sorted({record.case or record.image for record in records})
    case_numbers = {name: number for number, name in enumerate(names)}
    parts = {}
    for part in PARTS:
        members = tuple(by_image[image] for image in split.parts[part])
        labels = tuple(_label(record, task) for record in members)
        rows = np.array([row_of[record.image] for record in members], dtype=np.int64)
        cases = [case_numbers[record.case or record.image] for record in members]
        parts[part] = Part(members, labels, PartDataset(pixels, rows, labels, cases))
    return parts


def _label(record: Record, task: str) -> int:
    if task == "subtype" and not record.subtype:
        raise UserError(f"{record.path}: task=subtype needs BreakHis names, which say the subtype")
    return class_indices(task)[record.subtype if task == "subtype" else record.class_name]
