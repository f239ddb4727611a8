"""P1-P4, P7, P11, P13: epochs of a real fit against pure compute and the naive pipeline, in one process."""

import copy
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.nn import functional

from histo_lightning.classifier import Classifier
from histo_lightning.classifier.hardware import Hardware, resolve
from histo_lightning.classifier.optimizers import build_optimizer
from histo_lightning.config.schema import Config
from histo_lightning.config.tree import option
from histo_lightning.data.datamodule import BreakHisDataModule
from histo_lightning.training.objects import build_classifier, build_datamodule, without_hints

from .defaults import default_trainer
from .measure import Row, judged, ratios, unmeasured
from .naive import NaivePipeline, default_workers, link_tree

MOST_STEPS = (
    4  # of an epoch, and half as many of validation: short epochs make the costs of an epoch weigh more
)


class Rounds(Callback):
    """Times the epochs of a fit; after each, calls what it is compared with. The last callback, so that all others count."""

    def __init__(self, others: dict[str, Callable[[], float]]) -> None:
        self.others = others
        self.found: dict[str, list[float]] = {name: [] for name in ("epoch", "train", "first batch", *others)}
        self._begun = self._start = 0.0

    def _wait(self, module: LightningModule) -> float:
        if module.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begun = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = time.perf_counter()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0:
            self.found["first batch"].append(self._wait(pl_module) - self._start)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.found["train"].append(self._wait(pl_module) - self._start)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.found["epoch"].append(self._wait(pl_module) - self._begun)
        for name, other in self.others.items():
            self.found[name].append(other())
        self._begun = time.perf_counter()


@dataclass
class PureCompute:
    """The same steps on one batch that lies ready: what the hardware can do with this network."""

    classifier: Classifier
    config: Config
    hardware: Hardware
    train_batch: dict[str, torch.Tensor]
    val_batch: dict[str, torch.Tensor]
    steps: int
    val_steps: int

    def __post_init__(self) -> None:
        self.network = copy.deepcopy(self.classifier.network)
        self.network.to(self.train_batch["image"].device)
        if self.config.trainer.channels_last:
            self.network.to(memory_format=torch.channels_last)
        if self.hardware.compile:
            self.network.compile()
        self.optimizer = build_optimizer(self.network.parameters(), self.classifier.optimizer_settings)

    def _autocast(self) -> Any:
        device = self.train_batch["image"].device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.hardware.precision == "bf16-mixed")

    def train(self) -> float:
        """Seconds of an epoch's training steps."""
        self.network.train()
        image, label = self.train_batch["image"], self.train_batch["label"]
        start = time.perf_counter()
        for _ in range(self.steps):
            self.optimizer.zero_grad()
            with self._autocast():
                loss = functional.cross_entropy(self.network(image).float(), label)
            torch.autograd.backward(loss)
            self.optimizer.step()
        return self._seconds(start)

    def validate(self) -> float:
        """Seconds of an epoch's validation."""
        self.network.eval()
        start = time.perf_counter()
        with torch.inference_mode(), self._autocast():
            for _ in range(self.val_steps):
                self.network(self.val_batch["image"])
        return self._seconds(start)

    def _seconds(self, start: float) -> float:
        if self.train_batch["image"].is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start


@dataclass(frozen=True)
class Measured:
    """Rounds of one setting, warm-up left out, and what was run."""

    found: dict[str, list[float]]
    images: int
    conditions: str
    naive: str


def measure_epochs(
    config: Config, rounds: int, *, naive_workers: int | None = None, naive_bf16: bool = False
) -> Measured:
    """Interleave real epochs, pure compute, the data path alone, checkpoint writes and the naive pipeline."""
    hardware = resolve(config.trainer)
    torch.set_num_threads(hardware.threads)
    config = replace(config, epochs=rounds + 1)
    with without_hints(), tempfile.TemporaryDirectory(prefix="histo-benchmark-") as temporary:
        folder = Path(temporary)
        data = build_datamodule(config)
        data.setup()
        if data.source is None:
            raise RuntimeError("the data module is not set up")
        classifier = build_classifier(config, data)
        if config.trainer.channels_last:
            classifier.to(memory_format=torch.channels_last)
        device = torch.device("cuda" if hardware.accelerator == "gpu" else "cpu")
        pure = pure_compute(config, hardware, classifier, data, device)
        if hardware.compile:
            classifier.network.compile()
        part = data.parts["train"]
        tree = link_tree(data.source.root, list(part.records), folder / "images")
        naive = NaivePipeline(
            tree, config.model["name"], config.image_size, config.batch_size, device, naive_bf16
        )
        workers = naive.choose_workers(default_workers() if naive_workers is None else naive_workers)
        images = pure.steps * min(config.batch_size, len(part.records))
        trainer_of: list[Trainer] = []
        others = {
            "pure train": pure.train,
            "pure validation": pure.validate,
            "data": lambda: _data_path(data, device, pure.steps),
            "checkpoints": lambda: _checkpoints(trainer_of[0], folder),
            "naive": lambda: naive.epoch() * images,
        }
        clock = Rounds(others)
        trainer = default_trainer(config, folder, hardware, images, [clock])
        trainer_of.append(trainer)
        trainer.limit_train_batches, trainer.limit_val_batches = pure.steps, pure.val_steps
        trainer.fit(classifier, datamodule=data)
        found = {name: values[1:] for name, values in clock.found.items()}
        with suppress(AttributeError):
            del naive.loader  # ends its workers
        height, width = data.source.sizes[0][::-1] if data.source.sizes else (0, 0)
    conditions = (
        f"{data.source.name} {width}x{height}, {config.model['name']} at {config.image_size}, batch {config.batch_size}, "
        f"{pure.steps} steps and {pure.val_steps} validation batches an epoch, augment {config.augment.name}, {hardware.precision}"
    )
    return Measured(
        found, images, conditions, f"naive: float32{' or bf16' if naive_bf16 else ''}, {workers} workers"
    )


