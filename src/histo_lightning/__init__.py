"""Honest, fast, reproducible ResNet experiments on BreakHis breast histology."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from histo_lightning.runs.version import __version__

_HOMES = {"Classifier": "histo_lightning.classifier", "BreakHisDataModule": "histo_lightning.data"}
__all__ = ["BreakHisDataModule", "Classifier", "__version__"]

if TYPE_CHECKING:
    from histo_lightning.classifier import Classifier
    from histo_lightning.data import BreakHisDataModule


def __getattr__(name: str) -> Any:
    """Import the two public classes when they are asked for: torch and Lightning take seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
