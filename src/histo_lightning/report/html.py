"""``report.html`` of a run: what was done, on which cases, and what it shows, in one file that opens offline."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import yaml

from histo_lightning.errors import UserError
from histo_lightning.report.choices import choices_section
from histo_lightning.report.contents import contents_table, in_words
from histo_lightning.report.page import page, paragraph, picture, section
from histo_lightning.report.score_tables import meanings, recall_table, score_table
from histo_lightning.report.trust import trust_section
from histo_lightning.report.words import COVERS, PART_NAMES, fixed, level_scores, summary
from histo_lightning.runs import read_json, write_atomic

Json = Mapping[str, Any]
CITATION = (
    "F. A. Spanhol, L. S. Oliveira, C. Petitjean and L. Heutte, A Dataset for Breast Cancer Histopathological "
    "Image Classification, IEEE Transactions on Biomedical Engineering 63(7), 1455-1462, 2016, "
    "doi:10.1109/TBME.2015.2496264"
)
PICTURES = {
    "roc": "ROC curves",
    "precision_recall": "Precision-recall curves",
    "confusion": "Confusion matrices",
    "cases": "Score by case",
    "reliability": "Reliability diagram",
    "subtypes": "Recall by subtype",
    "magnifications": "Scores by magnification",
}
CLASS_MIX = (
    "Accuracy, F1, AUPRC, Brier score, log loss and MCC hold at this part's mix of classes "
    "({share:.0f} % of the images are malignant). All calls are at the threshold 0.5; a case is called by the mean "
    "probability of its images."
)


def write_report(run_folder: Path) -> Path:
    """Write ``report.html`` of a run from its tables and pictures; see ``figures.draw_plots`` for those.

    Returns:
        The file, written whole or not at all. It needs no network, script or other file.

    Raises:
        UserError: ``metrics.json`` or ``history.csv`` is missing or damaged, or the file cannot be written.
    """
    metrics = read_json(run_folder / "metrics.json")
    if "best_epoch" not in metrics:
        raise UserError(f"{run_folder / 'metrics.json'}: is missing or damaged; the run has not been scored")
    split, status = read_json(run_folder / "split.json"), read_json(run_folder / "status.json")
    config_path = run_folder / "config.yaml"
    config_text = config_path.read_text(encoding="utf-8", errors="replace") if config_path.is_file() else ""
    label = str(split.get("label") or "")
    parts = [part for part in ("test", "val") if metrics.get(part)]
    sections = [
        _header(run_folder.name, metrics, status, label),
        _protocol(metrics, split, config_text, label),
        f'<div class="pair">{"".join(_part_scores(metrics, part, label) for part in parts)}</div>',
        _pictures(run_folder / "plots", metrics),
        trust_section(run_folder, metrics, status),
        choices_section(metrics),
        _environment(metrics, status, split, config_text),
    ]
    path = run_folder / "report.html"
    text = page(f"Report: {run_folder.name}", "\n".join(sections))
    write_atomic(path, text.encode("utf-8", errors="replace"))  # a folder's name may be no text
    return path


def _header(name: str, metrics: Json, status: Json, label: str) -> str:
    state = str(status.get("state") or "not recorded")
    told = (
        ""
        if state in ("finished", "running")
        else paragraph(f"This run {state}: {status.get('error') or ''}", "label")
    )
    part = "test" if metrics.get("test") else "val"
    tiles = ""
    for level in ("case", "image"):
        for score, title in (("auroc", "AUROC"), ("balanced_accuracy", "Balanced accuracy")):
            found = level_scores(metrics, part, level).get(score) or {}
            if found.get("value") is None:
                continue
            low, high = found.get("low"), found.get("high")
            interval = "no interval" if low is None or high is None else f"{low:.2f} to {high:.2f}"
            tiles += (
                f'<div class="tile">{title}<span class="small">by {level}, {PART_NAMES[part]}</span>'
                f'<b>{found["value"]:.2f}</b><span class="small">{interval}</span></div>'
            )
    return (
        f'<header><h1>{escape(name)}</h1><span class="small">started {escape(str(status.get("started")))}</span>'
        f'{told}{_marked(label)}<p class="lead">{escape(summary(metrics, label))}</p><div class="tiles">{tiles}</div></header>'
    )


def _protocol(metrics: Json, split: Json, config_text: str, label: str) -> str:
    settings = _config(config_text).get("split") or {}
    body = _marked(label) + paragraph(in_words(split, settings))
    body += "".join(paragraph(str(note)) for note in split.get("notes") or [])
    return section("Protocol", body + contents_table(split, metrics))


def _marked(label: str) -> str:
    return paragraph(label, "label") if label else ""


def _part_scores(metrics: Json, part: str, label: str) -> str:
    levels = metrics[part]
    body = _marked(label) + score_table(levels)
    binary = {level: (levels.get(level) or {}).get("binary") for level in levels}
    if any(binary.values()):
        body += f"<h3>Recall by subtype</h3>{recall_table(levels)}"
        body += f"<h3>Benign against malignant</h3>{score_table(binary)}"
    moved = {level: level_scores(metrics, part, level).get("at_threshold") for level in levels}
    stored = next((scores for scores in moved.values() if scores), None)
    if stored:
        apparent = " (apparent: chosen on these predictions)" if stored.get("apparent") else ""
        body += f"<details><summary>At the stored threshold {fixed(stored['threshold'])}{apparent}</summary>"
        body += f"{score_table(moved)}</details>"
    units = level_scores(metrics, part, "image").get("units") or {}
    if sum(units.values()):
        share = 100 * units.get("malignant", 0) / sum(units.values())
        body += paragraph(CLASS_MIX.format(share=share), "small")
    if part == "test" or metrics.get("test") is None:
        body += paragraph(f"Nominal 95 % intervals; they cover {COVERS}.")
        body += f"<details><summary>What the scores mean</summary>{meanings()}</details>"
    return section(f"Scores on the {PART_NAMES[part]} part", body)


def _pictures(plots: Path, metrics: Json) -> str:
    parts = ["test", "val"] if metrics.get("test") else ["val"]
    drawn = "".join(
        picture(plots / f"{name}_{part}.png", f"{told}, {PART_NAMES[part]}")
        for name, told in PICTURES.items()
        for part in parts
    )
    drawn += "".join(picture(plots / f"{name}.png", f"{name} by epoch") for name in ("loss", "accuracy"))
    drawn += picture(plots / f"worst_{parts[0]}.png", f"The worst errors, {PART_NAMES[parts[0]]}")
    note = paragraph(
        "Training loss and accuracy are means over each epoch's augmented images, while the weights still moved. "
        "Epochs count from 1 here, from 0 in history.csv. The folder plots holds each picture as PNG and as SVG.",
        "small",
    )
    return section("Pictures", f'<div class="pictures">{drawn}</div>{note}')


def _environment(metrics: Json, status: Json, split: Json, config_text: str) -> str:
    facts = {
        "state": status.get("state"),
        "seconds in all": status.get("seconds"),
        "seconds of training": metrics.get("train_seconds"),
        "git commit": status.get("git_commit") or "not in a checkout",
        "hash of the split": split.get("hash"),
        **(status.get("versions") or {}),
    }
    items = "".join(
        f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items()
    )
    config = f"<details><summary>Resolved configuration</summary><pre>{escape(config_text)}</pre></details>"
    cited = f"<h3>Data set</h3><p>{escape(CITATION)}</p>"
    return section("Configuration and environment", f"{config}<dl>{items}</dl>{cited}")


def _config(text: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}
