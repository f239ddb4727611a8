"""The LightningDataModule: from settings to a split, stored pixels and augmented batches."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from histo_lightning.config.checks import check
from histo_lightning.config.schema import Config, DatasetConfig, SplitConfig
from histo_lightning.config.tree import option, option_names
from histo_lightning.data import augment as views
from histo_lightning.data.batches import Batch, Batches, Loader, Part, PillowDataset, build_parts
from histo_lightning.data.breakhis.names import class_indices
from histo_lightning.data.pixels.cache import Pixels, default_cache_dir, load_pixels
from histo_lightning.data.sources.dataset import Source, find_root, open_source
from histo_lightning.data.sources.folder import Progress
from histo_lightning.data.splits.build import Split, build_split, labelled
from histo_lightning.errors import UserError

RESIDENT_SHARE = 0.5  # of a GPU's free memory, that stored pixels may take; else batches are prefetched
PREFETCHING_WORKERS = 2  # on a GPU whose memory is too small, unless workers says otherwise


class BreakHisDataModule(LightningDataModule):
    """BreakHis for any LightningModule.

    Batches are dicts: ``image`` float32 B x 3 x H x W (normalised, channels_last; augmented in training), and
    ``label``, ``index`` (position in ``parts[part].records``), ``case`` (an identifier), all int64, B. Arguments mean what
    the config keys of the same name mean; None is the default of ``conf/``, and UserError says what cannot work.

    Args:
        dataset: ``synthetic``, ``breakhis`` or ``folders``; ``root`` says where for the last two, and ``download``
            fetches BreakHis there first (from ``url``, by default the authors' address).
        magnification, task: ``40x`` ... ``400x`` or ``all``; ``binary`` (malignant is 1) or ``subtype`` (8 classes).
        split: a kind (``case_kfold``), or all its keys; ``fold`` is the one that is tested.
        image_size, short_side: side of the training square, and short side of the stored pixels (None: 8/7 of it).
        augment: an option (``d4_stain``, ``d4``, ``none``), or all its keys; ``normalisation`` is ``train`` or ``imagenet``.
        batch_size, sampler: images a step over all processes together; ``shuffle`` or ``case_balanced``.
        images_per_slide, synthetic_size, synthetic_seed: what is drawn for ``synthetic``; the size is the width in pixels.
        seed, workers: of order and augmentation; processes that load batches, whose number changes no result (0 is this
            one, or a GPU's own memory where the pixels fit).
        progress: called with (done, in all) while pixels are drawn and decoded.
    """

    def __init__(
        self, dataset: str = "synthetic", root: str = "", *, magnification: str = "40x", task: str = "binary",
        split: str | Mapping[str, Any] | SplitConfig | None = None, fold: int | None = None,
        image_size: int | None = None, augment: views.Augmentation = "d4_stain", normalisation: str | None = None,
        batch_size: int | None = None, sampler: str = "shuffle", short_side: int | None = None,
        images_per_slide: int | None = None, synthetic_size: int | None = None, synthetic_seed: int | None = None,
        download: bool = False, url: str | None = None, seed: int = 0, workers: int = 0,
        cache_dir: str | Path | None = None, progress: Progress | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        defaults = option("dataset", dataset)
        size = image_size or int(defaults.get("image_size", 112))
        drawn: dict[str, Any] = {"images_per_slide": images_per_slide, "image_size": synthetic_size}
        drawn = {key: value or defaults["dataset"].get(key) for key, value in drawn.items()}
        drawn |= {"seed": synthetic_seed, "short_side": short_side or round(size * 8 / 7)}
        self.dataset_settings = DatasetConfig(dataset, root, **drawn, download=download, url=url)
        split = split or ("folders" if dataset == "folders" else "case_kfold")
        if isinstance(split, str):
            split = option("split", split) if split in option_names("split") else {"name": split}
        split = split if isinstance(split, SplitConfig) else SplitConfig(**split)
        self.split_settings = split if fold is None else replace(split, fold=fold)
        self.recipe = views.recipe_of(augment, size, normalisation)
        self.magnification, self.task, self.class_to_idx = magnification, task, class_indices(task)
        self.batch_size = batch_size or int(defaults.get("batch_size", 16))
        self.sampler, self.normalisation = sampler, self.recipe.normalisation
        self.seed, self.workers = seed, workers
        self.cache_dir, self.progress = Path(cache_dir or default_cache_dir()), progress
        self.predict_parts: tuple[str, ...] = ("test",)  # a loader each from predict_dataloader
        check(Config(magnification=magnification, task=task, sampler=sampler, augment=self.recipe))
        self.save_hyperparameters(self.settings(), logger=False)
        self.source: Source | None = None
        self.split: Split | None = None
        self.pixels: Pixels | None = None
        self.parts: dict[str, Part] = {}
        self.mean, self.std = torch.tensor(views.IMAGENET_MEAN), torch.tensor(views.IMAGENET_STD)
        self._resident: Tensor | None = None
        self._on_device: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def settings(self) -> dict[str, Any]:
        """What the module was made with, as the config keys of a run: nested, primitives only."""
        augment, dataset = asdict(self.recipe), asdict(self.dataset_settings)
        keys = ("name", "root", "images_per_slide", "image_size", "short_side")
        return {
            "dataset": {key: dataset[key] for key in keys},
            "split": asdict(self.split_settings),
            "image_size": augment.pop("size"),
            "augment": augment,
            **{key: getattr(self, key) for key in ("magnification", "task", "batch_size", "sampler", "seed")},
        }

    def __str__(self) -> str:
        settings, split = self.split_settings, self.split
        about = (
            f"BreakHisDataModule: {self.dataset_settings.name}, {self.magnification}, {self.task}\n"
            f"split={settings.name} fold={settings.fold}, {self.recipe.text()}, batches of {self.batch_size}\n"
        )
        if split is None:
            return about + "not set up: call setup(), or give it to a Trainer"
        images, cases = ([f"{part} {len(n)}" for part, n in m.items()] for m in (split.parts, split.cases))
        label = f", {split.label}" if split.label else ""
        return f"{about}images: {', '.join(images)}; cases: {', '.join(cases)}{label}"

    def describe(self) -> dict[str, Any]:
        """What travels in a checkpoint: classes, view, normalisation, which cases were seen; primitives only."""
        _, split, pixels = self._ready()
        train, val = split.cases["train"], split.cases["val"]
        seen = np.concatenate([self.parts["train"].rows, self.parts["val"].rows]).tolist()
        images = {"input_size": [3, *self.evaluation_size], "batch_size": self.batch_size}
        images |= {"normalisation": {"mean": self.mean.tolist(), "std": self.std.tolist()}}
        cases = {"train_cases": list(train), "val_cases": list(val), "seen_cases": sorted({*train, *val})}
        digits = sorted({pixels.digests[row][:16] for row in seen})  # the first of the SHA-256
        about = {
            "config": self.settings(),
            "class_to_idx": self.class_to_idx,
            "transforms": self.recipe.text(),
        }
        return about | images | {"split_hash": split.hash, **cases, "seen_pixels": digits, "threshold": 0.5}

    def _ready(self) -> tuple[Source, Split, Pixels]:
        if self.source is None or self.split is None or self.pixels is None:
            raise UserError("not set up: call prepare_data() and setup(), or give it to a Trainer")
        return self.source, self.split, self.pixels

    def prepare_data(self) -> None:
        """Draw the synthetic set and decode all pixels once, for all processes."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Find, split and decode, or raise UserError; does nothing the second time."""
        if self.parts:
            return
        root = find_root(self.dataset_settings, self.cache_dir, self.progress)
        source, settings = open_source(self.dataset_settings, root), self.split_settings
        split = build_split(source.records, settings, magnification=self.magnification, task=self.task)
        size, short_side = self.recipe.size, self.dataset_settings.short_side or 0
        if size > short_side:
            raise UserError(f"dataset.short_side={short_side}: smaller than image_size={size}; leave it null")
        chosen = {image for names in split.parts.values() for image in names}
        records = [r for r in labelled(source.records, settings) if r.image in chosen]
        # All images of a magnification, so that every fold and every way to split shares what is stored.
        present = {r.magnification for r in records}
        shared = [r for r in source.records if r.magnification in present or not source.sizes]
        sizes, progress = source.sizes, self.progress
        pixels = load_pixels(root, shared, short_side, self.cache_dir, sizes=sizes, progress=progress)
        self.source, self.split, self.pixels = source, split, pixels
        self.parts = build_parts(split, records, pixels, self.task)
        if self.normalisation == "train":
            statistics = pixels.channel_statistics(self.parts["train"].rows)
            self.mean, self.std = (torch.tensor(values, dtype=torch.float32) for values in statistics)

    @property
    def class_counts(self) -> list[int]:
        """Training images by class index."""
        return torch.bincount(self.parts["train"].labels, minlength=len(self.class_to_idx)).tolist()

    @property
    def evaluation_size(self) -> tuple[int, int]:
        """(height, width) of what validation and test see, in pixels."""
        if self.recipe.evaluate != "field" or self.pixels is None:
            return self.recipe.size, self.recipe.size
        return self.pixels.shape

    @property
    def fingerprint(self) -> str:
        """Hash of the native pixels of all images in the split."""
        _, split, pixels = self._ready()
        return pixels.fingerprint(image for names in split.parts.values() for image in names)

    def loader(self, part: str, *, train: bool = False) -> Loader:
        """Batches of a part: in a seeded order with full batches for training, else every image in batches of one shape."""
        source, _, pixels = self._ready()
        members, trainer = self.parts[part], self.trainer
        rank, processes = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        device = trainer.strategy.root_device if trainer is not None else torch.device("cpu")
        overfits = train and bool(getattr(trainer, "overfit_batches", 0))
        order = self.sampler if train else "sequential"
        by_pillow, on_gpu = self.recipe.name == "thesis_pillow", device.type == "cuda"
        batches = Batches(
            members.records, members.labels.tolist(), order, self.seed, self.batch_size,
            training=train, repeats=overfits, rank=rank, processes=processes, with_epoch=by_pillow,
        )  # fmt: skip
        dataset: Part | PillowDataset = members
        if by_pillow:
            view = self.recipe, self.mean, self.std
            dataset = PillowDataset(members, source.root, *view, train=train, seed=self.seed)
        resides = on_gpu and not self.workers and not by_pillow
        if resides and self._resident is None:
            fits = pixels.nbytes <= RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]
            self._resident = members.stored_on(device) if fits else None
        stored = self._resident if resides else None
        workers = self.workers or (PREFETCHING_WORKERS if on_gpu and stored is None else 0)
        # Without a Trainer nobody calls on_after_batch_transfer: the loader gives what a network sees.
        seen = partial(self.view, training=train) if trainer is None else None
        return Loader(dataset, batches, workers=workers, pin=on_gpu, view=seen, stored=stored)

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
        if (trainer := self.trainer) is None:
            return self.view(batch, training=False)
        return self.view(batch, training=trainer.training, epoch=trainer.current_epoch)

    def view(self, batch: Batch, *, training: bool, epoch: int = 0) -> Batch:
        """The batch with its uint8 pixels replaced by what the network sees (finished images stay as they are)."""
        pixels = batch["image"]
        if pixels.is_floating_point():
            return batch
        if pixels.device not in self._on_device:  # a copy at every step would make the device wait
            self._on_device[pixels.device] = self.mean.to(pixels.device), self.std.to(pixels.device)
        mean, std = self._on_device[pixels.device]
        if not training:
            return batch | {"image": views.evaluation_view(pixels, self.recipe, mean, std)}
        image = views.augment(pixels, batch["index"], self.recipe, mean, std, seed=self.seed, epoch=epoch)
        return batch | {"image": image}
