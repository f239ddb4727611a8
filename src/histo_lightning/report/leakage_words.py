"""What a leakage study shows, in plain two-sided sentences."""

from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]
NAMES = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy", "accuracy": "accuracy"}
COVERS = (
    "Intervals are nominal 95 % intervals for other cases from the same source and other training runs (seeds) of the same "
    "recipe; they say nothing about other laboratories."
)


def points(value: float) -> str:
    """A difference in points (hundredths) with its sign; the minus sign cannot be read as a dash."""
    shown = f"{100 * value:.1f}"
    if float(shown) == 0:
        return "0.0"
    return f"+{shown}" if value > 0 else f"\N{MINUS SIGN}{shown[1:]}"


def based_on(score: Json) -> str:
    """``70 cases, 16 benign; 3 seeds``."""
    seeds = f"{score['seeds']} seed{'s' if score['seeds'] != 1 else ''}"
    return f"{score['cases']} cases, {score['benign']} benign; {seeds}"


def difference(record: Json, score: str, what: str) -> str:
    """A sentence on one difference; ``what`` is its subject, in words."""
    found = record[score]
    if found["value"] is None:
        return f"{what}: {NAMES[score]} is undefined ({found['reason']})."
    start = f"{what} changes image {NAMES[score]} by {points(found['value'])} points"
    if found["low"] is None:
        return f"{start}, without an interval ({found['reason']})."
    low, high = found["low"], found["high"]
    told = f"{start} (95 % interval {points(low)} to {points(high)}; {based_on(found)})."
    if low > 0 or high < 0:
        way = "rise" if low > 0 else "fall"
        near, far = sorted((abs(low), abs(high)))
        told += (
            f" A {way} below {100 * near:.1f} and one above {100 * far:.1f} points are not compatible with these "
            "data at that level."
        )
    else:
        told += (
            f" It may be 0; a fall beyond {100 * abs(low):.1f} and a rise beyond {100 * high:.1f} points are not "
            "compatible with these data at that level."
        )
    return told + (f" This is {found['conditional']}." if found["conditional"] else "")


def pair(block: Json | None, arm: str, reference: str, among: str | None = None) -> Json | None:
    """The record of a difference, or None where it could not be computed."""
    for record in (block or {}).get("pairs", ()):
        if (record["arm"], record["reference"]) == (arm, reference) and among in (None, record["among"]):
            return dict(record)
    return None


def largest_share(block: Json | None) -> str | None:
    """The arm of ``injection`` with most siblings that was compared with the clean one."""
    arms = [record["arm"] for record in (block or {}).get("pairs", ())]
    return max(arms, key=lambda arm: float(arm.split()[-1]), default=None)


def sentences(found: Json) -> dict[str, str]:
    """A sentence or two on each arm that could be compared, by block: ``injection`` (the headline), ``contrast``, ..."""
    told = {}
    blocks = found["blocks"]
    top = largest_share(blocks["injection"])
    if top:
        dose = (found["doses"] or {}).get(top)
        amount = f"{100 * float(top.split()[-1]):.0f} % of the tested slides' siblings"
        if dose:
            amount += f" (on average {dose['images']:.0f} images a fold)"
        record = pair(blocks["injection"], top, "injected 0")
        assert record is not None
        what = f"Putting {amount} into training, at the same number of training cases and images,"
        told["injection"] = difference(record, "auroc", what)
    record = pair(blocks["contrast"], "image_random", "case_kfold")
    if record:
        told["contrast"] = difference(record, "auroc", "Splitting by image instead of by case")
    record = pair(blocks["contrast"], "slide_kfold", "case_kfold")
    if record:
        # So few cases leave few pairs within a fold to rank.
        score = "balanced_accuracy" if record["balanced_accuracy"]["value"] is not None else "accuracy"
        n = record[score]["cases"]
        told["slides"] = difference(
            record, score, f"On the n = {n} cases with several slides, splitting by slide instead of by case"
        )
    told |= _official(blocks.get("official"))
    control = found["control"]
    clean = next((r for r in control["injection"]["arms"] if r["arm"] == "injected 0"), None)
    clean = clean or next((r for r in control["contrast"]["arms"] if r["arm"] == "case_kfold"), None)
    if clean and clean["auroc"]["value"] is not None:
        told["control"] = (
            "Control, SHUFFLED LABELS, no result: with nothing to learn but cases, the arm without shared ones "
            f"({clean['arm']}) has an image AUROC of {_with_interval(clean['auroc'])}, chance being 0.50"
        )
        leaky = largest_share(control["injection"])
        last = next((r for r in control["injection"]["arms"] if r["arm"] == leaky), None)
        last = last or next((r for r in control["contrast"]["arms"] if r["arm"] == "image_random"), None)
        if last and last["auroc"]["value"] is not None:
            told["control"] += f", and {last['arm']} one of {_with_interval(last['auroc'])}"
        told["control"] += "."
    return told


def _with_interval(score: Json) -> str:
    interval = "" if score["low"] is None else f" (95 % interval {score['low']:.2f} to {score['high']:.2f})"
    return f"{score['value']:.2f}{interval}"


def _official(block: Json | None) -> dict[str, str]:
    told = []
    for among in ("touched images", "untouched images"):
        record = pair(block, "official", "official clean", among)
        if record:
            score = "auroc" if record["auroc"]["value"] is not None else "accuracy"
            what = f"In the authors' folds, keeping the shared cases in training, on the {among},"
            told.append(difference(record, score, what))
    return {"official": " ".join(told)} if told else {}
