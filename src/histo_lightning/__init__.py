"""Honest, fast, reproducible ResNet experiments on BreakHis breast histology."""

from typing import TYPE_CHECKING, Any

from histo_lightning.runs.version import __version__

__all__ = ["BreakHisDataModule", "Classifier", "__version__"]

if TYPE_CHECKING:
    from histo_lightning.classifier import Classifier
    from histo_lightning.data import BreakHisDataModule


def __getattr__(name: str) -> Any:
    """Import the two public classes when they are asked for: torch and Lightning take seconds."""
    if name == "Classifier":
        from histo_lightning.classifier import Classifier

        return Classifier
    if name == "BreakHisDataModule":
        from histo_lightning.data import BreakHisDataModule

        return BreakHisDataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
