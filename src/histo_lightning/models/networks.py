"""A network from its settings: one of our family, torchvision's, or a user's own, with its head."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from histo_lightning.config.targets import arguments, build, network_factory
from histo_lightning.config.tree import conf_dir, option
from histo_lightning.errors import UserError
from histo_lightning.models.heads import build_head
from histo_lightning.models.resnet import ResNet

OURS = ("weights", "freeze_backbone", "frozen_norm")  # about the network's training, not arguments of it
FAMILY_OPTIONS = {
    "stem": "standard",
    "zero_init_residual": True,
}  # conf/model/_base.yaml gives them to every network
FAMILY = "histo_lightning.models.resnet"


def network_settings(model: str | Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an option in ``conf/model`` by its name, or the settings themselves."""
    if not isinstance(model, str):
        return dict(model)
    shipped = (conf_dir() / "model" / f"{model}.yaml").is_file()
    return option("model", model) if shipped else {"_target_": f"{FAMILY}.{model}"}


def build_network(
    model: str | Mapping[str, Any],
    num_classes: int,
    *,
    head: str = "linear",
    hidden: int = 512,
    dropout: float = 0.05,
    imported_only: bool = False,
) -> nn.Module:
    """A network: images, float B x 3 x H x W -> logits, B x ``num_classes``.

    Our ResNets get the head asked for in place of their ``fc``. Every other network is called with ``num_classes`` and
    keeps its own last layer, unless ``head="mlp"``, which replaces it.

    Args:
        model: an option of ``conf/model`` (``resnet18``), or ``_target_`` and arguments.
        num_classes: outputs.
        head, hidden, dropout: see :func:`build_head`.
        imported_only: the settings come from a checkpoint; see :func:`histo_lightning.config.targets.locate`.

    Raises:
        UserError: there is no such network, or it refuses its arguments.
    """
    settings = network_settings(model)
    factory = network_factory(settings, imported_only=imported_only)
    options = arguments(settings, leave=OURS)
    if str(settings["_target_"]).startswith(f"{FAMILY}."):
        network = build(factory, options, "model")
    else:
        for name, default in FAMILY_OPTIONS.items():
            if name in options and options.pop(name) not in (default, None):
                raise UserError(
                    f"model.{name}: belongs to histo_lightning's own ResNets, not to {settings['_target_']}"
                )
        network = build(factory, {**options, "num_classes": num_classes}, "model")
    if not isinstance(network, nn.Module):
        raise UserError(
            f"model._target_={settings['_target_']}: made a {type(network).__name__}, not a network"
        )
    if isinstance(network, ResNet):
        network.fc = build_head(head, network.feature_dim, num_classes, hidden, dropout)
    elif head != "linear":
        _replace_last_linear(network, num_classes, head, hidden, dropout)
    return network


def _replace_last_linear(
    network: nn.Module, num_classes: int, head: str, hidden: int, dropout: float
) -> None:
    linear = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError(f"head={head}: this network has no fully connected layer to replace; use head=linear")
    name, last = linear[-1]
    network.set_submodule(name, build_head(head, last.in_features, num_classes, hidden, dropout))


def head_of(network: nn.Module) -> nn.Module:
    """The part of a network behind its backbone: the last direct child that has parameters."""
    children = [child for child in network.children() if any(True for _ in child.parameters())]
    if not children:
        raise UserError("model: the network has no parts, so no head can be told from its backbone")
    return children[-1]


def check_network(model: str | Mapping[str, Any], num_classes: int, size: int, **head: Any) -> None:
    """Build a network without memory and see that images become one logit a class.

    Raises:
        UserError: it cannot be built, or does not give B x ``num_classes``.
    """
    with torch.device("meta"):
        network = build_network(model, num_classes, **head).eval()
    try:
        with torch.no_grad():
            logits = network(torch.empty(2, 3, size, size, device="meta"))
    except Exception as error:  # whatever a network raises
        target = network_settings(model)["_target_"]
        raise UserError(
            f"model._target_={target}: fails on images of {size} x {size} ({(str(error).splitlines() or [type(error).__name__])[0]}); set image_size"
        ) from error
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != (2, num_classes):
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise UserError(
            f"model._target_={network_settings(model)['_target_']}: gives {shape} for 2 images, (2, {num_classes}) is needed"
        )
