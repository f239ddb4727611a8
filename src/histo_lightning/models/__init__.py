"""Networks: the ResNet family, heads, learning-rate schedules, pretrained weights."""

from histo_lightning.models.networks import build_network
from histo_lightning.models.resnet import ResNet
from histo_lightning.models.weights import load_weights

__all__ = ["ResNet", "build_network", "load_weights"]
