"""Scores as HTML tables: value and interval where there are any, else a mark that leads to the reason."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from histo_lightning.data.breakhis.names import SUBTYPE_NAMES
from histo_lightning.report.words import fixed, level_scores

Json = Mapping[str, Any]
LEVELS = ("image", "slide", "case")
# Name, meaning; in the order of the tables.
SCORES = {
    "auroc": ("AUROC", "probability that a malignant one is ranked above a benign one"),
    "balanced_accuracy": ("Balanced accuracy", "mean of the shares called right, over the classes"),
    "balanced_accuracy_headline": (
        "Balanced accuracy, headline",
        "the same over the subtypes with at least 5 cases",
    ),
    "accuracy": ("Accuracy", "share called right"),
    "sensitivity": ("Sensitivity", "share of the malignant ones called malignant"),
    "specificity": ("Specificity", "share of the benign ones called benign"),
    "f1": ("F1", "harmonic mean of precision and sensitivity; over subtypes their mean"),
    "micro_f1": ("Micro F1", "F1 of all decisions together; equals accuracy here, since each has one label"),
    "mcc": ("MCC", "Matthews correlation of calls and truth"),
    "auprc": ("AUPRC", "average precision for malignant"),
    "auprc_benign": ("AUPRC, benign", "average precision for benign"),
    "patient_recognition_rate": (
        "Patient recognition rate",
        "mean over slides of the share of images called right",
    ),
    "patient_recognition_rate_benign": ("\N{EM DASH} of benign slides", "the same over the benign slides"),
    "patient_recognition_rate_malignant": (
        "\N{EM DASH} of malignant slides",
        "the same over the malignant slides",
    ),
    "log_loss": ("Log loss", "mean negative log probability of the truth, in nats; smaller is better"),
    "brier": ("Brier score", "mean squared error of the probability; smaller is better"),
    "ece": ("ECE", "calibration error over at most 5 bins of equal mass; smaller is better"),
    "calibration_intercept": ("Calibration intercept", "0 where malignant is called as often as it is there"),
    "calibration_slope": ("Calibration slope", "1 is calibrated; smaller is over-confident"),
}
BASELINES = ("accuracy", "f1")  # the scores that the class mix flatters


class Footnotes:
    """Reasons in order of appearance, each once, marked a, b, c, ..."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def mark(self, reason: str) -> str:
        """A superscript that shows ``reason`` under the pointer and stands beside it below the table."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        sign = self._sign(self.reasons.index(reason))
        return f'<sup class="note" title="{escape(reason)}">{sign}</sup>'

    def html(self) -> str:
        """The reasons below a table."""
        lines = [f"<sup>{self._sign(i)}</sup> {escape(reason)}" for i, reason in enumerate(self.reasons)]
        return f'<p class="small">{"<br>".join(lines)}</p>' if lines else ""

    def _sign(self, index: int) -> str:
        return chr(ord("a") + index % 26) * (1 + index // 26)


def cell(score: Json | None, notes: Footnotes) -> str:
    """A score as the inside of a table cell: value, interval, and why one of them is missing."""
    if score is None:
        return '<span class="none">\N{MIDDLE DOT}</span>'
    reason = str(score.get("reason") or "not computed")
    if score.get("value") is None:
        return f'<span class="none">\N{EN DASH}</span>{notes.mark(reason)}'
    text = f"<b>{fixed(score['value'])}</b>"
    if score.get("low") is None or score.get("high") is None:
        return text + notes.mark(f"no interval: {reason}")
    return f'{text}<span class="interval">{fixed(score["low"], 2)} to {fixed(score["high"], 2)}</span>'


def _is_score(value: Any) -> bool:
    return isinstance(value, Mapping) and "value" in value


def row(heading: str, cells: Sequence[str], kind: str = "") -> str:
    """A table row; heading and cells are HTML already."""
    return f'<tr class="{kind}"><th scope="row">{heading}</th>{"".join(f"<td>{text}</td>" for text in cells)}</tr>'


def table(head: Sequence[str], rows: Sequence[str], below: str = "") -> str:
    """A table that scrolls on its own where the page is narrow; ``head`` and ``rows`` are HTML already."""
    titles = "".join(f'<th scope="col">{title}</th>' for title in head)
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>{below}'


def score_table(levels: Mapping[str, Json | None]) -> str:
    """All scores of a part by image, slide and case; a level that was not scored shows its reason.

    Args:
        levels: a part of ``metrics.json``: level to its scores, None or ``{"reason"}`` where cases are unknown.
    """
    notes = Footnotes()
    found = {level: levels.get(level) or {} for level in LEVELS}
    present = {name for scores in found.values() for name, value in scores.items() if _is_score(value)}
    names = [name for name in SCORES if name in present] + sorted(present - set(SCORES))
    rows = []
    for name in names:
        title, meaning = SCORES.get(name, (name, ""))
        cells = []
        for scores in found.values():
            reason = scores.get("reason")
            missing = {"value": None, "reason": reason} if reason else None
            cells.append(cell(scores.get(name) or missing, notes))
        rows.append(row(f'<span title="{escape(meaning)}">{escape(title)}</span>', cells))
        baseline = [(scores.get("always_malignant") or {}).get(name) for scores in found.values()]
        if name in BASELINES and any(value is not None for value in baseline):
            told = ["" if value is None else fixed(value) for value in baseline]
            rows.append(row("\N{EM DASH} always &ldquo;malignant&rdquo;", told, "baseline"))
    sizes = [f"n = {scores['n']}" if scores.get("n") else "unknown" for scores in found.values()]
    head = [
        f'by {level}<br><span class="small">{size}</span>' for level, size in zip(LEVELS, sizes, strict=True)
    ]
    return table(["", *head], rows, notes.html())


def recall_table(levels: Mapping[str, Json | None]) -> str:
    """Recall of each subtype with the number of its cases; empty for the binary task."""
    found = {level: (levels.get(level) or {}).get("recall") or {} for level in LEVELS}
    if not found["image"]:
        return ""
    notes = Footnotes()
    rows = []
    for subtype, score in found["image"].items():
        name = escape(SUBTYPE_NAMES.get(subtype, subtype).replace("_", " "))
        cases = "cases unknown" if score.get("cases") is None else f"cases: {score['cases']}"
        heading = f'{name}, {escape(subtype)}<span class="interval">{cases}</span>'
        rows.append(row(heading, [cell(found[level].get(subtype), notes) for level in LEVELS]))
    return table(["recall of", *(f"by {level}" for level in LEVELS)], rows, notes.html())


def parts_table(metrics: Json) -> str:
    """The main scores of training beside validation and test, by image and by case."""
    parts = [part for part in ("train", "val", "test") if metrics.get(part)]
    titles = {"train": "training", "val": "validation", "test": "test"}
    rows = []
    for level in ("image", "case"):
        for name in ("auroc", "balanced_accuracy", "accuracy", "log_loss"):
            values = [(level_scores(metrics, part, level).get(name) or {}).get("value") for part in parts]
            if any(value is not None for value in values):
                told = ["\N{EN DASH}" if value is None else fixed(value) for value in values]
                rows.append(row(f"{SCORES[name][0]} by {level}", [*told, *_gap(metrics, level, name)]))
    gap = ["test less validation"] if metrics.get("val") and metrics.get("test") else []
    return table(["", *(titles[part] for part in parts), *gap], rows)


def _gap(metrics: Json, level: str, name: str) -> list[str]:
    """Test less validation as a cell; none where a part is missing."""
    if not (metrics.get("val") and metrics.get("test")):
        return []
    test, val = (
        (level_scores(metrics, part, level).get(name) or {}).get("value") for part in ("test", "val")
    )
    if test is None or val is None:
        return ["\N{EN DASH}"]
    return [("+" if test > val else "") + fixed(test - val)]


def meanings() -> str:
    """What each score is, as a definition list."""
    items = "".join(
        f"<dt>{escape(title)}</dt><dd>{escape(meaning)}</dd>" for title, meaning in SCORES.values()
    )
    return f"<dl>{items}</dl>"
