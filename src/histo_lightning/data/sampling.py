"""Which samples make up the batches of an epoch, in which order, on which process."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.pixels.cache import Pixels

Batch = dict[str, Tensor]


class EpochOrder:
    """The order of one epoch's samples, from (seed, epoch) alone.

    ``shuffle``: every sample once. ``case_balanced``: as many draws with replacement; classes are equally likely,
    then cases within the class, then images within the case. ``sequential``: as they are.
    With ``repeats`` every epoch has the order of the first. Lightning calls :meth:`set_epoch`.
    """

    def __init__(
        self, records: Sequence[Record], labels: Sequence[int], kind: str, seed: int, *, repeats: bool = False
    ) -> None:
        self.kind, self.seed, self.epoch = kind, seed, 0
        self.repeats = repeats
        self.count = len(records)
        self.weights = _balanced(records, labels) if kind == "case_balanced" else None

    def set_epoch(self, epoch: int) -> None:
        self.epoch = 0 if self.repeats else epoch

    def indices(self) -> NDArray[np.int64]:
        if self.kind == "sequential":
            return np.arange(self.count)
        generator = np.random.Generator(np.random.PCG64([self.seed, self.epoch]))
        if self.weights is None:
            return generator.permutation(self.count)
        return generator.choice(self.count, size=self.count, p=self.weights)


def _balanced(records: Sequence[Record], labels: Sequence[int]) -> NDArray[np.float64]:
    groups = [(label, record.case or record.image) for record, label in zip(records, labels, strict=True)]
    images = Counter(groups)
    cases = Counter(label for label, _ in images)
    weights: NDArray[np.float64] = np.array([1 / (cases[group[0]] * images[group]) for group in groups])
    weights /= weights.sum()
    return weights


class Batches:
    """Batch sampler: lists of dataset indices. Each process takes its share of every batch.

    Training batches all have ``batch_size`` images (the rest of an epoch's order is left out, another one each epoch).
    Evaluation covers every image in batches of one shape, as equal as can be and at most ``batch_size`` large; where
    they do not come out even, the last one is filled up with images of its own, which whoever collects results drops
    by their index.

    Args:
        training: see above.
        rank, world: this process and how many there are.
        with_epoch: give pairs of epoch and index, for a dataset that augments by itself.
    """

    def __init__(
        self,
        order: EpochOrder,
        batch_size: int,
        *,
        training: bool,
        rank: int = 0,
        world: int = 1,
        with_epoch: bool = False,
    ) -> None:
        self.sampler = order  # Lightning looks for set_epoch here
        self.training, self.rank, self.world, self.with_epoch = training, rank, world, with_epoch
        self.batch_size = min(batch_size, order.count)
        if not training:
            self.batch_size = math.ceil(order.count / math.ceil(order.count / batch_size))
            self.batch_size = math.ceil(self.batch_size / world) * world

    def __len__(self) -> int:
        return (
            self.sampler.count // self.batch_size
            if self.training
            else -(-self.sampler.count // self.batch_size)
        )

    def shares(self) -> Iterator[NDArray[np.int64]]:
        """This process's indices, batch by batch."""
        indices = self.sampler.indices()
        for batch in range(len(self)):
            members = indices[batch * self.batch_size : (batch + 1) * self.batch_size]
            if not self.training and len(members) < self.batch_size:
                members = np.resize(members, self.batch_size)  # repeats them from the start
            yield members[self.rank :: self.world]

    def __iter__(self) -> Iterator[list[int] | list[tuple[int, int]]]:
        epoch = self.sampler.epoch
        for share in self.shares():
            yield [(epoch, index) for index in share.tolist()] if self.with_epoch else share.tolist()


class PartDataset(Dataset[Batch]):
    """The images of one part, as whole batches of stored pixels; ``names`` are their file names.

    A batch: ``image`` uint8 B x H x W x 3; ``label``, ``index`` (position in the part) and ``case`` int64, B.
    """

    def __init__(
        self,
        pixels: Pixels,
        rows: NDArray[np.int64],
        labels: Sequence[int],
        cases: Sequence[int],
        names: Sequence[str] = (),
    ) -> None:
        self.pixels, self.rows, self.names = pixels, rows, tuple(names)
        self.labels = torch.tensor(labels, dtype=torch.int64)
        self.cases = torch.tensor(cases, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int] | NDArray[np.int64]) -> Batch:
        chosen = np.asarray(indices, dtype=np.int64)
        index = torch.from_numpy(chosen)
        return {
            "image": torch.from_numpy(self.pixels.take(self.rows[chosen])),
            "label": self.labels[index],
            "case": self.cases[index],
            "index": index,
        }


View = Callable[[Batch, int], Batch]


class DirectLoader:
    """Batches straight from the memory map, in this process: no workers, no copy beyond the batch itself.

    Args:
        view: makes of a stored batch and its epoch what a network sees, where no Trainer's data module will do so.
    """

    def __init__(self, dataset: PartDataset, batches: Batches, view: View | None = None) -> None:
        self.dataset, self.batch_sampler, self.view = dataset, batches, view

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        for share in self.batch_sampler.shares():
            batch = self.dataset.__getitems__(share)
            yield batch if self.view is None else self.view(batch, self.batch_sampler.sampler.epoch)


class WorkerLoader:
    """Batches from a DataLoader. Not one itself: Lightning would put a sampler of its own into it on several devices."""

    def __init__(self, loader: DataLoader[Batch], batches: Batches, view: View | None = None) -> None:
        self.loader, self.dataset, self.batch_sampler, self.view = loader, loader.dataset, batches, view

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            yield batch if self.view is None else self.view(batch, self.batch_sampler.sampler.epoch)


class ResidentLoader:
    """Batches of a data set that lives in the device's memory: only the order of an epoch is copied there, once.

    Args:
        stored: all stored pixels on the device, uint8 N x H x W x 3; parts share it.
    """

    def __init__(self, dataset: PartDataset, batches: Batches, stored: Tensor) -> None:
        self.dataset, self.batch_sampler, self.stored = dataset, batches, stored
        device = stored.device
        self.rows = torch.from_numpy(dataset.rows).to(device)
        self.labels, self.cases = dataset.labels.to(device), dataset.cases.to(device)

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        shares = list(self.batch_sampler.shares())
        order = torch.from_numpy(np.concatenate(shares)).to(self.stored.device)
        for index in torch.split(order, [len(share) for share in shares]):
            yield {
                "image": self.stored.index_select(0, self.rows[index]),
                "label": self.labels[index],
                "case": self.cases[index],
                "index": index,
            }


def whole(batch: Any) -> Any:
    """Collate function for batches that are already whole."""
    return batch
