"""Which samples make up the batches of an epoch, in which order, on which process."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from histo_lightning.data.records import Record


class EpochOrder:
    """The order of one epoch's samples, from (seed, epoch) alone.

    ``shuffle``: every sample once. ``case_balanced``: as many draws with replacement; classes are equally likely,
    then cases within the class, then images within the case. ``sequential``: as they stand.
    Lightning calls :meth:`set_epoch`.
    """

    def __init__(self, records: Sequence[Record], labels: Sequence[int], kind: str, seed: int) -> None:
        self.kind, self.seed, self.epoch = kind, seed, 0
        self.count = len(records)
        self.weights = _balanced(records, labels) if kind == "case_balanced" else None

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

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

    Training batches all have the full size (the rest of an epoch's order is left out, another one each epoch);
    evaluation covers every sample exactly once, on several processes without padding or duplicates.
    """

    def __init__(
        self, order: EpochOrder, batch_size: int, *, drop_last: bool, rank: int = 0, world: int = 1
    ) -> None:
        self.sampler = order  # Lightning looks for set_epoch here
        self.batch_size = min(batch_size, order.count) if drop_last else batch_size
        self.drop_last, self.rank, self.world = drop_last, rank, world

    def __len__(self) -> int:
        full, rest = divmod(self.sampler.count, self.batch_size)
        return full + int(rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        indices = self.sampler.indices()
        for batch in range(len(self)):
            members = indices[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield members[self.rank :: self.world].tolist()


class PartDataset(Dataset[dict[str, torch.Tensor]]):
    """Rows of the pixel array with labels; hands out whole batches at once.

    A batch: ``image`` uint8 B x H x W x 3; ``label``, ``index`` (row of the part) and ``case`` int64, B.
    """

    def __init__(
        self, array: NDArray[np.uint8], rows: NDArray[np.int64], labels: Sequence[int], cases: Sequence[int]
    ) -> None:
        self.array, self.rows = array, rows
        self.labels = torch.tensor(labels, dtype=torch.int64)
        self.cases = torch.tensor(cases, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        chosen = torch.tensor(indices, dtype=torch.int64)
        return {
            "image": torch.from_numpy(self.array[self.rows[chosen.numpy()]]),
            "label": self.labels[chosen],
            "case": self.cases[chosen],
            "index": chosen,
        }


def as_is(batch: Any) -> Any:
    """Collate function for batches that are already whole."""
    return batch
