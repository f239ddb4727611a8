"""What stands behind the backbone: from its features to one logit a class."""

from torch import nn

from histo_lightning.models.resnet import ResNet, build_backbone

HEADS = ("linear", "mlp")


def build_head(
    name: str, in_features: int, num_classes: int, hidden: int = 512, dropout: float = 0.05
) -> nn.Module:
    """A head: features, float B x ``in_features`` -> logits, B x ``num_classes``.

    The log-softmax of the thesis's head is the classifier's: logits are kept, since they can be calibrated.

    Args:
        name: ``linear``, or ``mlp``: ``in_features`` -> ``hidden`` -> ReLU -> dropout -> ``num_classes``, the thesis's.
        in_features, num_classes: inputs and outputs.
        hidden, dropout: width of the hidden layer and share of it that is dropped; ``mlp`` only.

    Raises:
        ValueError: there is no head of that name.
    """
    if name == "linear":
        return nn.Linear(in_features, num_classes)
    if name == "mlp":
        return nn.Sequential(
            nn.Linear(in_features, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, num_classes)
        )
    raise ValueError(f"unknown head {name!r}; heads are {', '.join(HEADS)}")


def build_network(
    model_name: str,
    num_classes: int,
    *,
    head: str = "linear",
    hidden: int = 512,
    dropout: float = 0.05,
    stem: str = "standard",
    zero_init_residual: bool = True,
) -> ResNet:
    """A backbone whose ``fc`` is a head: images, float B x 3 x H x W -> logits, B x ``num_classes``.

    Raises:
        ValueError: no model, head or stem of that name.
    """
    network = build_backbone(model_name, stem=stem, zero_init_residual=zero_init_residual)
    network.fc = build_head(head, network.feature_dim, num_classes, hidden, dropout)
    return network
