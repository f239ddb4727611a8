"""What a network costs: parameters, operations, time and memory of a run, and beforehand the hours and disk of a sweep."""

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from histo_lightning.classifier import Classifier
from histo_lightning.classifier.checkpoint import save_atomic
from histo_lightning.classifier.hardware import device_of, resolve
from histo_lightning.classifier.optimizers import build_optimizer
from histo_lightning.config.schema import Config
from histo_lightning.report.words import duration
from histo_lightning.training.objects import network_options

# A timed step holds fewer images than a batch only above both: a small step takes longer an image.
PROBED, PIXELS = 8, 32 * 112**2
ROUNDS = 2  # timed steps, after one that is not counted
FIXED_SECONDS = 3.0  # of a run: start, scores, pictures (row P10 of the benchmark)
FIXED_BYTES = 3e6  # of a run: predictions, pictures, page, TensorBoard


def cost(classifier: Classifier, image_size: int, train_seconds: float) -> dict[str, Any]:
    """The entry ``cost`` of ``metrics.json``, with the peak memory in bytes since :func:`reset_peak_memory`."""
    network = classifier.network
    parameters = list(network.parameters())
    device, counter = parameters[0].device, FlopCounterMode(display=False)
    with torch.no_grad(), counter:  # on shapes alone: nothing is computed
        copy.deepcopy(network).to("meta").eval()(torch.empty(1, 3, image_size, image_size, device="meta"))
    return {
        "parameters": sum(parameter.numel() for parameter in parameters),
        "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        # Of the forward pass of one image: 2 for a multiply-add; convolutions and matrix products only.
        "flops": int(counter.get_total_flops()),
        "train_seconds": train_seconds,
        "peak_memory_bytes": peak_memory(device),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def reset_peak_memory() -> None:
    """Count peaks from here on, so that a run of a sweep does not show those of the run before."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # proc(5): 5 resets the peak resident set size; not where /proc is read-only
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int | None:
    """Bytes; None where the system has no such number."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


class Sizes(NamedTuple):
    """What a run reads: images of train, validation and test, and (height, width) of a validation image in pixels."""

    train: int
    val: int
    test: int
    evaluation: tuple[int, int]


class Speed(NamedTuple):
    """Seconds an image takes in a training step, in validation and when predicted, and a checkpoint to be written."""

    train: float
    validate: float
    predict: float
    write: float
    parameters: int


def run_seconds(config: Config, sizes: Sizes, speed: Speed) -> float:
    """Seconds of one run: its epochs with their checkpoints, the predictions after them, and what every run costs."""
    batch = min(config.batch_size, sizes.train)
    epoch = sizes.train // batch * batch * speed.train + sizes.val * speed.validate + speed.write
    again = config.exact_predictions or config.tta != "none"  # else validation's logits are kept
    sets = sizes.val * again, sizes.test * config.test, sizes.train * (config.train_scores == "pass")
    images = sum(sets) * (8 if config.tta == "d4" else 1)
    return config.epochs * epoch + images * speed.predict + FIXED_SECONDS


def cost_line(runs: Sequence[tuple[Config, Sizes]], at_once: int, folder: Path) -> str:
    """One sentence on what runs will take: how many, hours on this machine with ``at_once`` of them at a time, and disk."""
    speeds: dict[str, Speed] = {}
    seconds = size = 0.0
    for config, sizes in runs:
        settings = (config.image_size, sizes.evaluation, config.optimizer, config.trainer)
        key = repr((network_options(config), settings))
        if key not in speeds:
            speeds[key] = probe(config, sizes, folder)
        seconds += run_seconds(config, sizes, speeds[key])
        size += FIXED_BYTES + speeds[key].parameters * 4  # float32
    machine = "this machine" + (f", {at_once} at a time" if at_once > 1 else "")
    count, disk = f"{len(runs)} run" + "s" * (len(runs) > 1), f"{size / 1e9:.{int(size < 1e10)}f} GB of disk"
    return f"{count} to do: about {duration(seconds / at_once)} on {machine}, {disk} when finished"


def probe(config: Config, sizes: Sizes, folder: Path) -> Speed:
    """Time a run's network on made-up images, with its device, precision and threads, and a checkpoint on the disk of ``folder``."""
    hardware, device = resolve(config.trainer), device_of(config.trainer)
    frozen: Any = {"freeze_backbone": bool(config.model.get("freeze_backbone"))}
    layout = torch.channels_last if config.trainer.channels_last else torch.contiguous_format
    classifier = Classifier(
        **network_options(config), **frozen, exact_predictions=config.exact_predictions
    ).to(device, memory_format=layout)
    optimizer = build_optimizer(classifier.network.parameters(), config.optimizer)
    half = torch.float16 if hardware.precision == "16-mixed" else torch.bfloat16
    count = min(config.batch_size, max(PROBED, PIXELS // config.image_size**2))
    labels = torch.zeros(count, dtype=torch.int64, device=device)
    shapes = (config.image_size, config.image_size), sizes.evaluation
    square, field = (torch.rand(count, 3, *s, device=device).to(memory_format=layout) for s in shapes)

    def mixed(batch: Tensor, logits_of: Callable[[Tensor], Tensor] = classifier.logits) -> Tensor:
        with torch.autocast(device.type, half, enabled=hardware.precision.endswith("mixed")):
            return logits_of(batch)

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(mixed(square), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def seconds(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    def image_seconds(work: Callable[[], object]) -> float:  # the least round: what disturbs only adds
        return min([seconds(work) for _ in range(ROUNDS + 1)][1:]) / count

    train = image_seconds(step)
    classifier.eval()
    with torch.no_grad():
        validate = image_seconds(lambda: mixed(field))
        predict = image_seconds(lambda: mixed(field, classifier.scored_logits))
    state = {"state_dict": classifier.state_dict(), "optimizer": optimizer.state_dict()}
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as scratch:
        write = seconds(lambda: save_atomic(state, Path(scratch) / "probe.ckpt"))
    return Speed(train, validate, predict, write, sum(value.numel() for value in classifier.parameters()))
