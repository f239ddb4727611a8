"""What every worker of a study knows: the settings, the searches, the folder. Needs neither Optuna nor torch."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from histo_lightning.config import MONITORS
from histo_lightning.config.schema import TuneConfig
from histo_lightning.errors import UserError
from histo_lightning.tuning.space import Arm, arms, folds, read_space


@dataclass(frozen=True)
class Plan:
    """A study as its command line gives it.

    Attributes:
        folder: ``<output_dir>/studies/<name>``.
        config: checked.
        identity: what must be the same for a study to go on: hashes of settings, split and data, package version.
        hydra: texts for the ``.hydra/`` of run folders.
        failed_before: trials that had failed when the command started.
    """

    folder: Path
    config: TuneConfig
    identity: Mapping[str, str]
    hydra: Mapping[str, str]
    failed_before: int = 0

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """One search for each depth, or a single one."""
        return arms(self.config, read_space(self.config))

    @property
    def folds(self) -> tuple[int, ...]:
        """The outer folds whose validation is read."""
        return folds(self.config)

    @property
    def minimise(self) -> bool:
        """Whether less of the monitored value is better."""
        return MONITORS[self.config.monitor] == "min"

    @property
    def warmup_epochs(self) -> int:
        """Epochs before a trial can be pruned."""
        return self.config.tune.warmup_epochs or max(1, self.config.epochs // 4)

    def objective(self, curve: Sequence[float | None]) -> float | None:
        """A run's value: of the epoch whose weights are scored, the best one or (``scored_weights=last``) the last.

        None where it is undefined.
        """
        if self.config.scored_weights == "last":
            return curve[-1] if curve else None
        defined = [value for value in curve if value is not None and value == value]
        if not defined:
            return None
        return min(defined) if self.minimise else max(defined)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold a lock of the study, waiting for it."""
        with open_lock(self.folder / ".locks" / name) as lock:
            flock(lock, LOCK_EX)
            yield


def open_lock(path: Path) -> IO[Any]:
    """A file to lock; raise UserError where it cannot be made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a")
    except OSError as error:
        raise UserError(f"{path}: cannot be made ({error.strerror}); choose another output_dir") from error


def try_lock(path: Path) -> IO[Any] | None:
    """The locked file, or None where another process holds it. The system lets go when its holder dies."""
    lock = open_lock(path)
    try:
        flock(lock, LOCK_EX | LOCK_NB)
    except OSError:
        lock.close()
        return None
    return lock
