"""A network from its settings (one of our family, torchvision's, or a user's own) and its head."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from histo_lightning.config.targets import arguments, build, network_factory
from histo_lightning.config.tree import option, option_names
from histo_lightning.errors import UserError
from histo_lightning.models.resnet import ResNet

OURS = ("weights", "freeze_backbone", "frozen_norm")  # about the network's training, not arguments of it
FAMILY_OPTIONS = {"stem": "standard", "zero_init_residual": True}  # conf/model/_base.yaml has them
FAMILY = "histo_lightning.models.resnet"


def network_settings(model: str | Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an option in ``conf/model`` by its name, or the settings themselves."""
    if not isinstance(model, str):
        return dict(model)
    return option("model", model) if model in option_names("model") else {"_target_": f"{FAMILY}.{model}"}


def build_head(
    name: str, in_features: int, num_classes: int, hidden: int = 512, dropout: float = 0.05
) -> nn.Module:
    """A head: features, float B x ``in_features`` -> logits, B x ``num_classes``; ValueError for an unknown name.

    ``mlp`` is the thesis's, without its log-softmax: ``in_features`` -> ``hidden`` -> ReLU -> dropout -> ``num_classes``.
    ``linear`` takes neither ``hidden`` nor ``dropout``.
    """
    if name == "linear":
        return nn.Linear(in_features, num_classes)
    if name == "mlp":
        first, last = nn.Linear(in_features, hidden), nn.Linear(hidden, num_classes)
        return nn.Sequential(first, nn.ReLU(), nn.Dropout(dropout), last)
    raise ValueError(f"unknown head {name!r}; heads are linear, mlp")


def build_network(
    model: str | Mapping[str, Any], num_classes: int, *, head: str = "linear", **head_options: Any
) -> nn.Module:
    """A network: images, float B x 3 x H x W -> logits, B x ``num_classes``; UserError where it cannot be made.

    Our ResNets get the head asked for in place of their ``fc``. Every other network is called with ``num_classes`` and
    keeps its own last layer, unless ``head="mlp"``, which replaces it. ``model`` is an option of ``conf/model``
    (``resnet18``), or ``_target_`` and arguments; ``head_options`` are ``hidden`` and ``dropout`` of :func:`build_head`.
    """
    settings = network_settings(model)
    target = str(settings["_target_"])
    factory = network_factory(settings)
    options = arguments(settings, leave=OURS)
    if not target.startswith(f"{FAMILY}."):
        for name, default in FAMILY_OPTIONS.items():
            if name in options and options.pop(name) not in (default, None):
                raise UserError(f"model.{name}: belongs to histo_lightning's own ResNets, not to {target}")
        options["num_classes"] = num_classes
    network = build(factory, options, "model")
    if not isinstance(network, nn.Module):
        raise UserError(f"model._target_={target}: made a {type(network).__name__}, not a network")
    if isinstance(network, ResNet):
        network.fc = build_head(head, network.feature_dim, num_classes, **head_options)
    elif head != "linear":
        linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise UserError(f"head={head}: no fully connected layer to replace; use head=linear")
        features = cast(nn.Linear, network.get_submodule(linear[-1])).in_features
        network.set_submodule(linear[-1], build_head(head, features, num_classes, **head_options))
    return network


def head_of(network: nn.Module) -> nn.Module:
    """The part of a network behind its backbone: the last direct child that has parameters."""
    children = [child for child in network.children() if next(child.parameters(), None) is not None]
    if not children:
        raise UserError("model: the network has no parts, so no head can be separated from its backbone")
    return children[-1]


def check_network(model: str | Mapping[str, Any], num_classes: int, size: int, **head: Any) -> None:
    """Build a network without memory; UserError unless images, B x 3 x H x W, give B x ``num_classes``."""
    target = network_settings(model)["_target_"]
    with torch.device("meta"):
        network = build_network(model, num_classes, **head).eval()
    try:
        with torch.no_grad():
            logits = network(torch.empty(2, 3, size, size, device="meta"))
    except Exception as error:  # whatever a network raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        problem = f"fails on images of {size} x {size} ({reason})"
        raise UserError(f"model._target_={target}: {problem}; set image_size") from error
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != (2, num_classes):
        raise UserError(f"model._target_={target}: gives {shape} for 2 images, (2, {num_classes}) is needed")
