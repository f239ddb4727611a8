"""Splits: which image trains, validates and tests, and the proof that no group appears on both sides.

A split kind is one class, registered by :func:`register_split`; a module of your own may register more.
"""

from histo_lightning.config.schema import SplitConfig
from histo_lightning.data.splits import injection, kfold, official  # noqa: F401 - register their kinds
from histo_lightning.data.splits.build import Split, build_split
from histo_lightning.data.splits.registry import Draft, SplitKind, check_split_keys, register_split

__all__ = [
    "Draft", "Split", "SplitConfig", "SplitKind", "build_split", "check_split_keys", "register_split"
]  # fmt: skip
