"""The LightningModule: a network with its loss, metrics, optimizer, schedule and checkpoints."""

from histo_lightning.classifier.checkpoint import load_state, read_checkpoint
from histo_lightning.classifier.module import Classifier

__all__ = ["Classifier", "load_state", "read_checkpoint"]
