"""The opponent: the thesis's pipeline, as fast as it is when written well.

ImageFolder, Pillow transforms, DataLoader, float32, a plain PyTorch loop. It gets what any careful person would give
it: gradients set to none, persistent workers, no metric, no logging, no validation, and the faster of no workers and one a core.
"""

import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler
from torchvision import transforms
from torchvision.datasets import ImageFolder

from histo_lightning.classifier.hardware import cores
from histo_lightning.classifier.optimizers import build_optimizer
from histo_lightning.data.augment import IMAGENET_MEAN, IMAGENET_STD
from histo_lightning.data.breakhis.records import Record
from histo_lightning.models import build_network


def link_tree(root: Path, records: list[Record], folder: Path) -> Path:
    """``<folder>/<class>/<image>``, links to the images, as ImageFolder wants them."""
    for record in records:
        link = folder / record.class_name / record.image
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((root / record.path).resolve())
    return folder


STEPS = 3  # of an epoch that are measured: its speed does not change, and it is the slow one


class NaivePipeline:
    """Epochs of plain training over a tree of images; see the module."""

    def __init__(
        self, tree: Path, model: str, size: int, batch_size: int, device: torch.device, bf16: bool = False
    ) -> None:
        chain = transforms.Compose(
            [
                transforms.Resize(round(size * 8 / 7)),
                transforms.RandomResizedCrop(size),
                transforms.RandomHorizontalFlip(),
                transforms.RandomRotation(15),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )
        self.dataset = ImageFolder(str(tree), chain)
        self.device, self.bf16, self.batch_size = device, bf16, batch_size
        self.network = build_network(model, 2).to(device)
        self.optimizer = build_optimizer(
            self.network.parameters(), {"_target_": "torch.optim.Adam", "lr": 1e-4}
        )
        self.loader = self._loader(0)

    def _loader(self, workers: int) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
        batch = min(self.batch_size, len(self.dataset))
        # Whole epochs, though short ones: workers of a broken-off one would still be at work in the next measurement.
        chosen = RandomSampler(
            self.dataset, num_samples=min(STEPS * batch, len(self.dataset) // batch * batch)
        )
        return DataLoader(
            self.dataset,
            batch,
            sampler=chosen,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.device.type == "cuda",
        )

    def choose_workers(self, most: int) -> int:
        """Keep the faster of no workers and ``most``, each measured on its second epoch."""
        found = {}
        for workers in dict.fromkeys((0, most)):
            self.loader = self._loader(workers)
            if workers:
                self.epoch()
            found[workers] = self.epoch()
        best = min(found, key=lambda workers: found[workers])
        if best != most:
            self.loader = self._loader(best)
        return best

    def epoch(self) -> float:
        """Seconds an image of an epoch of a few batches."""
        self.network.train()
        loss_of = nn.CrossEntropyLoss()
        start, images = time.perf_counter(), 0
        for pixels, labels in self.loader:
            pixels = pixels.to(self.device, non_blocking=True)
            labels = labels.to(self.device, non_blocking=True)
            self.optimizer.zero_grad()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                loss = loss_of(self.network(pixels), labels)
            loss.backward()
            self.optimizer.step()
            images += len(labels)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / images


def default_workers() -> int:
    """One a core."""
    return cores()
