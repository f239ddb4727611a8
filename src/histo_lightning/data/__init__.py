"""Data: names and records -> splits -> pixel cache -> batches."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from histo_lightning.data.datamodule import BreakHisDataModule

__all__ = ["BreakHisDataModule"]


def __getattr__(
    name: str,
) -> Any:  # the data module needs torch and Lightning; names, records and splits do not
    if name == "BreakHisDataModule":
        from histo_lightning.data.datamodule import BreakHisDataModule

        return BreakHisDataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