def pure_compute(
    config: Config, hardware: Hardware, classifier: Classifier, data: BreakHisDataModule, device: torch.device
) -> PureCompute:
    """The arithmetic of a few steps of a config's epochs."""
    loaders = data.loader("train", train=True), data.loader("val")
    batches = [next(iter(loader)) for loader in loaders]
    moved = [{name: value.to(device) for name, value in batch.items()} for batch in batches]
    return PureCompute(
        classifier,
        config,
        hardware,
        data.view(moved[0], training=True),
        data.view(moved[1], training=False),
        min(len(loaders[0]), MOST_STEPS),
        min(len(loaders[1]), MOST_STEPS // 2),
    )


def _data_path(data: BreakHisDataModule, device: torch.device, steps: int) -> float:
    """Seconds of an epoch's batches, read and augmented, with no network behind them."""
    start = time.perf_counter()
    for _, batch in zip(range(steps), data.loader("train", train=True), strict=False):
        data.view({name: value.to(device) for name, value in batch.items()}, training=True)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _checkpoints(trainer: Trainer, folder: Path) -> float:
    """Seconds of the two files that an epoch with a new best writes."""
    start = time.perf_counter()
    for name in ("best.ckpt", "last.ckpt"):
        trainer.save_checkpoint(folder / name)
    return time.perf_counter() - start


def _sum(one: Sequence[float], two: Sequence[float]) -> list[float]:
    return [a + b for a, b in zip(one, two, strict=True)]


def cpu_rows(config: Config, rounds: int, wanted: Callable[[str], bool], bf16: bool) -> list[Row]:
    """P1, P1c, P3a, P4, P7 at 224 and P2, P3b at 112."""
    rows: list[Row] = []
    asked_naive = {224: ">= 2.5" if bf16 else ">= 1.4", 112: ">= 3.0" if bf16 else ">= 2.2"}
    for size, main, naive, limit in ((224, "P1", "P3a", "<= 1.05"), (112, "P2", "P3b", "<= 1.08")):
        names = [main, naive] + (["P1c", "P4", "P7"] if size == 224 else [])
        if not any(wanted(name) for name in names):
            continue
        # Three epochs of a fit draw heat maps for TensorBoard, however long it is: the median must be of the others.
        found = measure_epochs(replace(config, image_size=size), max(rounds, 7))
        seconds, why = found.found, found.conditions
        pure = _sum(seconds["pure train"], seconds["pure validation"])
        rows.append(
            judged(
                main, f"Trainer epoch / pure compute at {size}", limit, ratios(seconds["epoch"], pure), why
            )
        )
        rows.append(
            judged(
                naive,
                f"naive pipeline / ours at {size}, training part",
                asked_naive[size],
                ratios(seconds["naive"], seconds["train"]),
                f"{why}; {found.naive}",
            )
        )
        if size == 224:
            saving = ratios(_sum(seconds["epoch"], seconds["checkpoints"]), pure)
            rows.append(judged("P1c", "the same with two checkpoints written", "no limit", saving, why))
            rows.append(
                judged(
                    "P4",
                    "data path alone / training steps",
                    "<= 0.03",
                    ratios(seconds["data"], seconds["pure train"]),
                    why,
                )
            )
            rows.append(
                judged("P7", "first batch of an epoch, seconds", "<= 0.1", seconds["first batch"], why)
            )
    return [row for row in rows if wanted(row.id)]


def gpu_rows(config: Config, rounds: int, wanted: Callable[[str], bool]) -> list[Row]:
    """P11 (ResNet-18 and -50) and P13, on a GPU."""
    if not torch.cuda.is_available():
        return [
            unmeasured(id, title, asked, "no GPU on this machine")
            for id, title, asked in (
                ("P11a", "GPU: Trainer epoch / pure compute, ResNet-18", "<= 1.05"),
                ("P11b", "GPU: Trainer epoch / pure compute, ResNet-50", "<= 1.05"),
                ("P13", "GPU: naive bf16 loop with 16 Pillow workers / ours", ">= 8"),
            )
            if wanted(id)
        ]
    rows: list[Row] = []
    for id, name in (("P11a", "resnet18"), ("P11b", "resnet50")):
        if not wanted(id) and not (id == "P11a" and wanted("P13")):
            continue
        model = {**option("model", name), "name": name}
        found = measure_epochs(
            replace(config, image_size=224, model=model), rounds, naive_workers=16, naive_bf16=True
        )
        seconds = found.found
        pure = _sum(seconds["pure train"], seconds["pure validation"])
        title = f"GPU: Trainer epoch / pure compute, {name}"
        rows.append(judged(id, title, "<= 1.05", ratios(seconds["epoch"], pure), found.conditions))
        if name == "resnet18":
            rows.append(
                judged(
                    "P13",
                    "GPU: naive bf16 loop with Pillow workers / ours",
                    ">= 8",
                    ratios(seconds["naive"], seconds["train"]),
                    f"{found.conditions}; {found.naive}",
                )
            )
    return [row for row in rows if wanted(row.id)]
