"""A run in plain sentences: what the scores say, and how the data were split."""

from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]

COVERS = "other cases from the same source, these trained models only"
SHARES_CASES = ("LEAKY", "CASE-LEAKY")


def level_scores(metrics: Json, part: str, level: str) -> Json:
    """Benign-against-malignant scores of a level, empty where the part or level was not scored."""
    found: Json = (metrics.get(part) or {}).get(level) or {}
    return found.get("binary") or found


def fixed(value: float) -> str:
    """Three decimals, and a minus sign that cannot be read as a dash."""
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


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
    right = (
        f"At the threshold 0.5 it calls {benign_right + found} of {scores['n']} {level}s right: "
        f"{benign_right} of {benign} benign and {found} of {malignant} malignant"
    )
    sentences.append(f'{right}; answering "malignant" every time would be right for {malignant}.')
    recall = (metrics[part].get("image") or {}).get("recall")
    accuracy = (metrics[part].get("image") or {}).get("accuracy") or {}
    if recall and accuracy.get("value") is not None:
        sentences.append(
            f"Of the {len(recall)} subtypes it names the right one for {100 * accuracy['value']:.0f} % of the images."
        )
    if label.startswith(SHARES_CASES):
        sentences.append(f"The split is {label}: these numbers do not say how the network does on new cases.")
    return " ".join(sentences)


def _where(part: str, level: str, label: str, count: int, benign: int) -> str:
    name = "test" if part == "test" else "validation"
    said = f"{count} {name} {level}s ({benign} benign)"
    if level == "image":
        return f"On {said}, which come from an unknown number of cases,"
    if label.startswith(SHARES_CASES):
        return f"On {said}, some of which the network was also trained on,"
    if part == "val":
        return f"On {said}, which also chose the epoch,"
    return f"On {count} unseen {level}s ({benign} benign)"


def _ranking(auroc: Json, level: str) -> str:
    if auroc.get("value") is None:
        reason = auroc.get("reason") or "it is undefined"
        return f"no ranking of malignant above benign {level}s can be scored ({reason})."
    text = f"the network ranks a malignant {level} above a benign one with probability {auroc['value']:.2f}"
    if auroc.get("low") is None or auroc.get("high") is None:
        return f"{text} (no interval: {auroc.get('reason') or 'not computed'})."
    return f"{text} (95 % interval {auroc['low']:.2f} to {auroc['high']:.2f})."


def protocol(split: Json, clean: bool = False) -> str:
    """How the data were split, in words; ``clean`` is ``split.clean`` of the config."""
    kind, fold, folds = split.get("kind"), split.get("fold"), split.get("folds")
    if kind in ("case_kfold", "slide_kfold"):
        unit = "case" if kind == "case_kfold" else "slide"
        turn = ""
        if isinstance(fold, int) and isinstance(folds, int):
            turn = f" Test is fold {fold}, validation fold {(fold + 1) % folds}, training the other {folds - 2} (folds count from 0)."
        if unit == "case":
            held = "so no case stands in two parts"
        else:
            held = "so a case with several slides can stand in training and in test"
        return f"Whole {unit}s were dealt to {folds} folds, balanced by class and number of images, {held}.{turn}"
    if kind == "official":
        shared = (
            "cases that stand in both were dropped from training"
            if clean
            else "slides of one case stand in training and in test"
        )
        return f"The data set authors' own fold {fold} of 5, which divides slides: {shared}. Validation was cut from training by case."
    if kind == "image_random":
        return (
            "Images were dealt at random, whatever slide and case they are from: almost every test image has "
            "neighbours from its own slide in training."
        )
    if kind == "folders":
        return "The parts are the folders train, val and test of the data set, as they were given."
    if kind == "file":
        return "The parts were read from a file, as they were given."
    return f"The split's kind is {kind or 'not recorded'}."
