"""What turns a backbone's features into logits."""

from torch import nn


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
    raise ValueError(f"unknown head {name!r}; heads are linear, mlp")
