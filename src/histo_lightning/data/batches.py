"""From a split to batches: its parts as data sets, which samples make up a batch on which process, and loaders."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from histo_lightning.data.augment import Recipe
from histo_lightning.data.breakhis.names import class_indices
from histo_lightning.data.breakhis.records import PARTS, Record
from histo_lightning.data.pixels.cache import Pixels
from histo_lightning.data.splits import Split
from histo_lightning.errors import UserError

Batch = dict[str, Tensor]
View = Callable[..., Batch]  # a batch and ``epoch`` -> what a network sees
COPIED_AT_ONCE = 64  # images, from the cache to a device


@dataclass(frozen=True, eq=False)
class Part(Dataset[Batch]):
    """One part of a split. A batch: ``image`` uint8 B x H x W x 3; ``label``, ``index`` (in the part), ``case`` int64, B."""

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

    def subset(self, positions: NDArray[np.int64]) -> "Part":
        """Some of its images, by their positions, int64 N."""
        columns = {name: getattr(self, name)[positions] for name in ("labels", "cases", "rows")}
        return replace(self, records=tuple(self.records[i] for i in positions), **columns)

    def stored_on(self, device: torch.device) -> Tensor:
        """The stored images of all parts on a device, uint8 N x H x W x 3, copied a piece at a time."""
        shape = len(self.pixels.images), *self.pixels.shape, 3
        stored = torch.empty(shape, dtype=torch.uint8, device=device)
        for rows in np.split(np.arange(len(stored)), range(COPIED_AT_ONCE, len(stored), COPIED_AT_ONCE)):
            stored[rows[0] : rows[-1] + 1] = torch.from_numpy(self.pixels.take(rows)).to(device)
        return stored


def build_parts(split: Split, records: Sequence[Record], pixels: Pixels, task: str) -> dict[str, Part]:
    """The parts of a split by name, of the records of its images; UserError where ``task=subtype`` and a name says none."""
    unnamed = [record.path for record in records if not record.subtype]
    if task == "subtype" and unnamed:
        raise UserError(f"{unnamed[0]}: task=subtype needs BreakHis names, which say the subtype")
    classes, by_image = class_indices(task), {record.image: record for record in records}
    row_of = {image: row for row, image in enumerate(pixels.images)}
    cases = {name: number for number, name in enumerate(sorted({r.case or r.image for r in records}))}
    parts = {}
    for part in PARTS:
        members = tuple(by_image[image] for image in split.parts[part])
        labels = torch.tensor([classes[r.subtype if task == "subtype" else r.class_name] for r in members])
        own_cases = torch.tensor([cases[r.case or r.image] for r in members])
        rows = np.array([row_of[r.image] for r in members], dtype=np.int64)
        parts[part] = Part(members, labels, own_cases, pixels, rows)
    return parts


class PillowDataset(Dataset[Batch]):
    """The thesis's pipeline, kept for comparison: images one at a time from their files, transformed by torchvision.

    Keys are (epoch, index), the only source of randomness beside the seed; ``image`` is float32 3 x S x S, normalised.
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


class Batches:
    """Batch sampler: lists of dataset indices. Each of ``processes`` takes its share of every batch, by ``rank``.

    The order of an epoch follows from (seed, epoch) alone. ``shuffle``: every sample once. ``case_balanced``: as many
    draws with replacement, equally likely by class, case of the class and image of the case. ``sequential``: in the order
    of the part. With ``repeats`` every epoch has the order of the first.

    Training leaves out what does not fill a batch. Evaluation covers every image in batches of one shape, the last filled
    with images of its own, which whoever collects results drops by their index. ``with_epoch`` makes indices pairs of
    epoch and index. The next pass leaves out ``start`` batches.
    """

    def __init__(
        self, records: Sequence[Record], labels: Sequence[int], order: str, seed: int, batch_size: int, *,
        training: bool, repeats: bool = False, rank: int = 0, processes: int = 1, with_epoch: bool = False,
    ) -> None:  # fmt: skip
        self.count, self.order, self.seed, self.epoch, self.repeats = len(records), order, seed, 0, repeats
        self.training, self.rank, self.processes, self.with_epoch = training, rank, processes, with_epoch
        self.start, self.sampler = 0, self  # Lightning looks for set_epoch here
        self.batch_size = min(batch_size, self.count)
        if not training:
            self.batch_size = math.ceil(self.count / math.ceil(self.count / batch_size))
            self.batch_size = math.ceil(self.batch_size / processes) * processes
        if order == "case_balanced":
            groups = [(label, r.case or r.image) for r, label in zip(records, labels, strict=True)]
            images, cases = Counter(groups), Counter(label for label, _ in set(groups))
            self.weights = np.array([1 / (cases[group[0]] * images[group]) for group in groups])
            self.weights /= self.weights.sum()

    def set_epoch(self, epoch: int) -> None:
        self.epoch = 0 if self.repeats else epoch

    def indices(self) -> NDArray[np.int64]:
        """The order of the epoch's samples."""
        if self.order == "sequential":
            return np.arange(self.count)
        generator = np.random.Generator(np.random.PCG64([self.seed, self.epoch]))
        if self.order == "case_balanced":
            return generator.choice(self.count, size=self.count, p=self.weights)
        return generator.permutation(self.count)

    def __len__(self) -> int:
        batches = self.count / self.batch_size
        return math.floor(batches) if self.training else math.ceil(batches)

    def shares(self) -> Iterator[NDArray[np.int64]]:
        """This process's indices, batch by batch."""
        indices, (first, self.start) = self.indices(), (self.start, 0)
        for start in range(first * self.batch_size, len(self) * self.batch_size, self.batch_size):
            members = indices[start : start + self.batch_size]
            # The last batch repeats images of its own.
            yield np.resize(members, self.batch_size)[self.rank :: self.processes]

    def __iter__(self) -> Iterator[list[Any]]:
        epoch = self.epoch
        for share in self.shares():
            yield [(epoch, index) for index in share.tolist()] if self.with_epoch else share.tolist()


class Loader:
    """Batches of a data set, read by ``workers`` processes or this one; ``pin``: into memory that a GPU can copy from.

    With ``stored``, all stored pixels on a device (uint8 N x H x W x 3), the batches of a part are taken from there, and
    only the order of an epoch is copied. ``view`` is applied where no Trainer's data module will do so.
    """

    def __init__(
        self, dataset: Part | PillowDataset, batches: Batches, *,
        workers: int = 0, pin: bool = False, view: View | None = None, stored: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.dataset, self.batch_sampler, self.view, self.stored = dataset, batches, view, stored
        if stored is not None and isinstance(dataset, Part):
            columns = torch.from_numpy(dataset.rows), dataset.labels, dataset.cases
            self.rows, self.labels, self.cases = (column.to(stored.device) for column in columns)
        # Inside, since Lightning puts a sampler of its own into a DataLoader on several devices.
        self.loader: DataLoader[Batch] = DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=dict if isinstance(dataset, Part) else None,  # its batches come complete
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin,
            generator=torch.Generator(),  # else each iterator draws from torch's own, and dropout changes after a resume
        )

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader if self.stored is None else self._from_device(self.stored):
            yield batch if self.view is None else self.view(batch, epoch=self.batch_sampler.epoch)

    def _from_device(self, stored: Tensor) -> Iterator[Batch]:
        shares = list(self.batch_sampler.shares())
        order = torch.from_numpy(np.concatenate(shares)).to(stored.device)
        for index in torch.split(order, [len(share) for share in shares]):
            image = stored.index_select(0, self.rows[index])
            yield {"image": image, "label": self.labels[index], "case": self.cases[index], "index": index}
