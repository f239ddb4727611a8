"""A run in plain sentences: what its scores say."""

from collections.abc import Mapping
from typing import Any

from histo_lightning.evaluation.table import Table

Json = Mapping[str, Any]
PART_NAMES = {"train": "training", "val": "validation", "test": "test"}

COVERS = "other cases from the same source, these trained models only"
SHARES_CASES = ("LEAKY", "CASE-LEAKY")
SHUFFLED = "SHUFFLED LABELS"


def level_scores(metrics: Json, part: str, level: str) -> Json:
    """Benign-against-malignant scores of a level, empty where the part or level was not scored."""
    found: Json = (metrics.get(part) or {}).get(level) or {}
    return found.get("binary") or found


def part_of(table: Table) -> str:
    """``test part``, ``validation part``, ... of a table of one part."""
    part = str(table.part[0]) if len(table) else "empty"
    return f"{PART_NAMES.get(part, part)} part"


def fixed(value: float, decimals: int = 3) -> str:
    """A number with a minus sign that cannot be read as a dash."""
    return f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def summary(metrics: Json, label: str) -> str:
    """One paragraph on what the run shows, by case where cases are known, else by image; label as in ``split.json``."""
    part = "val" if metrics.get("test") is None else "test"
    level = "case" if level_scores(metrics, part, "case").get("n") else "image"
    scores = level_scores(metrics, part, level)
    counts = scores.get("confusion")
    if not scores.get("n") or not counts:
        return "No part of this run has been scored."
    (benign_right, benign_wrong), (missed, found) = counts
    benign, malignant = benign_right + benign_wrong, missed + found
    sentences = [] if part == "test" else ["The test part was left unread."]
    sentences.append(
        f"{_where(part, level, label, scores['n'], benign)} {_ranking(scores.get('auroc') or {}, level)}"
    )
    right = f"At the threshold 0.5 it calls {benign_right + found} of {scores['n']} {level}s right"
    if benign and malignant:
        right += f", {benign_right} of {benign} benign and {found} of {malignant} malignant"
    sentences.append(f'{right}; answering "malignant" every time would be right for {malignant}.')
    colour = ((metrics.get("baselines") or {}).get("mean_colour") or {}).get(level) or {}
    if colour.get("auroc") is not None:
        sentences.append(f"The mean colour of the images alone ranks with probability {colour['auroc']:.2f}.")
    recall = (metrics[part].get("image") or {}).get("recall")
    accuracy = (metrics[part].get("image") or {}).get("accuracy") or {}
    if recall and accuracy.get("value") is not None:
        sentences.append(
            f"Of the {len(recall)} subtypes it names the right one for {100 * accuracy['value']:.0f} % of the images."
        )
    if label.startswith(SHARES_CASES):
        sentences.append(f"The split is {label}: these numbers do not say how the network does on new cases.")
    if label.endswith(SHUFFLED):
        sentences.insert(
            0, "A control with shuffled labels, no result: what is right here is memory or chance."
        )
    return " ".join(sentences)


def _where(part: str, level: str, label: str, count: int, benign: int) -> str:
    name = "test" if part == "test" else "validation"
    said = f"{count} {name} {level}s ({benign} benign)"
    if level == "image":
        return f"On {said}, which come from an unknown number of cases,"
    if label.startswith(SHARES_CASES):
        return f"On {said}, some of which the network was also trained on,"
    if part == "val":
        return f"On {said}, on which the training was watched,"
    return f"On {count} unseen {level}s ({benign} benign)"


def _ranking(auroc: Json, level: str) -> str:
    if auroc.get("value") is None:
        reason = auroc.get("reason") or "it is undefined"
        return f"no ranking of malignant above benign {level}s can be scored ({reason})."
    text = f"the network ranks a malignant {level} above a benign one with probability {auroc['value']:.2f}"
    if auroc.get("low") is None or auroc.get("high") is None:
        reason = "cases are unknown" if level == "image" else auroc.get("reason") or "not computed"
        return f"{text} (no interval: {reason})."
    return f"{text} (95 % interval {auroc['low']:.2f} to {auroc['high']:.2f})."
