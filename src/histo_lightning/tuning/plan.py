"""A study as its command line gives it, and the config of each of its runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from histo_lightning.config.compose import config_of
from histo_lightning.config.schema import MONITORS, Config, TuneConfig
from histo_lightning.tuning.space import Search, overrides, searches

OWN = ("tune", "nested", "study_name")  # keys of the search itself, which a run does not have


def run_config(given: Sequence[str], settings: Mapping[str, Any]) -> Config:
    """The config of a run, checked: the command line's overrides with ``settings`` (keys or groups) in their place.

    Raises:
        UserError: as for a command line.
    """
    kept = []
    for override in given:
        key = override.partition("=")[0].lstrip("+~")
        if key.split(".")[0] not in OWN and key not in settings:
            kept.append(override)
    config = config_of("train", overrides(settings), prepared=kept)
    assert isinstance(config, Config)
    return config


@dataclass(frozen=True)
class Plan:
    """A study as its command line gives it.

    Attributes:
        folder: ``<output_dir>/studies/<name>``.
        config: checked.
        hydra: texts for the ``.hydra/`` of run folders; ``overrides.yaml`` lists what the command line gave.
    """

    folder: Path
    config: TuneConfig
    hydra: Mapping[str, str]

    @cached_property
    def searches(self) -> tuple[Search, ...]:
        """One search for each depth, or a single one."""
        return searches(self.config)

    @property
    def folds(self) -> tuple[int, ...]:
        """The outer folds whose validation sets the objective reads: one, or several with ``nested=false``."""
        return tuple(self.config.tune.folds or (self.config.split.fold,))

    @property
    def minimise(self) -> bool:
        """Whether less of the monitored value is better."""
        return MONITORS[self.config.monitor] == "min"

    @property
    def warmup_epochs(self) -> int:
        """Epochs before a trial can be pruned."""
        return self.config.tune.warmup_epochs or max(1, self.config.epochs // 4)

    def run_config(self, values: Mapping[str, Any], fold: int, **changes: Any) -> Config:
        """The config of a run with a setting, on a fold; what the command itself writes is not the run's."""
        own = {"json": None, "resume": "auto", "split.fold": fold}
        return run_config(yaml.safe_load(self.hydra["overrides.yaml"]), {**values, **own, **changes})

    def run_name(self, search: Search, number: int) -> str:
        """A trial's run folder without its hash, by which a trial that is taken up again finds its run."""
        return f"trial_{search.name}_{number:04d}" if len(self.searches) > 1 else f"trial_{number:04d}"
