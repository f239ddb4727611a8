"""The settings of a split: the keys of the config group ``split``."""

from dataclasses import dataclass, field

from histo_lightning.data.splits.grouping import GROUPS


def _kinds() -> tuple[str, ...]:
    from histo_lightning.data.splits.registry import split_kinds  # kinds take a SplitConfig themselves

    return split_kinds()


@dataclass
class SplitConfig:
    """How to split. Field metadata holds the ``choices`` (a tuple, or a function that returns one) or the ``range``.

    Attributes:
        name: the split kind.
        fold: the fold that tests; 0-based, for the authors' folds 1 to 5.
        folds: number of folds.
        seed: of everything that is drawn.
        repeat: 0 is the best-balanced partition into folds, others are random balanced ones.
        group: what must not appear on both sides.
        clean: drop the cases that train shares with test.
        matched: drop as many images and cases that train does not share with test.
        injected: share of the test slides' siblings that is put into train, 0 or 0.25 to 1; None is 0.
        shuffle_labels: give the cases each other's classes, by ``seed``: a control, never a result.
        path: of the file that says the sets.
    """

    name: str = field(default="case_kfold", metadata={"choices": _kinds})
    fold: int = 0
    folds: int = 5
    seed: int = field(default=0, metadata={"range": (0, 2**31 - 1)})
    repeat: int = field(default=0, metadata={"range": (0, 10**6)})
    group: str = field(default="case", metadata={"choices": GROUPS})
    clean: bool = False
    matched: bool = False
    injected: float | None = field(default=None, metadata={"range": (0, 1)})
    shuffle_labels: bool = False
    path: str = ""
