"""What a leakage study shows, in plain two-sided sentences."""

from collections.abc import Mapping
from typing import Any

from histo_lightning.report.words import SHUFFLED, counted

Json = Mapping[str, Any]
NAMES = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy", "accuracy": "accuracy"}


def points(value: float) -> str:
    """A difference in points (hundredths) with its sign; the minus sign cannot be read as a dash."""
    shown = f"{100 * value:.1f}"
    if float(shown) == 0:
        return "0.0"
    return f"+{shown}" if value > 0 else f"\N{MINUS SIGN}{shown[1:]}"


def difference(record: Json, score: str, what: str) -> str:
    """A sentence on one difference; ``what`` is its subject, in words."""
    found = record[score]
    low, high = found["low"], found["high"]
    if found["value"] is None:
        return f"{what}: {NAMES[score]} is undefined ({found['reason']})."
    start = f"{what} changes image {NAMES[score]} by {points(found['value'])} points"
    if low is None:
        return f"{start}, without an interval ({found['reason']})."
    basis = f"{found['cases']} cases, {found['benign']} benign; {counted(found['seeds'], 'seed')}"
    near, far = sorted((100 * abs(low), 100 * abs(high)))
    if low > 0 or high < 0:
        limits = f"A {'rise' if low > 0 else 'fall'} below {near:.1f} and one above {far:.1f} points"
    else:
        limits = f"It may be 0; a fall beyond {100 * abs(low):.1f} and a rise beyond {100 * high:.1f} points"
    limits += " are not compatible with these data at that level."
    conditional = f" This is {found['conditional']}." if found["conditional"] else ""
    return f"{start} (95 % interval {points(low)} to {points(high)}; {basis}). {limits}{conditional}"


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
    """A sentence or two on each arm that could be compared, by block: ``injection`` (the headline), ``contrast``, ...

    Args:
        found: the content of ``leakage.json``.
    """
    blocks, told = found["blocks"], {}
    largest = largest_share(blocks["injection"])
    record = pair(blocks["injection"], largest, "injected 0") if largest else None
    if largest and record:
        amount = f"{100 * float(largest.split()[-1]):.0f} % of the tested slides' siblings"
        if dose := (found["doses"] or {}).get(largest):
            amount += f" (on average {dose['images']:.0f} images a fold)"
        what = f"Putting {amount} into the train set, at the same number of train cases and images,"
        told["injection"] = difference(record, "auroc", what)
    if record := pair(blocks["contrast"], "image_random", "case_kfold"):
        told["contrast"] = difference(record, "auroc", "Splitting by image instead of by case")
    if record := pair(blocks["contrast"], "slide_kfold", "case_kfold"):
        # So few cases leave few pairs within a fold to rank.
        score = "balanced_accuracy" if record["balanced_accuracy"]["value"] is not None else "accuracy"
        cases = f"On the n = {record[score]['cases']} cases with several slides"
        told["slides"] = difference(record, score, f"{cases}, splitting by slide instead of by case")
    official = []
    for among in ("touched images", "untouched images"):
        if record := pair(blocks.get("official"), "official", "official clean", among):
            score = "auroc" if record["auroc"]["value"] is not None else "accuracy"
            what = f"In the authors' folds, keeping the shared cases in the train set, on the {among},"
            official.append(difference(record, score, what))
    told |= {"official": " ".join(official)} if official else {}
    return told | _control(found["control"])


def _control(control: Json) -> dict[str, str]:
    """What the arms with shuffled labels reach, without and with shared cases."""
    arms = {r["arm"]: r["auroc"] for name in ("contrast", "injection") for r in control[name]["arms"]}
    clean = next((arm for arm in ("injected 0", "case_kfold") if arm in arms), None)
    if clean is None or arms[clean]["value"] is None:
        return {}
    text = f"Control, {SHUFFLED}, no result: with nothing to learn but cases, the arm without shared ones ({clean}) "
    text += f"has an image AUROC of {_with_interval(arms[clean])}, chance being 0.50"
    leaky = largest_share(control["injection"])
    leaky = leaky if leaky in arms else "image_random"
    if leaky in arms and arms[leaky]["value"] is not None:
        text += f", and {leaky} one of {_with_interval(arms[leaky])}"
    return {"control": f"{text}."}


def _with_interval(score: Json) -> str:
    interval = "" if score["low"] is None else f" (95 % interval {score['low']:.2f} to {score['high']:.2f})"
    return f"{score['value']:.2f}{interval}"
