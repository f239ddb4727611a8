"""Whether compiling a network pays for the steps to come: what it costs and saves is measured once a network and GPU, and kept."""

import copy
import logging
import time
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn
from torch.nn import functional

from histo_lightning.classifier import Classifier
from histo_lightning.config.schema import Config
from histo_lightning.errors import UserError
from histo_lightning.runs import read_json, write_json
from histo_lightning.training.objects import network_options

LEAST_SECONDS = 30.0  # of all steps as they are, below which compiling is not even measured: it takes that long to begin with
log = logging.getLogger("histo_lightning")


def pays(config: Config, classifier: Classifier, trainer: Trainer, steps: int, cache_dir: Path) -> bool:
    """Whether the time saved in ``steps`` is more than compiling takes, with inductor's cache warm after the measurement.

    Measured on copies of the network with made-up images; ``compile.json`` in ``cache_dir`` keeps the seconds, so that a
    run and its resume decide alike. Several processes compile without it.
    """
    if trainer.world_size > 1:
        return True
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    layout = torch.channels_last if config.trainer.channels_last else torch.contiguous_format
    about = config.image_size, config.batch_size, trainer.precision, layout, name, torch.__version__
    file, key = cache_dir / "compile.json", repr((network_options(config), *about))
    try:
        known: dict[str, Any] = read_json(file)
    except UserError:  # it is measured again
        known = {}
    seconds = known.get(key) or {}
    images = torch.zeros(config.batch_size, 3, config.image_size, config.image_size, device=device)
    images = images.to(memory_format=layout)

    def copied() -> nn.Module:
        return copy.deepcopy(classifier.network).to(device, memory_format=layout)  # type: ignore[no-any-return, call-overload]

    if "step" not in seconds:
        seconds["step"] = _seconds(copied(), images, trainer)[1]
    long = steps * seconds["step"] > LEAST_SECONDS  # measured or not: a resume must not change its mind
    if long and "compiled" not in seconds:
        for _ in range(2):  # the second with what the first has left in inductor's cache
            torch._dynamo.reset()  # else the second would run the first one's code, as the run's own network will
            (network := copied()).compile()
            first, seconds["compiled"] = _seconds(network, images, trainer)
            seconds["compiling"] = max(first - seconds["compiled"], 0.0)
    write_json(file, known | {key: seconds})
    if not long:
        log.info("%d steps of %.4f s are too few to compile for", steps, seconds["step"])
        return False
    saved = steps * (seconds["step"] - seconds["compiled"])
    log.info("%d steps: compiling takes %.1f s and saves %.1f s", steps, seconds["compiling"], saved)
    return bool(saved > seconds["compiling"])


def _seconds(network: nn.Module, images: Tensor, trainer: Trainer) -> tuple[float, float]:
    """Of the first step, and of the fastest of three later ones."""
    labels, taken = torch.zeros(len(images), dtype=torch.int64, device=images.device), []
    for _ in range(4):
        start = time.perf_counter()
        with trainer.precision_plugin.forward_context():
            loss = functional.cross_entropy(network(images).float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)
        taken.append(time.perf_counter() - start)
    return taken[0], min(taken[1:])
