"""``report.html`` of a run and of an evaluation: what was done, on which cases, and what it shows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from histo_lightning.data.names import CLASSES, parse_name
from histo_lightning.evaluation import Table as Predictions
from histo_lightning.evaluation import influence_table, read_predictions
from histo_lightning.evaluation.levels import kish
from histo_lightning.report.figures.learning import read_history
from histo_lightning.report.pages import Picture, picture, write_page
from histo_lightning.report.plots import read_metrics
from histo_lightning.report.scores import SCORES, part_context, parts_table, score_cell
from histo_lightning.report.tables import Notes, Table, table_with_notes
from histo_lightning.report.words import (
    NOTHING,
    PART_NAMES,
    coverage_sentence,
    fixed,
    interval_text,
    is_synthetic,
    labels_of,
    level_scores,
    option_name,
    run_title,
    score_value,
    signed,
)
from histo_lightning.runs import read_json

Json = Mapping[str, Any]
HEADLINE = [(level, score) for level in ("case", "image") for score in ("auroc", "balanced_accuracy")]
PICTURES = {
    "loss": "Loss by epoch",
    "accuracy": "Accuracy by epoch",
    "roc": "ROC curves",
    "cases": "Score by case",
    "confusion": "Confusion matrices",
    "precision_recall": "Precision-recall curves",
    "reliability": "Reliability diagram",
    "subtypes": "Recall by subtype",
    "magnifications": "Scores by magnification",
    "worst": "The worst errors",
}
FILES = {
    "metrics.json": "every score with its interval",
    "predictions/test.csv": "logits of each test image",
    "predictions/val.csv": "logits of each validation image",
    "predictions.csv": "logits of each image",
    "history.csv": "a row an epoch; epochs count from 0 there",
    "checkpoints/best.ckpt": "the network of the best epoch",
    "checkpoints/last.ckpt": "the network of the last epoch",
    "split.json": "which image is in which set",
    "config.yaml": "every setting",
    "train.log": "what was logged",
    "plots": "every picture as a file",
    "tensorboard": "a folder for TensorBoard",
}
NEAR = 0.02  # of the watched score: so close, validation could as well have chosen another epoch
FAR = 0.1  # of AUROC between two parts, from which a reader is told


def write_report(run_folder: Path) -> Path:
    """Write ``report.html`` of a run from its tables and pictures (see ``plots.draw_plots`` for those).

    Returns:
        The file, written whole or not at all. It needs no network, script or other file.

    Raises:
        UserError: ``metrics.json``, ``history.csv`` or the predictions are missing or damaged, or the file cannot be
            written.
    """
    metrics = read_metrics(run_folder)
    history = read_history(run_folder / "history.csv")
    split, status = read_json(run_folder / "split.json"), read_json(run_folder / "status.json")
    config_text, config = _config(run_folder / "config.yaml")
    part = "test" if metrics.get("test") else "val"
    parts = [name for name in ("test", "val") if metrics.get(name)]
    rate = history.get("images_per_second", np.array([np.nan]))
    return write_page(
        run_folder / "report.html",
        "run.html",
        name=run_folder.name,
        title=run_title(config, split) or run_folder.name,
        labels=labels_of(metrics, str(split.get("label") or ""), config),
        synthetic=is_synthetic(metrics, config),
        metrics=metrics,
        split=split,
        status=status,
        config=config,
        config_text=config_text,
        settings=_settings(config, metrics),
        part=part,
        tiles=_tiles(metrics, part),
        judgements=_judgements(metrics, part),
        parts={name: part_context(metrics[name]) for name in parts},
        pictures=_pictures(run_folder / "plots", parts),
        contents=_contents_table(split, metrics),
        parts_table=parts_table(metrics),
        epoch=_epoch_facts(metrics),
        images_per_second=float(np.nanmedian(rate)) if np.isfinite(rate).any() else None,
        baselines=_baseline_table(metrics, part),
        influence=_influence_table(run_folder, metrics, part),
        threshold_table=_threshold_table(metrics, part),
        coverage=coverage_sentence(score_value(metrics, part, "image", "auroc")),
        meanings=SCORES.values(),
        files=_files(run_folder),
    )


def write_evaluation(folder: Path, metrics: Json, table: Predictions) -> Path:
    """Write ``report.html`` of an evaluation; raise UserError where it cannot be written."""
    scored = {"test": metrics["scores"]}
    return write_page(
        folder / "report.html",
        "evaluation.html",
        metrics=metrics,
        scored=scored,
        labels=labels_of(metrics, str(metrics["label"])),
        images=len(table),
        tiles=_tiles(scored, "test"),
        scores=part_context(metrics["scores"]),
        pictures=_pictures(folder / "plots", [""]),
        coverage=coverage_sentence(score_value(scored, "test", "image", "auroc")),
        meanings=SCORES.values(),
        files=_files(folder),
    )


def _config(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of ``config.yaml`` and its content, empty where it is missing or damaged."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        content = None
    return text, content if isinstance(content, dict) else {}


def _settings(config: Json, metrics: Json) -> dict[str, str]:
    """What a reader asks for first, in the words of the config."""
    optimizer, scheduler, augment = (config.get(name) or {} for name in ("optimizer", "scheduler", "augment"))
    facts = {
        "epochs": f"{metrics.get('epochs')}, scored: {int(metrics['best_epoch']) + 1}",
        "learning rate": optimizer.get("lr"),
        "schedule": option_name(scheduler),
        "batch": config.get("batch_size"),
        "image size": config.get("image_size"),
        "augmentation": option_name(augment),
        "data": (config.get("dataset") or {}).get("name"),
        "seed": config.get("seed"),
    }
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def _tiles(metrics: Json, part: str) -> list[dict[str, str]]:
    tiles = []
    for level, name in HEADLINE:
        score = level_scores(metrics, part, level).get(name) or {}
        if score.get("value") is not None:
            value, _, interval = interval_text(score, 2).partition(" (")
            about = {"title": SCORES[name][0], "where": f"by {level}, {PART_NAMES[part]} set"}
            tiles.append(about | {"value": value, "interval": interval.rstrip(")") or "no interval"})
    return tiles


def _judgements(metrics: Json, part: str) -> list[str]:
    """Sentences on what a reader should not pass over."""
    value = {name: score_value(metrics, name, "image", "auroc") for name in ("train", "val", "test")}
    told = []
    if value["val"] is not None and value["val"] < 0.5:
        told.append(f"Validation is below chance: AUROC {value['val']:.2f} by image, where guessing has 0.50.")
    if value["train"] is not None and value[part] is not None and value["train"] - value[part] > FAR:
        told.append(
            f"Train and {PART_NAMES[part]} set are far apart: AUROC {value['train']:.2f} against {value[part]:.2f} by "
            "image. The network remembers its training images (overfitting)."
        )
    if part == "test" and value["val"] is not None and value["test"] is not None:
        if abs(value["test"] - value["val"]) > FAR:
            told.append(
                f"Validation and test set differ by {abs(value['test'] - value['val']):.2f} of AUROC: with so few cases "
                "a single set says little, so look at all folds."
            )
    counts = level_scores(metrics, part, "image").get("confusion")
    if counts and not (counts[0][0] + counts[1][0] and counts[0][1] + counts[1][1]):
        told.append("It calls every image the same at the threshold 0.5.")
    return told


def _pictures(plots: Path, parts: Sequence[str]) -> dict[str, list[Picture]]:
    """Those that are there by name, a picture a part."""
    drawn: dict[str, list[Picture]] = {}
    for name, alt in PICTURES.items():
        names = {f"{name}_{part}" if part else name: f"{alt}, {PART_NAMES[part]} set" if part else alt for part in parts}
        files = {name: alt} if name in ("loss", "accuracy") else names
        drawn[name] = [one for file, text in files.items() if (one := picture(plots / f"{file}.png", text))]
    return drawn


def _files(folder: Path) -> dict[str, str]:
    return {name: what for name, what in FILES.items() if (folder / name).exists()}


def contents_of(images: Sequence[str]) -> dict[str, list[str]] | None:
    """By class: images, slides, cases, effective cases (Kish 1965) and the largest case with its share of the images.

    None where a name is outside the grammar, so that cases are unknown.
    """
    names = [parse_name(image) for image in images]
    if None in names:
        return None
    contents = {}
    for class_name in CLASSES:
        own = [name for name in names if name is not None and name.class_name == class_name]
        by_case = Counter(name.case for name in own)
        # Ties by name, so that the same split always reads the same.
        largest = min(by_case, key=lambda case: (-by_case[case], case), default="")
        effective = kish(np.array(list(by_case.values()), dtype=np.int64))
        share = f"{100 * by_case[largest] / len(own):.0f} % ({largest})" if own else "none"
        slides = str(len({name.slide for name in own}))
        contents[class_name] = [str(len(own)), slides, str(len(by_case)), f"{effective:.1f}", share]
    return contents


def _contents_table(split: Json, metrics: Json) -> Table:
    """Images, slides and cases of each part by class, and how unequal the cases are."""
    parts = [part for part in PART_NAMES if part in (split.get("parts") or {})]
    by_part = {part: contents_of(split["parts"][part]) for part in parts}
    rows = [["images", *(str(len(split["parts"][part])) for part in parts)]]
    for class_name in CLASSES:
        columns = []
        for part in parts:
            count = (level_scores(metrics, part, "image").get("units") or {}).get(class_name)
            unknown = ["unknown" if count is None else str(count), *["unknown"] * 4]
            columns.append((by_part[part] or {}).get(class_name, unknown))
        titles = ("images", "slides", "cases", "effective cases (Kish)", "largest case")
        rows += [[f"{class_name}: {title}", *cells] for title, *cells in zip(titles, *columns, strict=True)]
    return Table(["", *(PART_NAMES[part] for part in parts)], rows)


def _epoch_facts(metrics: Json) -> dict[str, Any] | None:
    """The watched score at the scored epoch, at the end and in the median, and how many epochs come near."""
    monitored = metrics.get("monitored") or []
    watched = np.array([value for value in monitored if value is not None], np.float64)
    scored = (monitored[int(metrics["best_epoch"]) :] or [None])[0]
    if scored is None:
        return None
    near = int(np.sum(np.abs(watched - scored) <= NEAR))
    median = float(np.median(watched))
    return {"scored": scored, "last": watched[-1], "median": median, "near": near, "of": len(watched), "within": NEAR}


def _baseline_table(metrics: Json, part: str) -> Table:
    """The network beside "malignant" every time and a logistic regression on mean colour."""
    colour = (metrics.get("baselines") or {}).get("mean_colour") or {}
    head, network, always, by_colour = [], [], [], []
    for level, name in reversed(HEADLINE):
        value = score_value(metrics, part, level, name)
        answer = (level_scores(metrics, part, level).get("always_malignant") or {}).get(name)
        # One answer for all ranks nothing: every pair is a tie, which counts half.
        answer = 0.5 if name == "auroc" and value is not None else answer
        head.append(f"{SCORES[name][0]} by {level}")
        network.append(fixed(value))
        always.append(fixed(answer))
        by_colour.append(fixed((colour.get(level) or {}).get(name)) if colour else "not computed")
    rows = [["this network", *network], ['always "malignant"', *always], ["mean colour of the image", *by_colour]]
    return Table([f"{PART_NAMES[part]} set", *head], rows)


def _influence_table(run_folder: Path, metrics: Json, part: str) -> Table | str:
    """How much the AUROC by image rests on single cases, or why that is not known."""
    if score_value(metrics, part, "image", "auroc") is None:
        return f"Not computed: the AUROC of the {PART_NAMES[part]} set is undefined."
    if not level_scores(metrics, part, "case").get("n"):
        return "Not computed: cases are unknown."
    influence = influence_table(read_predictions(run_folder / "predictions" / f"{part}.csv"))
    rows = [["all cases", fixed(influence["value"]), ""]]
    for case, entry in influence["without"].items():
        cells = [fixed(entry["value"]), signed(entry["change"])] if entry else ["not in this set", ""]
        rows.append([f"without case {case}", *cells])
    if largest := influence["largest"]:
        name = f"without case {largest['case']} (largest change)"
        rows.append([name, fixed(largest.get("value")), signed(largest["change"])])
    return Table([f"AUROC by image, {PART_NAMES[part]} set", "value", "change"], rows)


def _threshold_table(metrics: Json, part: str) -> Table | None:
    """Decisions at 0.5 beside those at the stored threshold."""
    threshold = (metrics.get("operating_point") or {}).get("threshold")
    notes, rows = Notes(), []
    for level in ("image", "case"):
        plain = level_scores(metrics, part, level)
        moved = plain.get("at_threshold")
        for name in ("sensitivity", "specificity", "balanced_accuracy") if moved else ():
            cells = [score_cell(plain.get(name), notes), score_cell(moved.get(name), notes)]
            rows.append([f"{SCORES[name][0]} by {level}", *cells])
    where = f"{PART_NAMES[part]} set" + ("" if part == "test" else ", apparent")
    head = [where, "at 0.5", f"at {NOTHING if threshold is None else fixed(threshold)}"]
    return table_with_notes(head, rows, notes) if rows else None
