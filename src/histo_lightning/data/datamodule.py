"""The LightningDataModule: holds records, split, pixels and augmentation together."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from histo_lightning.config.schema import AugmentConfig, SplitConfig
from histo_lightning.config.tree import conf_dir, option
from histo_lightning.data.augment import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Recipe,
    augment,
    check_steps,
    evaluation_view,
)
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
    View,
    WorkerLoader,
    whole,
)
from histo_lightning.data.sources.dataset import Source, find_files, open_source
from histo_lightning.data.sources.folder import Folder
from histo_lightning.data.splits import Split, build_split
from histo_lightning.data.splits.label_shuffling import labelled
from histo_lightning.errors import UserError

# Share of a GPU's free memory that the stored pixels may take; else batches are pinned and prefetched.
RESIDENT_SHARE = 0.5
PREFETCHING_WORKERS = 2  # on a GPU whose memory is too small, unless workers says otherwise
Loader = DirectLoader | WorkerLoader | ResidentLoader


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

    Arguments mean what the config keys of the same name mean, and None is the default of ``conf/``.

    Args:
        dataset: ``synthetic``, ``breakhis`` or ``folders``; ``root`` says where for the last two, and ``download``
            fetches BreakHis there first (from ``url``, by default the authors' address).
        magnification: ``40x`` ... ``400x`` or ``all``.
        task: ``binary`` (benign 0, malignant 1) or ``subtype`` (eight classes).
        split: how to split: a kind (``case_kfold``), or all its keys; ``fold`` which fold is tested.
        image_size: side of the training square in pixels.
        augment: an option (``d4``, ``none``), or all its keys; ``normalisation`` is ``train`` or ``imagenet``.
        batch_size: images a step over all processes together.
        sampler: ``shuffle`` or ``case_balanced``.
        short_side: short side of the stored pixels; None keeps 8/7 of the training square.
        images_per_slide, synthetic_size, synthetic_seed: what is drawn for ``synthetic``; the size is the width in pixels.
        seed: of order and augmentation.
        workers: processes that load batches. 0 reads them from the memory map in this process, or on a GPU from its own
            memory where they fit; results are the same with any number.
        cache_dir: where pixels are kept; None is ``~/.cache/histo_lightning``.
        progress: called with (done, in all) while pixels are drawn and decoded.

    Attributes:
        predict_parts: what ``predict_dataloader`` gives, a loader each: ``train``, ``val``, ``test``.

    Raises:
        UserError: a setting that cannot work.
    """

    def __init__(
        self,
        dataset: str = "synthetic",
        root: str = "",
        *,
        magnification: str = "40x",
        task: str = "binary",
        split: str | Mapping[str, Any] | SplitConfig | None = None,
        fold: int | None = None,
        image_size: int | None = None,
        augment: str | Mapping[str, Any] | AugmentConfig = "d4",
        normalisation: str | None = None,
        batch_size: int | None = None,
        sampler: str = "shuffle",
        short_side: int | None = None,
        images_per_slide: int | None = None,
        synthetic_size: int | None = None,
        synthetic_seed: int | None = None,
        download: bool = False,
        url: str | None = None,
        seed: int = 0,
        workers: int = 0,
        cache_dir: str | Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__()
        defaults = option("dataset", dataset)
        drawn = defaults.get("dataset", {})
        self.dataset, self.root = dataset, root
        self.split_settings = _split_settings(
            split or ("folders" if dataset == "folders" else "case_kfold"), fold
        )
        size = image_size or int(defaults.get("image_size", 112))
        self.recipe = _recipe(augment, size, normalisation)
        self.magnification, self.task = magnification, task
        self.batch_size = batch_size or int(defaults.get("batch_size", 16))
        self.sampler, self.normalisation = sampler, self.recipe.normalisation
        self.short_side = short_side or round(size * 8 / 7)
        self.images_per_slide = images_per_slide or int(drawn.get("images_per_slide") or 4)
        self.synthetic_size = synthetic_size or int(drawn.get("image_size") or 350)
        self.synthetic_seed = synthetic_seed or 0
        self.download, self.url = download, url
        self.seed, self.workers = seed, workers
        self.cache_dir = Path(cache_dir) if cache_dir else default_cache_dir()
        self.progress = progress
        self.predict_parts: tuple[str, ...] = ("test",)
        for name, given, allowed in (
            ("magnification", magnification, ("40x", "100x", "200x", "400x", "all")),
            ("task", task, ("binary", "subtype")),
            ("sampler", sampler, ("shuffle", "case_balanced")),
            ("normalisation", self.normalisation, ("train", "imagenet")),
        ):
            if given not in allowed:
                raise UserError(f"{name}={given}: allowed are {', '.join(allowed)}")
        self.save_hyperparameters(self.settings(), logger=False)
        self.source: Source | None = None
        self.split: Split | None = None
        self.pixels: Pixels | None = None
        self.parts: dict[str, Part] = {}
        self.mean = torch.tensor(IMAGENET_MEAN)
        self.std = torch.tensor(IMAGENET_STD)
        self._resident: Tensor | None = None
        self._on_device: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def settings(self) -> dict[str, Any]:
        """What the module was made with, as the config keys of a run: nested, primitives only."""
        augment = asdict(self.recipe)
        return {
            "dataset": {
                "name": self.dataset,
                "root": self.root,
                "images_per_slide": self.images_per_slide,
                "image_size": self.synthetic_size,
                "short_side": self.short_side,
            },
            "split": asdict(self.split_settings),
            "magnification": self.magnification,
            "task": self.task,
            "image_size": augment.pop("size"),
            "augment": augment,
            "batch_size": self.batch_size,
            "sampler": self.sampler,
            "seed": self.seed,
        }

    def __str__(self) -> str:
        split = self.split_settings
        words = [
            f"BreakHisDataModule: {self.dataset}, {self.magnification}, {self.task}",
            f"split={split.name} fold={split.fold}, {self.recipe.text()}, batches of {self.batch_size}",
        ]
        if self.split is None:
            return "\n".join([*words, "not set up: call setup(), or give it to a Trainer"])
        images = ", ".join(f"{part} {len(names)}" for part, names in self.split.parts.items())
        cases = ", ".join(f"{part} {len(names)}" for part, names in self.split.cases.items())
        label = f", {self.split.label}" if self.split.label else ""
        return "\n".join([*words, f"images: {images}; cases: {cases}{label}"])

    def describe(self) -> dict[str, Any]:
        """What travels in a checkpoint: classes, view, normalisation, which cases were seen; primitives only."""
        split, _ = self._ready()
        height, width = self.evaluation_size
        return {
            "config": self.settings(),
            "class_to_idx": self.class_to_idx,
            "input_size": [3, height, width],
            "batch_size": self.batch_size,
            "transforms": self.recipe.text(),
            "normalisation": {"mean": self.mean.tolist(), "std": self.std.tolist()},
            "split_hash": split.hash,
            "train_cases": list(split.cases["train"]),
            "val_cases": list(split.cases["val"]),
            "seen_cases": sorted({*split.cases["train"], *split.cases["val"]}),
            "seen_pixels": self.seen_pixels,
            "threshold": 0.5,
        }

    def _ready(self) -> tuple[Split, dict[str, "Part"]]:
        if self.split is None or self.pixels is None:
            raise UserError(
                "the data module is not set up: call prepare_data() and setup(), or give it to a Trainer"
            )
        return self.split, self.parts

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
            image_size=self.synthetic_size,
            seed=self.synthetic_seed,
            download=self.download,
            url=self.url,
            progress=self.progress,
        )
        source = open_source(self.dataset, files, image_size=self.synthetic_size)
        split = build_split(
            source.records,
            self.split_settings,
            magnification=self.magnification,
            task=self.task,
        )
        chosen = {image for names in split.parts.values() for image in names}
        records = {r.image: r for r in labelled(source.records, self.split_settings) if r.image in chosen}
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
            dataset = PartDataset(
                pixels, rows, labels, [cases[r.case or r.image] for r in members], [r.image for r in members]
            )
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
        if not self.recipe.whole_field or self.pixels is None:
            return self.recipe.size, self.recipe.size
        return self.pixels.shape

    @property
    def fingerprint(self) -> str:
        """Hash of the native pixels of all images in the split."""
        split, _ = self._ready()
        assert self.pixels is not None
        return self.pixels.fingerprint(image for names in split.parts.values() for image in names)

    @property
    def seen_pixels(self) -> list[str]:
        """The first 16 hex digits of the SHA-256 of the native pixels of every train and validation image, sorted."""
        self._ready()
        assert self.pixels is not None
        digests = dict(zip(self.pixels.images, self.pixels.digests, strict=True))
        return sorted({digests[r.image][:16] for part in ("train", "val") for r in self.parts[part].records})

    def loader(self, part: str, *, train: bool = False) -> Loader:
        """Batches of a part: in a seeded order with full batches for training, else every image in batches of one shape."""
        _, parts = self._ready()
        members, trainer = parts[part], self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        device = trainer.strategy.root_device if trainer is not None else torch.device("cpu")
        overfits = train and trainer is not None and bool(getattr(trainer, "overfit_batches", 0))
        order = EpochOrder(
            members.records,
            members.labels,
            self.sampler if train else "sequential",
            self.seed,
            repeats=overfits,
        )
        by_pillow = self.recipe.name == "thesis_pillow"
        batches = Batches(
            order, self.batch_size, training=train, rank=rank, world=world, with_epoch=by_pillow
        )
        # Without a Trainer nobody calls on_after_batch_transfer: the loader gives what a network sees by itself.
        view = partial(self._viewed, train) if trainer is None else None
        if by_pillow:
            return self._workers(self._pillow(members, train), batches, None, view)
        if device.type == "cuda" and self.workers == 0 and (stored := self._stored(device)) is not None:
            return ResidentLoader(members.dataset, batches, stored)
        if device.type == "cpu" and self.workers == 0:
            return DirectLoader(members.dataset, batches, view)
        return self._workers(members.dataset, batches, whole, view)

    def _viewed(self, train: bool, batch: Batch, epoch: int) -> Batch:
        return self.view(batch, training=train, epoch=epoch)

    def _workers(
        self,
        dataset: PartDataset | PillowDataset,
        batches: Batches,
        collate: Callable[[Any], Any] | None,
        view: View | None,
    ) -> WorkerLoader:
        cuda = torch.cuda.is_available()
        workers = self.workers or (PREFETCHING_WORKERS if cuda else 0)
        loader: DataLoader[Batch] = DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=cuda,
            generator=torch.Generator(),  # else each iterator draws from torch's own, and dropout changes after a resume
        )
        return WorkerLoader(loader, batches, view)

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

    def predict_dataloader(self) -> Loader | list[Loader]:
        loaders = [self.loader(part) for part in self.predict_parts]
        return loaders[0] if len(loaders) == 1 else loaders

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


def _split_settings(split: str | Mapping[str, Any] | SplitConfig, fold: int | None) -> SplitConfig:
    if isinstance(split, str):
        shipped = (conf_dir() / "split" / f"{split}.yaml").is_file()
        split = SplitConfig(**option("split", split)) if shipped else SplitConfig(name=split)
    elif not isinstance(split, SplitConfig):
        split = SplitConfig(**split)
    return split if fold is None else replace(split, fold=fold)


def _recipe(augment: str | Mapping[str, Any] | AugmentConfig, size: int, normalisation: str | None) -> Recipe:
    keys = (
        option("augment", augment)
        if isinstance(augment, str)
        else asdict(augment)
        if isinstance(augment, AugmentConfig)
        else dict(augment)
    )
    known = {field.name for field in fields(AugmentConfig)}
    for name in keys:
        if name not in known:
            raise UserError(f"augment: {name!r} is no key of it; allowed are {', '.join(sorted(known))}")
    if normalisation is not None:
        keys["normalisation"] = normalisation
    check_steps(keys.get("steps") or {})
    return Recipe(**{**keys, "size": size})


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
