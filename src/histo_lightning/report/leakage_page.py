"""``leakage.html``, ``leakage.md`` and the picture: the leakage study's answer, its tables, and what is missing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from histo_lightning.evaluation.differences.leakage import OFFICIAL
from histo_lightning.report import pages
from histo_lightning.report.figures.leakage import NAMES, draw_leakage
from histo_lightning.report.words import fixed, is_synthetic
from histo_lightning.runs import write_atomic

Json = Mapping[str, Any]
ALT = "Image scores by share of siblings in the train set, split and official fold"


def write_study(study: Json, folder: Path) -> Path:
    """Write ``leakage.png``, ``leakage.md`` and ``leakage.html`` of ``leakage.json``'s content; return the page.

    Raises:
        UserError: a file cannot be written.
    """
    draw_leakage(study, folder / "leakage")
    context = {
        "study": study,
        "sentences": list(study["words"].values()) or ["No two arms could be compared."],
        "synthetic": is_synthetic(study, {"dataset": {"name": study["recipe"].get("dataset.name")}}),
        "pictures": [pages.picture(folder / "leakage.png", ALT, "leakage.png")],
        "names": NAMES,
        "score_text": score_text,
        "basis_text": basis_text,
    }
    write_atomic(folder / "leakage.md", pages.render_markdown("leakage.md", **context))
    return pages.write_page(folder / "leakage.html", "leakage.html", **context)


def sentences(study: Json) -> dict[str, str]:
    """A sentence or two on each arm that could be compared, by block: ``injection`` (the headline), ``contrast``, ..."""
    context = {"study": study, "names": NAMES, "points": points, "official": OFFICIAL}
    blocks = ("injection", "contrast", "slides", "official", "control")
    texts = {name: pages.render_text("leakage.sentences", name=name, **context) for name in blocks}
    return {name: " ".join(text.split()) for name, text in texts.items() if text.strip()}


def points(value: float) -> str:
    """A difference in points (hundredths) with its sign; the minus sign cannot be read as a dash."""
    shown = f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")
    return "0.0" if float(shown[1:]) == 0 else shown


def score_text(score: Json, difference: bool) -> str:
    """``0.834 (0.801 to 0.862)``, or a difference in points; why there is none."""
    show = points if difference else fixed
    if score["value"] is None:
        return f"undefined: {score['reason']}"
    if score["low"] is None:
        return f"{show(score['value'])} (no interval: {score['reason']})"
    return f"{show(score['value'])} ({show(score['low'])} to {show(score['high'])})"


def basis_text(record: Json) -> str:
    """Images, cases (benign) and seeds that a record rests on, and how many runs were left out of it."""
    score, left = record["auroc"], record["coverage"]["runs_left_out"]
    text = f"{score['images']}, {score['cases']} ({score['benign']}), {score['seeds']}"
    return text + (f"; finished runs without a counterpart left out: {left}" if left else "")
