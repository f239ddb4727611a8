"""What a checkpoint from anywhere may hold: checked before memory is taken and before anything is built."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from histo_lightning.config.checks import from_stranger
from histo_lightning.config.schema import HyperParameters, Metadata
from histo_lightning.config.targets import class_of, network_factory, parameters_of
from histo_lightning.errors import UserError
from histo_lightning.models import build_network
from histo_lightning.models.networks import network_settings

MOST_PICKLED = 2**26  # bytes of all that is no tensor
MOST_ITEMS, DEEPEST = 2_000_000, 40  # values outside tensors, containers inside one another


def check_archive(path: Path, *, sums: bool) -> None:
    """ValueError for what torch.save never writes (compressed or overlapping entries); with ``sums`` for a wrong checksum."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        pickled = max((entry.file_size for entry in entries if entry.filename.endswith(".pkl")), default=0)
        if any(entry.compress_type for entry in entries) or pickled > MOST_PICKLED:
            raise ValueError("it is compressed, or its part without tensors is too large")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its entries overlap")
        if sums and (broken := archive.testzip()):
            raise ValueError(f"the checksum of {broken} is wrong")


def check_values(value: Any) -> None:
    """ValueError for containers that are too deep or too many, and for tensors that are larger than their memory."""
    waiting, count = [(value, 0)], 0
    while waiting:
        item, depth = waiting.pop()
        count += 1
        if depth > DEEPEST or count > MOST_ITEMS:
            raise ValueError("its values are too many, or too deep inside one another")
        if isinstance(item, Tensor):
            plain = item.layout == torch.strided and not item.is_quantized and item.device.type == "cpu"
            if not plain or item.numel() * item.element_size() > item.untyped_storage().nbytes():
                raise ValueError(f"a tensor of the shape {tuple(item.shape)} has no memory of its own")
        elif isinstance(item, Mapping):
            waiting += [(one, depth + 1) for pair in item.items() for one in pair]
        elif isinstance(item, (list, tuple, set)):
            waiting += [(one, depth + 1) for one in item]


def check_metadata(about: Mapping[str, Any], num_classes: int) -> None:
    """UserError with the key of a checkpoint's metadata that is missing, of another type, or does not fit the others."""
    metadata = from_stranger(Metadata, about)
    mean, std = (metadata.normalisation.get(name, []) for name in ("mean", "std"))
    size = metadata.input_size
    for key, fits, needed in (
        ("normalisation", len(mean) == len(std) == 3 and min(std) > 0, "three means and three deviations above 0"),
        ("input_size", len(size) == 3 and size[0] == 3 and 8 <= min(size[1:]) <= max(size) <= 4096, "[3, height, width]"),
        ("output_size", metadata.output_size == num_classes, f"{num_classes}, as num_classes"),
        ("class_to_idx", sorted(metadata.class_to_idx.values()) == list(range(num_classes)), "an index a class"),
    ):  # fmt: skip
        if not fits:
            raise UserError(f"{key}={about.get(key)!r:.80}: needed are {needed}")


def checked_hyper_parameters(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a checkpoint whose values, names and shapes fit, and whose weights are finite; UserError with the key that is wrong."""
    hyper, state = from_stranger(HyperParameters, checkpoint["hyper_parameters"]), checkpoint["state_dict"]
    settings = network_settings(hyper.model)
    factory = network_factory(settings, imported_only=True)
    for key, base in (("optimizer", Optimizer), ("scheduler", LRScheduler)):
        if not isinstance(named := getattr(hyper, key), str):
            class_of(named, base, key, imported_only=True)
    for key in (*parameters_of(factory), *settings):
        if key.startswith(("weights_", "pretrained")):
            raise UserError(f"model.{key}: a checkpoint brings its own weights")
    if large := re.search(r"(?<![.\d])\d{5,}", str(settings)):
        raise UserError(f"model: {large[0][:20]} is too large for an argument of a network")
    head: Any = {name: getattr(hyper, name) for name in ("head", "hidden", "dropout")}
    with torch.device("meta"):
        shapes = build_network(hyper.model, hyper.num_classes, **head).state_dict(prefix="network.")
    for name, tensor in state.items():
        if name in shapes and tensor.shape != shapes[name].shape:
            problem = f"{name}: {tuple(tensor.shape)}, not {tuple(shapes[name].shape)}"
            mend = "use the same model, head and stem"
            raise UserError(f"its weights do not fit this network ({problem}); {mend}")
        if not bool(torch.isfinite(tensor).all()):
            problem = "is not finite everywhere; the training diverged, or the file is damaged"
            raise UserError(f"{name}: {problem}")
    return dict(checkpoint["hyper_parameters"])
