"""What a network costs: parameters, operations, time and memory."""

import copy
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from histo_lightning.classifier import Classifier


def cost(classifier: Classifier, image_size: int, train_seconds: float) -> dict[str, Any]:
    """The entry ``cost`` of ``metrics.json``.

    ``flops`` is the forward pass of one image of ``image_size`` squared (2 for a multiply-add; convolutions and matrix products
    only), ``peak_memory_bytes`` the most since :func:`reset_peak_memory`, of the GPU or of this process.
    """
    network = classifier.network
    parameters = list(network.parameters())
    device = parameters[0].device
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:  # on shapes alone: nothing is computed
        copy.deepcopy(network).to("meta").eval()(torch.empty(1, 3, image_size, image_size, device="meta"))
    return {
        "parameters": sum(parameter.numel() for parameter in parameters),
        "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
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
