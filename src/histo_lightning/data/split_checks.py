"""The proof that no group stands on both sides of a split, and the label of what does."""

from collections.abc import Mapping, Sequence

from histo_lightning.data.records import Record
from histo_lightning.data.split_plan import GROUPS, Parts, SplitPlan, group_of
from histo_lightning.errors import UserError

SHUFFLED = "SHUFFLED LABELS"


def label_of(parts: Parts, plan: SplitPlan) -> str:
    """Check disjointness by what the plan allows to be shared, and say in a label what is left.

    In ``injection`` train and test share cases where ``injected`` is above 0, and only then; no image stands twice, and
    validation shares no case.

    Raises:
        UserError: a case, slide or image stands in two parts that must not share it.
    """
    leak = _leak_label(parts, plan)
    return "; ".join(text for text in (leak, SHUFFLED if plan.shuffle_labels else "") if text)


def _leak_label(parts: Parts, plan: SplitPlan) -> str:
    everything = [r for members in parts.values() for r in members]
    if any(not r.case for r in everything):
        return "GROUPING UNKNOWN"
    group = "image" if plan.kind == "injection" and plan.injected else plan.group
    for unit in GROUPS[GROUPS.index(group) :]:
        refuse_shared(parts, unit, f"split={plan.kind}")
    if plan.kind in ("slide_kfold", "official", "injection"):  # case_kfold has just shown it
        refuse_shared({"val": parts["val"], "the others": parts["train"] + parts["test"]}, "case", plan.kind)
    if plan.group == "image":
        return "LEAKY"
    seen = {r.case for part in ("train", "val") for r in parts[part]}
    touched = sum(r.case in seen for r in parts["test"])
    return f"CASE-LEAKY ({touched} images)" if touched else ""


def refuse_shared(parts: Mapping[str, Sequence[Record]], unit: str, where: str) -> None:
    """Raise UserError where a case, slide or image stands in two parts."""
    home: dict[str, str] = {}
    shared: dict[str, str] = {}
    for part, members in parts.items():
        for record in members:
            name = group_of(record, unit)
            if home.setdefault(name, part) != part:
                shared[name] = f"{home[name]} and {part}"
    if shared:
        name = min(shared)
        raise UserError(
            f"{where}: {len(shared)} {unit}(s) stand in two parts, e.g. {unit} {name} in {shared[name]}: that is a leak; "
            "move them to one side (split.group=slide or split.group=image runs it all the same, labelled)"
        )
