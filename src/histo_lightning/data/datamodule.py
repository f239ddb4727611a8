"""The LightningDataModule: holds records, split, pixels and augmentation together."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from histo_lightning.data.augment import IMAGENET_MEAN, IMAGENET_STD, Recipe, augment, evaluation_view
from histo_lightning.data.breakhis.names import CLASSES, SUBTYPES
from histo_lightning.data.breakhis.records import PARTS, Record
from histo_lightning.data.pillow import PillowDataset, evaluation_transforms, training_transforms
from histo_lightning.data.pixels.cache import (
    Pixels,
    Progress,
    default_cache_dir,
    default_threads,
    load_pixels,
)
from histo_lightning.data.sampling import (
    Batch,
    Batches,
    DirectLoader,
    EpochOrder,
    PartDataset,
    ResidentLoader,
    as_is,
)
from histo_lightning.data.sources.dataset import Source, find_files, open_source
from histo_lightning.data.sources.folder import Folder
from histo_lightning.data.splits import Split, SplitConfig, build_split
from histo_lightning.data.splits.label_shuffling import labelled
from histo_lightning.errors import UserError

# Share of a GPU's free memory that the stored pixels may take; else batches are pinned and prefetched.
RESIDENT_SHARE = 0.5
PREFETCHING_WORKERS = 2  # on a GPU whose memory is too small, unless workers says otherwise
Loader = DataLoader[Batch] | DirectLoader | ResidentLoader


@dataclass(frozen=True)
class Part:
    """One part of a split: its records (in the order of ``index``), labels and dataset."""

    records: tuple[Record, ...]
    labels: tuple[int, ...]
    dataset: PartDataset


class BreakHisDataModule(LightningDataModule):
    """BreakHis for any LightningModule.

    Batches are dicts: ``image`` float32 B x 3 x H x W (normalised, channels_last; augmented in training), and
    ``label``, ``index`` (position in ``parts[part].records``), ``case`` (an identifier), all int64, B.

    Args:
        dataset: ``synthetic``, ``breakhis`` or ``folders``; ``root`` says where for the last two, and ``download``
            fetches BreakHis there first (from ``url``, by default the authors' address).
        plan: how to split; see :class:`SplitConfig`.
        recipe: augmentation; its ``size`` is the side of the training square in pixels.
        magnification: ``40x`` ... ``400x`` or ``all``.
        task: ``binary`` (benign 0, malignant 1) or ``subtype`` (eight classes).
        batch_size: images a step over all processes together.
        sampler: ``shuffle`` or ``case_balanced``.
        normalisation: ``train`` (mean and deviation of the training part) or ``imagenet``.
        short_side: short side of the stored pixels; None keeps 8/7 of the training square.
        seed: of order and augmentation.
        workers: processes that load batches. 0 reads them from the memory map in this process, or on a GPU from its own
            memory where they fit; results are the same with any number.
    """

    def __init__(
        self,
        dataset: str = "synthetic",
        root: str = "",
        *,
        plan: SplitConfig | None = None,
        recipe: Recipe | None = None,
        magnification: str = "40x",
        task: str = "binary",
        batch_size: int = 32,
        sampler: str = "shuffle",
        normalisation: str = "train",
        short_side: int | None = None,
        images_per_slide: int = 4,
        image_size: int = 350,
        dataset_seed: int = 0,
        download: bool = False,
        url: str | None = None,
        seed: int = 0,
        workers: int = 0,
        cache_dir: str | Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__()
        self.dataset, self.root, self.plan = dataset, root, plan or SplitConfig()
        self.recipe = recipe or Recipe(size=112, name="d4", dihedral=True)
        self.magnification, self.task = magnification, task
        self.batch_size, self.sampler, self.normalisation = batch_size, sampler, normalisation
        self.short_side = short_side or round(self.recipe.size * 8 / 7)
        self.images_per_slide, self.image_size, self.dataset_seed = images_per_slide, image_size, dataset_seed
        self.download, self.url = download, url
        self.seed, self.workers = seed, workers
        self.cache_dir = Path(cache_dir) if cache_dir else default_cache_dir()
        self.progress = progress
        self.source: Source | None = None
        self.split: Split | None = None
        self.pixels: Pixels | None = None
        self.parts: dict[str, Part] = {}
        self.mean = torch.tensor(IMAGENET_MEAN)
        self.std = torch.tensor(IMAGENET_STD)
        self._resident: Tensor | None = None
        self._on_device: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @property
    def class_to_idx(self) -> dict[str, int]:
        names = SUBTYPES if self.task == "subtype" else CLASSES
        return {name: i for i, name in enumerate(names)}

    def prepare_data(self) -> None:
        """Draw the synthetic set and decode all pixels once, so that other processes find them on disk."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Find, split and decode; does nothing the second time.

        Raises:
            UserError: see :func:`open_source`, :func:`build_split`, :func:`load_pixels`.
        """
        if self.parts:
            return
        files = find_files(
            self.dataset,
            self.root,
            self.cache_dir,
            images_per_slide=self.images_per_slide,
            image_size=self.image_size,
            seed=self.dataset_seed,
            download=self.download,
            url=self.url,
            progress=self.progress,
        )
        source = open_source(self.dataset, files, image_size=self.image_size)
        split = build_split(
            source.records,
            self.plan,
            magnification=self.magnification,
            task=self.task,
            folder_parts=source.folder_parts,
        )
        chosen = {image for names in split.parts.values() for image in names}
        records = {r.image: r for r in labelled(source.records, self.plan) if r.image in chosen}
        if self.recipe.size > self.short_side:
            raise UserError(
                f"dataset.short_side={self.short_side}: smaller than image_size={self.recipe.size}; leave it null"
            )
        # Whole magnifications, so that every fold and every way to split shares what is stored.
        present = {record.magnification for record in records.values()}
        pixels = load_pixels(
            source.files,
            [record for record in source.records if record.magnification in present or not source.sizes],
            self.short_side,
            self.cache_dir,
            sizes=source.sizes,
            progress=self.progress,
        )
        self.source, self.split, self.pixels = source, split, pixels
        row_of = {image: row for row, image in enumerate(pixels.images)}
        cases = {
            case: i
            for i, case in enumerate(sorted({record.case or record.image for record in records.values()}))
        }
        for part in PARTS:
            members = tuple(records[image] for image in split.parts[part])
            labels = tuple(self._label(record) for record in members)
            rows = np.array([row_of[record.image] for record in members], dtype=np.int64)
            dataset = PartDataset(pixels, rows, labels, [cases[r.case or r.image] for r in members])
            self.parts[part] = Part(members, labels, dataset)
        if self.normalisation == "train":
            self.mean, self.std = channel_statistics(pixels, self.parts["train"].dataset.rows)

    def _label(self, record: Record) -> int:
        if self.task == "subtype" and not record.subtype:
            raise UserError(f"{record.path}: task=subtype needs BreakHis names, which say the subtype")
        return self.class_to_idx[record.subtype if self.task == "subtype" else record.class_name]

    @property
    def class_counts(self) -> list[int]:
        """Training images by class index."""
        return [self.parts["train"].labels.count(i) for i in range(len(self.class_to_idx))]

    @property
    def evaluation_size(self) -> tuple[int, int]:
        """(height, width) of what validation and test see, in pixels."""
        if self.recipe.evaluate != "field" or self.recipe.name == "none" or self.pixels is None:
            return self.recipe.size, self.recipe.size
        return self.pixels.shape

    @property
    def fingerprint(self) -> str:
        """Hash of the native pixels of all images in the split."""
        if self.pixels is None or self.split is None:
            raise RuntimeError("the data module is not set up")
        return self.pixels.fingerprint(image for names in self.split.parts.values() for image in names)

    @property
    def seen_pixels(self) -> list[str]:
        """The first 16 hex digits of the SHA-256 of the native pixels of every train and validation image, sorted."""
        if self.pixels is None:
            raise RuntimeError("the data module is not set up")
        digests = dict(zip(self.pixels.images, self.pixels.digests, strict=True))
        return sorted({digests[r.image][:16] for part in ("train", "val") for r in self.parts[part].records})

    def loader(self, part: str, *, train: bool = False) -> Loader:
        """Batches of a part: in a seeded order with full batches for training, else every image in batches of one shape."""
        members = self.parts[part]
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        device = trainer.strategy.root_device if trainer is not None else torch.device("cpu")
        order = EpochOrder(
            members.records, members.labels, self.sampler if train else "sequential", self.seed
        )
        by_pillow = self.recipe.name == "thesis_pillow"
        batches = Batches(
            order, self.batch_size, training=train, rank=rank, world=world, with_epoch=by_pillow
        )
        if by_pillow:
            return self._workers(self._pillow(members, train), batches, None)
        if device.type == "cuda" and self.workers == 0 and (stored := self._stored(device)) is not None:
            return ResidentLoader(members.dataset, batches, stored)
        if device.type == "cpu" and self.workers == 0:
            return DirectLoader(members.dataset, batches)
        return self._workers(members.dataset, batches, as_is)

    def _workers(
        self, dataset: PartDataset | PillowDataset, batches: Batches, collate: Callable[[Any], Any] | None
    ) -> DataLoader[Batch]:
        cuda = torch.cuda.is_available()
        workers = self.workers or (PREFETCHING_WORKERS if cuda else 0)
        return DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=cuda,
            generator=torch.Generator(),  # else each iterator draws from torch's own, and dropout changes after a resume
        )

    def _stored(self, device: torch.device) -> Tensor | None:
        """All stored pixels in the device's memory, copied there once, where they fit into its share."""
        if self._resident is None and self.pixels is not None:
            free, _ = torch.cuda.mem_get_info(device)
            if self.pixels.nbytes > RESIDENT_SHARE * free:
                return None
            self._resident = resident_pixels(self.pixels, device)
        return self._resident

    def _pillow(self, part: Part, train: bool) -> PillowDataset:
        if self.source is None or not isinstance(self.source.files, Folder):
            raise UserError(
                f"dataset.root={self.root}: augment=thesis_pillow opens files one by one; unpack the archive"
            )
        build = training_transforms if train else evaluation_transforms
        paths = [self.source.files.root / record.path for record in part.records]
        cases = part.dataset.cases.tolist()
        return PillowDataset(paths, part.labels, cases, build(self.recipe, self.mean, self.std), self.seed)

    def train_dataloader(self) -> Loader:
        return self.loader("train", train=True)

    def val_dataloader(self) -> Loader:
        return self.loader("val")

    def test_dataloader(self) -> Loader:
        return self.loader("test")

    def predict_dataloader(self) -> Loader:
        return self.loader("test")

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment (in training) and normalise, on the device the batch has been moved to."""
        training = self.trainer is not None and self.trainer.training
        return self.view(
            batch, training=training, epoch=self.trainer.current_epoch if self.trainer is not None else 0
        )

    def view(self, batch: Batch, *, training: bool, epoch: int = 0) -> Batch:
        """The batch with its uint8 pixels replaced by what the network sees (finished images stay as they are)."""
        pixels = batch["image"]
        if pixels.is_floating_point():
            return batch
        if pixels.device not in self._on_device:  # a copy at every step would make the device wait
            self._on_device[pixels.device] = self.mean.to(pixels.device), self.std.to(pixels.device)
        mean, std = self._on_device[pixels.device]
        if training:
            image = augment(pixels, batch["index"], self.recipe, mean, std, seed=self.seed, epoch=epoch)
        else:
            image = evaluation_view(pixels, self.recipe, mean, std)
        return batch | {"image": image}


def resident_pixels(pixels: Pixels, device: torch.device) -> Tensor:
    """All stored images on a device, uint8 N x H x W x 3, copied a piece at a time."""
    height, width = pixels.shape
    stored = torch.empty((len(pixels.images), height, width, 3), dtype=torch.uint8, device=device)
    for start in range(0, len(stored), 64):
        rows = np.arange(start, min(start + 64, len(stored)))
        stored[start : start + 64] = torch.from_numpy(pixels.take(rows)).to(device)
    return stored


def channel_statistics(pixels: Pixels, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over the given images, in units of [0, 1] (float32, 3 each).

    From sums of whole numbers, so that they are exact whatever the order.
    """

    def sums(chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        images = pixels.take(chosen)
        lines = images.reshape(len(images) * images.shape[1], -1)
        totals = [lines.sum(axis=0, dtype=np.uint32)]
        totals.append(np.multiply(lines, lines, dtype=np.uint16).sum(axis=0, dtype=np.uint32))
        return np.stack([total.reshape(-1, 3).sum(axis=0, dtype=np.int64) for total in totals])

    with ThreadPoolExecutor(default_threads()) as pool:
        # 16 images of 4,096 lines would just not overflow.
        first, second = np.sum(list(pool.map(sums, np.split(rows, range(16, len(rows), 16)))), axis=0)
    height, width = pixels.shape
    count = len(rows) * height * width
    mean = first / count
    std = np.sqrt(np.maximum(second / count - mean**2, 0))
    return torch.tensor(mean / 255, dtype=torch.float32), torch.tensor(
        np.maximum(std / 255, 1e-3), dtype=torch.float32
    )
