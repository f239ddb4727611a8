"""The registry of split kinds: what a kind says of itself, and which keys go with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from histo_lightning.config.schema import SplitConfig
from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.splits.groups import Groups, content_hash
from histo_lightning.errors import UserError

OPTIONS = ("clean", "matched", "injected", "shuffle_labels")  # keys of which each has its own kinds


@dataclass
class Draft:
    """What a kind makes of a data set."""

    parts: Groups
    partition: str = ""  # hash of how groups are assigned, before magnifications; else of the cases by part
    notes: list[str] = field(default_factory=list)  # what a reader must know, a sentence each
    injection: Mapping[str, float | int] | None = None  # of ``split.json``

    def __post_init__(self) -> None:
        cases = {part: {r.case for r in members} for part, members in self.parts.items()}
        self.partition = self.partition or content_hash(cases)

    def refined(self, word: str, seed: int, parts: Groups, notes: list[str]) -> "Draft":
        """The draft with other parts; ``word`` and ``seed`` make its partition another one."""
        partition = content_hash({"folds": [self.partition], word: [f"seed {seed}"]})
        return Draft(parts, partition, self.notes + notes)


class SplitKind:
    """One way to split. Derive a class, name it, write :meth:`assign`, and decorate it with :func:`register_split`.

    ``group`` is what no two sets may share: ``case``, ``slide`` or ``image``; None lets ``split.group`` choose. Sets that
    share cases all the same are labelled CASE-LEAKY, and those of group ``image`` LEAKY.
    """

    name: ClassVar[str]  # of the config option ``split=<name>``
    group: ClassVar[str | None] = "case"
    keys: ClassVar[tuple[str, ...]] = ()  # of ``SplitConfig`` that it reads, beside ``name`` and ``group``
    dataset: ClassVar[str] = ""  # the only data set that it splits; empty for any with BreakHis names
    given: ClassVar[bool] = False  # a ``GivenKind``: the sets are listed, so they serve any data set
    needs_cases: ClassVar[bool] = True  # names must say their case
    keeps_twins: ClassVar[bool] = False  # both copies of slide 13412 stay (``task=binary`` only)
    clean_validation: ClassVar[bool] = False  # validation shares no case; train and test may share some

    def check(self, config: SplitConfig, magnification: str) -> None:
        """Raise UserError where the values of its own keys contradict each other or the magnification."""

    def assign(self, records: Sequence[Record], config: SplitConfig) -> Draft:
        """The records of all magnifications, sorted by image name, by part; UserError where they cannot be split this way."""
        raise NotImplementedError

    def refine(self, draft: Draft, config: SplitConfig) -> Draft:
        """Change a draft once only the run's magnification is left in it."""
        return draft

    def unshared(self, config: SplitConfig) -> str:
        """What no two sets may share: ``case``, ``slide`` or ``image``."""
        return self.group or config.group


KINDS: dict[str, SplitKind] = {}


def register_split(kind: type[SplitKind]) -> type[SplitKind]:
    """Class decorator: make ``split=<name>`` known. A name that is taken belongs to the later class."""
    KINDS[kind.name] = kind()
    return kind


def check_split_keys(
    config: SplitConfig, *, magnification: str, task: str = "binary", dataset: str | None = None
) -> None:
    """Raise UserError for keys that contradict the kind, the magnification, the task or, where it is given, the data set."""
    if config.name not in KINDS:
        raise UserError(f"split.name={config.name}: allowed are {', '.join(sorted(KINDS))}")
    kind, kinds = KINDS[config.name], [KINDS[name] for name in sorted(KINDS)]
    if dataset and kind.group not in (None, config.group):
        free = " and ".join(f"split={other.name}" for other in kinds if other.group is None)
        own = f"split={config.name} groups by {kind.group}"
        raise UserError(f"split.group={config.group}: {own}; split.group is for {free}")
    for key in OPTIONS:
        value = getattr(config, key)
        if value and key not in kind.keys:
            users = ", ".join(other.name for other in kinds if key in other.keys)
            given = f"split.{key}={str(value).lower()}"
            raise UserError(f"{given}: only split={users} uses it, not split={config.name}")
    kind.check(config, magnification)
    if config.shuffle_labels and task != "binary":
        problem = f"shuffles benign and malignant, not task={task}"
        raise UserError(f"split.shuffle_labels=true: {problem}; use task=binary")
    if dataset == "folders" and not kind.given:
        given = " or ".join(f"split={other.name}" for other in kinds if other.given)
        raise UserError(f"dataset=folders carries its own parts: use {given}, not split={config.name}")
    if dataset and kind.dataset not in ("", dataset):
        raise UserError(f"split={config.name} needs dataset={kind.dataset}, not dataset={dataset}")
