"""``leakage.html`` and ``leakage.md``: the leakage study's answer, its tables, and what is missing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from histo_lightning.report import pages
from histo_lightning.report.leakage_words import NAMES, points
from histo_lightning.report.tables import Table
from histo_lightning.report.words import SHUFFLED, fixed, is_synthetic

Json = Mapping[str, Any]
ALT = "Image scores by share of siblings in the train set, split and official fold"
BASIS = "images, cases (benign), seeds"


def write_page(found: Json, folder: Path) -> Path:
    """Write ``leakage.html``; ``leakage.png`` in the folder goes into it.

    Raises:
        UserError: the file cannot be written.
    """
    return pages.write_page(
        folder / "leakage.html", "leakage.html", **_context(found, pages.picture(folder / "leakage.png", ALT))
    )


def markdown_text(found: Json) -> str:
    """The whole study as Markdown."""
    return pages.render_markdown("leakage.md", **_context(found, pages.Picture("", ALT, link="leakage.png")))


def _context(found: Json, drawn: pages.Picture | None) -> dict[str, Any]:
    words = found["words"]
    headline = words.get("injection") or next(iter(words.values()), "No two arms could be compared.")
    dataset = {"dataset": {"name": found["recipe"].get("dataset.name")}}
    return {
        "found": found,
        "headline": headline,
        "others": [text for text in words.values() if text != headline],
        "synthetic": is_synthetic(found, dataset),
        "pictures": [drawn] if drawn else [],
        "arms_table": arms_table,
        "pairs_table": pairs_table,
        "design": design_table(found),
    }


def _score(score: Json, *, difference: bool) -> str:
    """``0.834 (0.801 to 0.862)``, or a difference in points; why there is none."""
    show = points if difference else fixed
    if score["value"] is None:
        return f"undefined: {score['reason']}"
    if score["low"] is None:
        return f"{show(score['value'])} (no interval: {score['reason']})"
    return f"{show(score['value'])} ({show(score['low'])} to {show(score['high'])})"


def _basis(record: Json) -> str:
    score, left = record["auroc"], record["coverage"]["runs_left_out"]
    text = f"{score['images']}, {score['cases']} ({score['benign']}), {score['seeds']}"
    return text + (f"; finished runs without a counterpart left out: {left}" if left else "")


def arms_table(block: Json) -> Table:
    """Scores of each arm."""
    rows = []
    for record in block["arms"]:
        difference = record["among"] == "touched minus untouched"
        scores = [_score(record[name], difference=difference) for name in NAMES]
        rows.append([str(record["arm"]), str(record["among"]), *scores, _basis(record)])
    return Table(["arm", "on", *(f"image {name}" for name in NAMES.values()), BASIS], rows, align="llrrrr")


def pairs_table(block: Json) -> Table:
    """Differences in points, with Holm's p for AUROC."""
    rows = []
    for record in block["pairs"]:
        scores = [_score(record[name], difference=True) for name in NAMES]
        p = record["auroc"].get("p_holm")
        name = f"{record['arm']} minus {record['reference']}"
        rows.append([name, str(record["among"]), *scores, "" if p is None else f"{p:.3f}", _basis(record)])
    heads = [f"image {name}, points" for name in NAMES.values()]
    return Table(["difference", "on", *heads, "p (AUROC, Holm)", BASIS], rows, align="llrrrrr")


def design_table(found: Json) -> Table:
    """What each arm trained and tested on, means over its runs."""
    heads = ["arm", "runs", "label"]
    heads += ["train images (benign / malignant)", "train cases (benign / malignant)", "test images"]
    rows = []
    for arm in found["design"]:
        name = f"{arm['arm']}{f', {SHUFFLED}' if arm['shuffled'] else ''}"
        sizes = [
            f"{arm[f'benign {what}']:.1f} / {arm[f'malignant {what}']:.1f}" for what in ("images", "cases")
        ]
        rows.append([name, str(arm["runs"]), arm["label"] or "none", *sizes, f"{arm['test images']:.1f}"])
    return Table(heads, rows, align="lrlrrr")
