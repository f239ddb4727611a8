"""The report and pictures of an evaluation: a checkpoint's scores on one data set."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from histo_lightning.evaluation import Table
from histo_lightning.report.figures import part_figures
from histo_lightning.report.html import PICTURES
from histo_lightning.report.page import page, paragraph, picture, section
from histo_lightning.report.score_tables import meanings, recall_table, score_table
from histo_lightning.report.style import save_picture
from histo_lightning.report.words import COVERS, fixed, level_scores, summary
from histo_lightning.report.worst_picture import Reader, worst_figure
from histo_lightning.runs import write_atomic

Json = Mapping[str, Any]


def draw_evaluation(
    folder: Path,
    table: Table,
    scores: Json,
    threshold: float | None,
    temperature: Json | None,
    read_image: Reader,
) -> None:
    """``plots/*``: the pictures of a run's part, and the worst errors, PNG and SVG of each."""
    for name, figure in part_figures(table, scores, threshold, temperature):
        save_picture(figure, folder / "plots" / name)
    save_picture(worst_figure(table, read_image), folder / "plots" / "worst")


def write_evaluation(folder: Path, metrics: Json, table: Table) -> Path:
    """Write ``report.html``, one file that opens offline; raise UserError where it cannot be written."""
    scores, label = metrics["scores"], str(metrics["label"])
    told = paragraph(label, "label") if label else ""
    words = summary({"test": scores}, label)
    if label:
        words += " Some of these cases were used to train or choose the network, so the scores do not hold for new cases."
    title = f"Evaluation of {metrics['run']} on {metrics['dataset']}"
    header = (
        f'<header><h1>{escape(title)}</h1>{told}<p class="lead">{escape(words)}</p>'
        f'<p class="small">{escape(str(metrics["source"]))}; part {escape(str(metrics["part"]))}; '
        f"{len(table)} images scored; split of the checkpoint {escape(str(metrics['split_hash'])[:12])}</p></header>"
    )
    body = told + score_table(scores)
    if level_scores({"test": scores}, "test", "image").get("recall"):
        body += f"<h3>Recall by subtype</h3>{recall_table(scores)}"
    moved = {level: level_scores({"test": scores}, "test", level).get("at_threshold") for level in scores}
    stored = next((found for found in moved.values() if found), None)
    if stored:
        body += f"<h3>At the checkpoint's threshold {fixed(stored['threshold'])}</h3>{score_table(moved)}"
    body += paragraph(f"Nominal 95 % intervals; they cover {COVERS}.")
    body += f"<details><summary>What the scores mean</summary>{meanings()}</details>"
    plots = "".join(
        picture(folder / "plots" / f"{name}.png", alt)
        for name, alt in {**PICTURES, "worst": "The worst errors"}.items()
    )
    sections = [header, section("Scores", body), section("Pictures", f'<div class="pictures">{plots}</div>')]
    path = folder / "report.html"
    write_atomic(path, page(title, "\n".join(sections)).encode("utf-8", errors="replace"))
    return path
