"""Networks: the ResNet family, its heads, pretrained weights; and optimizers by name."""

from histo_lightning.models.heads import build_head, build_network
from histo_lightning.models.resnet import MODELS, ResNet, build_backbone
from histo_lightning.models.weights import load_weights

__all__ = ["MODELS", "ResNet", "build_backbone", "build_head", "build_network", "load_weights"]
