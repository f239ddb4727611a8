"""What a sweep will cost on this machine, said before its first job: runs, hours and disk, from a few timed steps of each network."""

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from histo_lightning.classifier import Classifier
from histo_lightning.classifier.hardware import device_of, resolve
from histo_lightning.classifier.optimizers import build_optimizer
from histo_lightning.config.schema import Config
from histo_lightning.data.datamodule import BreakHisDataModule
from histo_lightning.training.objects import network_options

PROBED = 8  # images of a timed step, at most; its time grows with the batch
ROUNDS = 3  # timed steps, after one that is not counted
FIXED_SECONDS = 3.0  # of a run: start, scores, pictures (row P10 of the benchmark)
FIXED_BYTES = 3e6  # of a run: predictions, pictures, page, TensorBoard
BYTES_A_PARAMETER = 4


@dataclass(frozen=True)
class Sizes:
    """What a run reads: images of train, validation and test, and (height, width) of a validation image in pixels."""

    train: int
    val: int
    test: int
    evaluation: tuple[int, int]

    @classmethod
    def of(cls, data: BreakHisDataModule) -> "Sizes":
        """The sizes of a data module that is set up."""
        train, val, test = (len(data.parts[part].records) for part in ("train", "val", "test"))
        return cls(train, val, test, data.evaluation_size)


@dataclass(frozen=True)
class Speed:
    """Seconds that one image takes in a training step, in validation, and when it is predicted in float32; parameters; seconds
    that writing a checkpoint takes."""

    train: float
    validate: float
    predict: float
    parameters: int
    write: float


def run_seconds(config: Config, sizes: Sizes, speed: Speed) -> float:
    """Seconds of one run: its epochs with their checkpoints, the predictions after them, and what every run costs."""
    batch = min(config.batch_size, sizes.train)
    epoch = sizes.train // batch * batch * speed.train + sizes.val * speed.validate + speed.write
    images = (sizes.train + sizes.val + (sizes.test if config.test else 0)) * (8 if config.tta == "d4" else 1)
    return config.epochs * epoch + images * speed.predict + FIXED_SECONDS


def cost_line(runs: Sequence[tuple[Config, Sizes]], at_once: int, folder: Path) -> str:
    """One sentence on what runs will take: how many, hours on this machine with ``at_once`` of them at a time, and disk."""
    speeds: dict[str, Speed] = {}
    seconds = size = 0.0
    for config, sizes in runs:
        key = repr(
            (network_options(config), config.image_size, sizes.evaluation, config.optimizer, config.trainer)
        )
        if key not in speeds:
            speeds[key] = probe(config, sizes, folder)
        seconds += run_seconds(config, sizes, speeds[key])
        size += FIXED_BYTES + speeds[key].parameters * BYTES_A_PARAMETER
    together = f", {at_once} at a time" if at_once > 1 else ""
    count = f"{len(runs)} run" + "s" * (len(runs) > 1)
    return f"{count} to do: about {duration(seconds / at_once)} on this machine{together}, {volume(size)} of disk when finished"


def probe(config: Config, sizes: Sizes, folder: Path) -> Speed:
    """Time a few steps of a run's network on made-up images, on the run's device with its precision and threads."""
    hardware, device = resolve(config.trainer), device_of(config.trainer)
    classifier = Classifier(
        **network_options(config), freeze_backbone=bool(config.model.get("freeze_backbone"))
    )
    layout = torch.channels_last if config.trainer.channels_last else torch.contiguous_format
    classifier = classifier.to(device, memory_format=layout)
    optimizer = build_optimizer(classifier.network.parameters(), config.optimizer)
    half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(hardware.precision)
    count = min(config.batch_size, PROBED)

    def images(height: int, width: int) -> Tensor:
        return torch.rand(count, 3, height, width, device=device).to(memory_format=layout)

    square, field = images(config.image_size, config.image_size), images(*sizes.evaluation)
    labels = torch.zeros(count, dtype=torch.int64, device=device)

    def mixed(batch: Tensor) -> Tensor:
        with torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None):
            return classifier.logits(batch)

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(mixed(square), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    train = _seconds(step, device) / count
    classifier.eval()
    with torch.no_grad():
        validate = _seconds(lambda: mixed(field), device) / count
        predict = _seconds(lambda: classifier.exact_logits(field), device) / count
    parameters = sum(parameter.numel() for parameter in classifier.parameters())
    states = [state for each in optimizer.state.values() for state in each.values() if torch.is_tensor(state)]
    return Speed(
        train, validate, predict, parameters, _write_seconds([*classifier.parameters(), *states], folder)
    )


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The least time of a few rounds, in seconds: what disturbs only adds."""
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _write_seconds(tensors: Iterable[Tensor], folder: Path) -> float:
    """Seconds of writing a checkpoint of these tensors to the disk of ``folder``, which is created."""
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with tempfile.TemporaryFile(dir=folder) as file:
        torch.save([tensor.detach().cpu() for tensor in tensors], file)
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - start


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3.4 hours``, ``6 days``."""
    for unit, length, most in (("s", 1.0, 90.0), ("min", 60.0, 5400.0), ("hours", 3600.0, 172800.0)):
        if seconds < most:
            value = seconds / length
            return f"{value:.1f} {unit}" if unit == "hours" and value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


def volume(size: float) -> str:
    """``0.3 GB``, ``27 GB``."""
    return f"{size / 1e9:.1f} GB" if size < 1e10 else f"{size / 1e9:.0f} GB"
