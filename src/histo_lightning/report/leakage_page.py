"""``leakage.html`` and ``leakage.md``: the leakage study's answer, its tables, and what is missing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from histo_lightning.report import pages
from histo_lightning.report.leakage_words import NAMES, points
from histo_lightning.report.words import fixed, is_synthetic

Json = Mapping[str, Any]
ALT = "Image scores by share of siblings in the train set, split and official fold"


def write_page(found: Json, folder: Path) -> Path:
    """Write ``leakage.html``; ``leakage.png`` in the folder goes into it.

    Args:
        found: the content of ``leakage.json``.

    Raises:
        UserError: the file cannot be written.
    """
    drawn = pages.picture(folder / "leakage.png", ALT)
    return pages.write_page(folder / "leakage.html", "leakage.html", **_context(found, drawn))


def markdown_text(found: Json) -> str:
    """The whole study as Markdown."""
    return pages.render_markdown("leakage.md", **_context(found, pages.Picture("", ALT, link="leakage.png")))


def _context(found: Json, drawn: pages.Picture | None) -> dict[str, Any]:
    words = found["words"]
    headline = words.get("injection") or next(iter(words.values()), "No two arms could be compared.")
    return {
        "found": found,
        "headline": headline,
        "others": [text for text in words.values() if text != headline],
        "synthetic": is_synthetic(found, {"dataset": {"name": found["recipe"].get("dataset.name")}}),
        "pictures": [drawn] if drawn else [],
        "names": NAMES,
        "score_text": score_text,
        "basis_text": basis_text,
    }


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
