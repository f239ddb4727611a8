"""Which samples make up the batches of an epoch, in which order, on which process; and the loaders that read them."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.parts import Batch, Part
from histo_lightning.data.pixels.cache import Pixels

View = Callable[..., Batch]  # a batch and ``epoch`` -> what a network sees
COPIED_AT_ONCE = 64  # images, from the cache to a device


class EpochOrder:
    """The order of one epoch's samples, from (seed, epoch) alone.

    ``shuffle``: every sample once. ``case_balanced``: as many draws with replacement; classes are equally likely,
    then cases within the class, then images within the case. ``sequential``: in the order of the part.
    With ``repeats`` every epoch has the order of the first.
    """

    def __init__(
        self, records: Sequence[Record], labels: Sequence[int], kind: str, seed: int, *, repeats: bool = False
    ) -> None:
        self.kind, self.seed, self.epoch, self.repeats = kind, seed, 0, repeats
        self.count = len(records)
        if kind == "case_balanced":
            groups = [(label, r.case or r.image) for r, label in zip(records, labels, strict=True)]
            images, cases = Counter(groups), Counter(label for label, _ in set(groups))
            self.weights = np.array([1 / (cases[group[0]] * images[group]) for group in groups])
            self.weights /= self.weights.sum()

    def set_epoch(self, epoch: int) -> None:
        self.epoch = 0 if self.repeats else epoch

    def indices(self) -> NDArray[np.int64]:
        if self.kind == "sequential":
            return np.arange(self.count)
        generator = np.random.Generator(np.random.PCG64([self.seed, self.epoch]))
        if self.kind == "case_balanced":
            return generator.choice(self.count, size=self.count, p=self.weights)
        return generator.permutation(self.count)


class Batches:
    """Batch sampler: lists of dataset indices. Each of ``processes`` takes its share of every batch, by ``rank``.

    Training batches all have ``batch_size`` images: the rest of an epoch's order is left out. Evaluation covers every
    image in batches of one shape, at most ``batch_size`` large; the last one is filled up with images of its own, which
    whoever collects results drops by their index. ``with_epoch`` makes them pairs of epoch and index.
    """

    def __init__(
        self, order: EpochOrder, batch_size: int, *, training: bool, rank: int = 0, processes: int = 1
    ) -> None:
        self.sampler = order  # Lightning looks for set_epoch here
        self.training, self.rank, self.processes, self.with_epoch = training, rank, processes, False
        self.batch_size = min(batch_size, order.count)
        if not training:
            self.batch_size = math.ceil(order.count / math.ceil(order.count / batch_size))
            self.batch_size = math.ceil(self.batch_size / processes) * processes

    def __len__(self) -> int:
        batches = self.sampler.count / self.batch_size
        return math.floor(batches) if self.training else math.ceil(batches)

    def shares(self) -> Iterator[NDArray[np.int64]]:
        """This process's indices, batch by batch."""
        indices = self.sampler.indices()
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            members = indices[start : start + self.batch_size]
            if len(members) < self.batch_size:
                members = np.resize(members, self.batch_size)  # repeats them from the start
            yield members[self.rank :: self.processes]

    def __iter__(self) -> Iterator[list[int] | list[tuple[int, int]]]:
        epoch = self.sampler.epoch
        for share in self.shares():
            yield [(epoch, index) for index in share.tolist()] if self.with_epoch else share.tolist()


class Loader:
    """Batches of a data set, read by ``workers`` processes or this one; ``pin``: into memory that a GPU can copy from.

    ``view`` is applied where no Trainer's data module will do so.
    """

    def __init__(
        self, dataset: Dataset[Batch], batches: Batches, *, workers: int, pin: bool, view: View | None
    ) -> None:
        self.dataset, self.batch_sampler, self.view = dataset, batches, view
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
        for batch in self.loader:
            yield batch if self.view is None else self.view(batch, epoch=self.batch_sampler.sampler.epoch)


class ResidentLoader:
    """Batches of a data set in the device's memory: only the order of an epoch is copied there, once.

    ``stored``: all stored pixels on the device, uint8 N x H x W x 3; parts share it.
    """

    def __init__(self, part: Part, batches: Batches, stored: Tensor) -> None:
        self.dataset, self.batch_sampler, self.stored = part, batches, stored
        device = stored.device
        self.rows = torch.from_numpy(part.rows).to(device)
        self.labels, self.cases = part.labels.to(device), part.cases.to(device)

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        shares = list(self.batch_sampler.shares())
        order = torch.from_numpy(np.concatenate(shares)).to(self.stored.device)
        for index in torch.split(order, [len(share) for share in shares]):
            image = self.stored.index_select(0, self.rows[index])
            yield {"image": image, "label": self.labels[index], "case": self.cases[index], "index": index}


def resident_pixels(pixels: Pixels, device: torch.device) -> Tensor:
    """All stored images on a device, uint8 N x H x W x 3, copied a piece at a time."""
    stored = torch.empty((len(pixels.images), *pixels.shape, 3), dtype=torch.uint8, device=device)
    for start in range(0, len(stored), COPIED_AT_ONCE):
        rows = np.arange(start, min(start + COPIED_AT_ONCE, len(stored)))
        stored[start : start + COPIED_AT_ONCE] = torch.from_numpy(pixels.take(rows)).to(device)
    return stored
