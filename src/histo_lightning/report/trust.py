"""What lets a reader trust a run, as HTML: baselines, gaps between parts, the chosen epoch, single cases, test reads."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from histo_lightning.evaluation import coverage_of, influence_table, read_predictions
from histo_lightning.report.figures import read_history
from histo_lightning.report.page import paragraph, section
from histo_lightning.report.score_tables import parts_table, row, table
from histo_lightning.report.words import COVERS, PART_NAMES, fixed, level_scores

Json = Mapping[str, Any]
NEAR = 0.02  # of the watched score: so close, validation could as well have chosen another epoch
BASELINE_SCORES = (
    ("image", "auroc"),
    ("image", "balanced_accuracy"),
    ("case", "auroc"),
    ("case", "balanced_accuracy"),
)


def trust_section(run_folder: Path, metrics: Json, status: Json) -> str:
    """The section; raises UserError where ``history.csv`` or the predictions are missing or damaged."""
    body = parts_table(metrics) + "<h3>Chosen epoch</h3>" + paragraph(_epoch(run_folder, metrics))
    body += "<h3>Against no network</h3>" + _baselines(metrics)
    body += "<h3>Weight of single cases</h3>" + _influence(run_folder, metrics)
    body += "<h3>What the intervals cover</h3>" + paragraph(
        f"They cover {COVERS}. {coverage_of(_image_auroc(metrics)).sentence} Another training run may differ by more."
    )
    read = int(status.get("test_read") or 0)
    times = "not read" if read == 0 else "read once" if read == 1 else f"read {read} times"
    body += "<h3>Reads of the test part</h3>"
    body += paragraph(f"The test part was {times} in this run.", "label" if read > 1 else "")
    return section("Can it be trusted: training beside validation and test", body)


def _image_auroc(metrics: Json) -> float | None:
    part = "test" if metrics.get("test") else "val"
    value: float | None = level_scores(metrics, part, "image").get("auroc", {}).get("value")
    return value


def _epoch(run_folder: Path, metrics: Json) -> str:
    history = read_history(run_folder / "history.csv")
    best, monitor = int(metrics["best_epoch"]), str(metrics.get("monitor") or "not recorded")
    said = [f"Epoch {best + 1} of {metrics.get('epochs')} was scored; {monitor} was watched."]
    watched = [value for value in metrics.get("monitored") or [] if value is not None]
    scored = (metrics.get("monitored") or [])[best : best + 1]
    if watched and scored and scored[0] is not None:
        near = int(np.sum(np.abs(np.array(watched) - scored[0]) <= NEAR))
        said.append(
            f"It was {fixed(scored[0])} there, {fixed(watched[-1])} at the end and {fixed(float(np.median(watched)))} "
            f"as median over the epochs; {near} of {len(watched)} epochs lie within {NEAR} of the scored one."
        )
    rate = history.get("images_per_second", np.array([np.nan]))
    if np.isfinite(rate).any():
        said.append(
            f"Training took {metrics.get('train_seconds')} s, {np.nanmedian(rate):.0f} images a second."
        )
    return " ".join(said)


def _baselines(metrics: Json) -> str:
    """The network beside "malignant" every time and a logistic regression on mean colour."""
    part = "test" if metrics.get("test") else "val"
    colour = (metrics.get("baselines") or {}).get("mean_colour") or {}
    network, always, by_colour = [], [], []
    for level, name in BASELINE_SCORES:
        scores = level_scores(metrics, part, level)
        network.append(_told((scores.get(name) or {}).get("value")))
        # One answer for all ranks nothing: every pair is a tie, which counts half.
        known = (scores.get(name) or {}).get("value") is not None
        fixed_answer = (scores.get("always_malignant") or {}).get(name)
        always.append(_told(0.5 if known and name == "auroc" else fixed_answer))
        by_colour.append(_told((colour.get(level) or {}).get(name)) if colour else "not computed")
    head = [
        f"{PART_NAMES[part]} part",
        *(
            f'{"AUROC" if name == "auroc" else "Balanced accuracy"}<br><span class="small">by {level}</span>'
            for level, name in BASELINE_SCORES
        ),
    ]
    rows = [
        row("this network", network),
        row("always &ldquo;malignant&rdquo;", always, "baseline"),
        row("mean colour of the image", by_colour, "baseline"),
    ]
    below = "Mean colour: a logistic regression on mean red, green and blue, fitted on the training part."
    if not colour:
        below = "Mean colour was not computed in this run."
    elif colour.get("reason"):
        below += f" None here: {colour['reason']}."
    elif str(colour.get("part") or part) != part:
        below += f" Scored on the {PART_NAMES.get(str(colour['part']), str(colour['part']))} part."
    return table(head, rows, paragraph(below, "small"))


def _told(value: Any) -> str:
    return "\N{EN DASH}" if value is None else fixed(float(value))


def _influence(run_folder: Path, metrics: Json) -> str:
    """How much the AUROC by image rests on single cases of the test part (validation where test was left unread)."""
    part = "test" if metrics.get("test") else "val"
    if level_scores(metrics, part, "image").get("auroc", {}).get("value") is None:
        return paragraph(f"Not computed: the AUROC of the {PART_NAMES[part]} part is undefined.")
    if not level_scores(metrics, part, "case").get("n"):
        return paragraph("Not computed: cases are unknown.")
    found = influence_table(read_predictions(run_folder / "predictions" / f"{part}.csv"))
    rows = [row("all cases", [fixed(found["value"]), ""])]
    for case, entry in found["without"].items():
        cells = [fixed(entry["value"]), _signed(entry["change"])] if entry else ["not in this part", ""]
        rows.append(row(f"without case {escape(case)}", cells))
    largest = found["largest"]
    if largest is not None:
        cells = [_told(largest.get("value")), _signed(largest["change"])]
        rows.append(row(f"without case {escape(largest['case'])} (largest change)", cells))
    return table([f"AUROC by image, {PART_NAMES[part]}", "value", "change"], rows)


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + fixed(value)
