"""P8, P14 and P19: what Lightning and our callbacks add to a raw loop, a run's memory, what TensorBoard's pages cost."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from histo_lightning.callbacks.dashboard import Dashboard
from histo_lightning.classifier.hardware import resolve
from histo_lightning.classifier.optimizers import build_optimizer
from histo_lightning.config.compose import config_of
from histo_lightning.config.schema import Config
from histo_lightning.data.datamodule import BreakHisDataModule
from histo_lightning.training import results
from histo_lightning.training.objects import build_classifier, build_datamodule, without_hints
from histo_lightning.training.run import run_training

from .defaults import default_trainer
from .epochs import Rounds
from .measure import Row, judged

STEPS = (10, 60)  # epochs of two lengths tell the cost of a step from that of an epoch


def _tiny() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))


def lightning_rows(config: Config, rounds: int) -> list[Row]:
    """P8: our trainer with its default callbacks over a raw loop, on a network of six weights."""
    config = replace(config, image_size=32, batch_size=2, epochs=rounds + 1)
    added = {steps: _added(config, steps) for steps in STEPS}
    few, many = STEPS
    step = [(b - a) / (many - few) for a, b in zip(added[few], added[many], strict=True)]
    epoch = [a - few * s for a, s in zip(added[few], step, strict=True)]
    why = f"epochs of {few} and {many} steps with validation of as many images; batch 2 at 32 pixels"
    return [
        judged(
            "P8 step",
            "Lightning over a raw loop, milliseconds a step",
            "<= 0.6",
            [1e3 * s for s in step],
            why,
        ),
        judged(
            "P8 epoch",
            "Lightning over a raw loop, milliseconds an epoch",
            "<= 7",
            [1e3 * e for e in epoch],
            why,
        ),
    ]


def _added(config: Config, steps: int) -> list[float]:
    """Seconds an epoch that the trainer takes beyond the raw loop, by round."""
    with without_hints(), tempfile.TemporaryDirectory(prefix="histo-benchmark-") as temporary:
        folder = Path(temporary)
        data = build_datamodule(config)
        data.setup()
        classifier = build_classifier(config, data)
        classifier.network = _tiny()  # anything that gives logits
        raw_network = _tiny()
        optimizer = build_optimizer(raw_network.parameters(), classifier.optimizer_settings)
        validation, bf16 = 3, resolve(config.trainer).precision == "bf16-mixed"

        def raw() -> float:
            start = time.perf_counter()
            _raw_epoch(data, raw_network, optimizer, steps, validation, bf16)
            return time.perf_counter() - start

        clock = Rounds({"raw": raw})
        trainer = default_trainer(config, folder, resolve(config.trainer), 1, [clock])
        trainer.limit_train_batches, trainer.limit_val_batches = steps, validation
        trainer.fit(classifier, datamodule=data)
        return [a - b for a, b in zip(clock.found["epoch"][1:], clock.found["raw"][1:], strict=True)]


def _raw_epoch(
    data: BreakHisDataModule,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: int,
    validation: int,
    bf16: bool,
) -> None:
    for _, batch in zip(range(steps), data.loader("train", train=True), strict=False):
        seen = data.view(batch, training=True)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = functional.cross_entropy(network(seen["image"]).float(), seen["label"])
        torch.autograd.backward(loss)
        optimizer.step()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for _, batch in zip(range(validation), data.loader("val"), strict=False):
            network(data.view(batch, training=False)["image"])


_RUN = r"""
import json, re, sys
from pathlib import Path
def peak():  # of this program alone: ru_maxrss starts from what the parent had
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
import pytorch_lightning, torch, torchmetrics, torch.utils.tensorboard
base = peak()
given = json.loads(sys.argv[1])
from omegaconf import OmegaConf
from histo_lightning.config.checks import to_config
from histo_lightning.config.schema import BenchmarkConfig
from histo_lightning.training.fit import fit_and_predict
from histo_lightning.training.results import write_results
from histo_lightning.training import results
from histo_lightning.training.objects import build_datamodule
from histo_lightning.runs import RunFolder
config = to_config(OmegaConf.create(given), BenchmarkConfig)
data = build_datamodule(config)
data.setup()
run = RunFolder(Path(sys.argv[2]))
with run.locked(), run.recorded():
    write_results(config, run.path, data, fit_and_predict(config, run.path, data))
print(json.dumps([base, peak(), data.pixels.nbytes]))
"""


def memory_rows(config: Config) -> list[Row]:
    """P14: the highest memory of a run in a process of its own, less what the libraries and the cache take."""
    config = replace(config, epochs=1, image_size=224, trainer=replace(config.trainer, progress="none"))
    with tempfile.TemporaryDirectory(prefix="histo-benchmark-") as folder:
        done = subprocess.run(
            [sys.executable, "-c", _RUN, json.dumps(asdict(config)), folder],
            capture_output=True,
            text=True,
            check=True,
        )
    base, peak, stored = json.loads(done.stdout.strip().splitlines()[-1])
    beyond = (peak - base - stored) / 1e9
    why = (
        f"peak {peak / 1e9:.2f} GB, libraries alone {base / 1e9:.2f} GB, cache {stored / 1e9:.2f} GB; one epoch of "
        f"{config.model['name']} at 224, batch {config.batch_size}"
    )
    return [judged("P14", "memory beyond libraries and cache, GB", "<= 1", [beyond], why)]


def dashboard_rows(rounds: int) -> list[Row]:
    """P19: the share of a run at the defaults that goes into what TensorBoard shows beside the curves."""
    shares = []
    seconds: list[float] = []
    for seed in range(max(rounds // 5, 1)):
        with tempfile.TemporaryDirectory(prefix="histo-benchmark-") as folder, _timed() as spent:
            config = config_of("train", ["trainer.progress=none", f"output_dir={folder}", f"seed={seed}"])
            assert isinstance(config, Config)
            start = time.perf_counter()
            run_training(config)
            seconds.append(time.perf_counter() - start)
            shares.append(sum(spent) / seconds[-1])
    why = f"resnet18, 20 epochs of the embedded data set, {seconds[-1]:.0f} s in all; timed inside the run"
    return [judged("P19", "TensorBoard's pages / the whole run", "<= 0.02", shares, why)]


@contextmanager
def _timed() -> Iterator[list[float]]:
    """The seconds of every call that writes such pages."""
    spent: list[float] = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                spent.append(time.perf_counter() - start)

        return call

    hooks = [(Dashboard, name) for name in vars(Dashboard) if name.startswith("on_")] + [
        (results, "write_scored")
    ]
    originals = [getattr(owner, name) for owner, name in hooks]
    for (owner, name), original in zip(hooks, originals, strict=True):
        setattr(owner, name, timed(original))
    try:
        yield spent
    finally:
        for (owner, name), original in zip(hooks, originals, strict=True):
            setattr(owner, name, original)
