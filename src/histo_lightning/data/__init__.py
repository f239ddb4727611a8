"""Data: names and records -> splits -> pixel cache -> batches."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from histo_lightning.data.datamodule import BreakHisDataModule

__all__ = ["BreakHisDataModule"]


def __getattr__(name: str) -> Any:
    if name != "BreakHisDataModule":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from histo_lightning.data import datamodule  # needs torch and Lightning; names, records and splits do not

    return datamodule.BreakHisDataModule
