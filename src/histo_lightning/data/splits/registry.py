"""The registry of split kinds: what a kind says of itself, and which keys go with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from histo_lightning.config.schema import SplitConfig
from histo_lightning.data.breakhis.names import MAGNIFICATIONS
from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.splits.grouping import Parts, content_hash
from histo_lightning.errors import UserError

OPTIONS = ("clean", "matched", "injected", "shuffle_labels")  # keys of which each has its own kinds


@dataclass
class Draft:
    """What a kind makes of a data set.

    Attributes:
        parts: records by ``train``, ``val`` and ``test``.
        partition: a hash of how groups are assigned, equal for all magnifications; by default of the cases by part.
        notes: what a reader must know, a sentence each.
        injection: the ``injection`` of ``split.json``.
    """

    parts: Parts
    partition: str = ""
    notes: list[str] = field(default_factory=list)
    injection: Mapping[str, float | int] | None = None

    def __post_init__(self) -> None:
        if not self.partition:
            cases = {part: {r.case for r in members} for part, members in self.parts.items()}
            self.partition = content_hash(cases)


class SplitKind:
    """One way to split. Derive a class, name it, write :meth:`assign`, and decorate it with :func:`register_split`.

    Attributes:
        name: of the config option ``split=<name>``.
        group: what no two sets may share: ``case``, ``slide`` or ``image``; None lets ``split.group`` choose. Sets
            that share cases all the same are labelled CASE-LEAKY, and those of group ``image`` LEAKY.
        keys: the keys of ``SplitConfig`` that it reads, beside ``name`` and ``group``.
        dataset: the only data set that it splits; empty for any with BreakHis names.
        given: the sets are listed somewhere (:meth:`listed`), so they serve any data set.
        needs_cases: names must say their case.
        keeps_twins: both copies of slide 13412 stay (``task=binary`` only).
        clean_validation: validation shares no case with the other sets, though these may share some.
        one_magnification: it cannot split all magnifications at once.
    """

    name: ClassVar[str]
    group: ClassVar[str | None] = "case"
    keys: ClassVar[tuple[str, ...]] = ()
    dataset: ClassVar[str] = ""
    given: ClassVar[bool] = False
    needs_cases: ClassVar[bool] = True
    keeps_twins: ClassVar[bool] = False
    clean_validation: ClassVar[bool] = False
    one_magnification: ClassVar[bool] = False

    def check(self, config: SplitConfig) -> None:
        """Raise UserError where the values of its own keys contradict each other."""

    def assign(self, records: Sequence[Record], config: SplitConfig) -> Draft:
        """Assign the records of all magnifications, sorted by image name, to parts.

        Raises:
            UserError: the data set cannot be split this way.
        """
        raise NotImplementedError

    def listed(
        self, config: SplitConfig, folder_parts: Mapping[str, Sequence[str]] | None
    ) -> Mapping[str, Sequence[str]]:
        """Image names by part, instead of :meth:`assign`, for a kind that is ``given``.

        Args:
            folder_parts: what the data set's own folders say, for ``dataset=folders``.

        Raises:
            UserError: they cannot be read.
        """
        raise NotImplementedError

    def refine(self, draft: Draft, config: SplitConfig) -> Draft:
        """Change a draft once only the run's magnification is left in it."""
        return draft

    def unshared(self, config: SplitConfig) -> str:
        """What no two sets may share: ``case``, ``slide`` or ``image``."""
        return self.group or config.group


_KINDS: dict[str, SplitKind] = {}


def register_split(kind: type[SplitKind]) -> type[SplitKind]:
    """Class decorator: make ``split=<name>`` known. A name that is taken belongs to the later class."""
    _KINDS[kind.name] = kind()
    return kind


def split_kinds() -> tuple[str, ...]:
    """The names of all kinds, in the order of their registration."""
    return tuple(_KINDS)


def split_kind(name: str) -> SplitKind:
    """A kind by name.

    Raises:
        UserError: there is none of that name.
    """
    if name not in _KINDS:
        raise UserError(f"split.name={name}: allowed are {', '.join(_KINDS)}")
    return _KINDS[name]


def check_options(config: SplitConfig, magnification: str) -> SplitKind:
    """The kind of a config whose keys go together; see :func:`check_split_keys`."""
    kind = split_kind(config.name)
    for key in OPTIONS:
        value = getattr(config, key)
        if value not in (None, False) and key not in kind.keys:
            users = ", ".join(name for name, other in _KINDS.items() if key in other.keys)
            value = str(value).lower() if isinstance(value, bool) else f"{value:g}"
            raise UserError(f"split.{key}={value}: only split={users} uses it, not split={config.name}")
    if kind.one_magnification and magnification == "all":
        choices = ", ".join(f"{m}x" for m in MAGNIFICATIONS)
        raise UserError(
            f"magnification=all: split={config.name} tells siblings apart at one magnification only, since a field is "
            f"photographed at every magnification; give one of {choices}"
        )
    kind.check(config)
    return kind


def check_split_keys(config: SplitConfig, *, dataset: str, task: str, magnification: str) -> None:
    """Refuse keys that contradict the kind, the data set, the task or the magnification.

    Raises:
        UserError: with the key, what was given and what is allowed.
    """
    kind = split_kind(config.name)
    if kind.group not in (None, config.group):
        free = " and ".join(f"split={name}" for name, other in _KINDS.items() if other.group is None)
        raise UserError(
            f"split.group={config.group}: split={config.name} groups by {kind.group}; split.group is for {free}"
        )
    check_options(config, magnification)
    if config.shuffle_labels and task != "binary":
        raise UserError(
            f"split.shuffle_labels=true: shuffles benign and malignant, not task={task}; use task=binary"
        )
    if dataset == "folders" and not kind.given:
        given = " or ".join(f"split={name}" for name, other in _KINDS.items() if other.given)
        raise UserError(f"dataset=folders carries its own parts: use {given}, not split={config.name}")
    if kind.dataset and dataset != kind.dataset:
        raise UserError(f"split={config.name} needs dataset={kind.dataset}, not dataset={dataset}")
