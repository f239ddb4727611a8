"""``report.html`` of a run and of an evaluation: what was done, on which cases, and what it shows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from histo_lightning.data.breakhis.names import CLASSES, parse_name
from histo_lightning.evaluation import Table as Predictions
from histo_lightning.evaluation import influence_table, read_predictions
from histo_lightning.evaluation.levels import kish
from histo_lightning.report.figures.learning import read_history
from histo_lightning.report.pages import Picture, picture, write_page
from histo_lightning.report.plots import PICTURES, read_metrics
from histo_lightning.report.scores import group_tables, part_context, titles
from histo_lightning.report.tables import Table
from histo_lightning.report.words import (
    PART_NAMES,
    coverage_sentence,
    is_synthetic,
    labels_of,
    level_scores,
    run_title,
    score_value,
)
from histo_lightning.runs import read_json

Json = Mapping[str, Any]
FILES = (
    "metrics.json predictions/test.csv predictions/val.csv predictions.csv history.csv split.json config.yaml"
)
FILES += " checkpoints/best.ckpt checkpoints/last.ckpt train.log plots tensorboard"
CONTENTS = ("images", "slides", "cases", "effective cases (Kish)", "largest case")
NEAR = 0.02  # of the watched score: so close, validation could as well have chosen another epoch


def write_report(run_folder: Path) -> Path:
    """Write ``report.html`` of a run from its tables and pictures (see ``plots.draw_plots`` for those).

    Returns:
        The file, written whole or not at all. It needs no network, script or other file.

    Raises:
        UserError: ``metrics.json``, ``history.csv`` or the predictions are missing or damaged, or the file cannot be
            written.
    """
    metrics, history = read_metrics(run_folder), read_history(run_folder / "history.csv")
    split, status = read_json(run_folder / "split.json"), read_json(run_folder / "status.json")
    config_text, config = _read_config(run_folder / "config.yaml")
    parts = [part for part in ("test", "val") if metrics.get(part)]
    predictions = read_predictions(run_folder / "predictions" / f"{parts[0]}.csv")
    rate = history.get("images_per_second", np.array([np.nan]))
    context = {
        "name": run_folder.name,
        "title": run_title(config, split) or run_folder.name,
        "labels": labels_of(metrics, str(split.get("label") or ""), config),
        "synthetic": is_synthetic(metrics, config),
        "split": split,
        "status": status,
        "config": config,
        "config_text": config_text,
        "contents": contents_table(split, metrics),
        "parts": {part: part_context(metrics[part]) for part in parts},
        "epoch": _epoch_facts(metrics),
        "images_per_second": float(np.nanmedian(rate)) if np.isfinite(rate).any() else None,
        "influence": _influence(predictions, metrics, parts[0]),
    }
    return _write(run_folder, "run.html", metrics, parts, predictions, context)


def write_evaluation(folder: Path, metrics: Json, table: Predictions) -> Path:
    """Write ``report.html`` of an evaluation; raise UserError where it cannot be written."""
    context = {
        "evaluation": metrics,
        "labels": labels_of(metrics, str(metrics["label"])),
        "scores": part_context(metrics["scores"]),
    }
    return _write(folder, "evaluation.html", {"test": metrics["scores"]}, ["test"], table, context)


def _write(
    folder: Path, template: str, metrics: Json, parts: Sequence[str], table: Predictions, context: Json
) -> Path:
    return write_page(
        folder / "report.html",
        template,
        metrics=metrics,
        part=parts[0],
        groups=group_tables(table),
        pictures=_pictures(folder / "plots", parts),
        coverage=coverage_sentence(score_value(metrics, parts[0], "image", "auroc")),
        meanings=titles().values(),
        files={name: "" for name in FILES.split() if (folder / name).exists()},
        **context,
    )


def _read_config(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of ``config.yaml`` and its content, empty where it is missing or damaged."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        content = None
    return text, content if isinstance(content, dict) else {}


def _pictures(plots: Path, parts: Sequence[str]) -> dict[str, list[Picture]]:
    """The pictures that are there, by name: one of the run, of an evaluation, or of each part."""
    drawn: dict[str, list[Picture]] = {}
    for name, alt in PICTURES.items():
        files = {name: alt} | {f"{name}_{part}": f"{alt}, {PART_NAMES[part]} set" for part in parts}
        drawn[name] = [one for file, text in files.items() if (one := picture(plots / f"{file}.png", text))]
    return drawn


def contents_of(images: Sequence[str]) -> dict[str, list[str]] | None:
    """By class what ``CONTENTS`` names, as text: effective cases after Kish 1965, the largest case with its share.

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
        counts = [len(own), len({name.slide for name in own}), len(by_case)]
        contents[class_name] = [*map(str, counts), f"{effective:.1f}", share]
    return contents


def contents_table(split: Json, metrics: Json) -> Table:
    """Images, slides and cases of each part by class, and how unequal the cases are."""
    parts = [part for part in PART_NAMES if part in (split.get("parts") or {})]
    by_part = {part: contents_of(split["parts"][part]) for part in parts}
    rows = [["images", *(str(len(split["parts"][part])) for part in parts)]]
    for class_name in CLASSES:
        columns = []
        for part in parts:
            count = (level_scores(metrics, part, "image").get("units") or {}).get(class_name, "unknown")
            columns.append((by_part[part] or {}).get(class_name, [str(count), *["unknown"] * 4]))
        rows += [[f"{class_name}: {title}", *cells] for title, *cells in zip(CONTENTS, *columns, strict=True)]
    return Table(["", *(PART_NAMES[part] for part in parts)], rows)


def _epoch_facts(metrics: Json) -> dict[str, Any] | None:
    """The watched score at the scored epoch, at the end and in the median, and how many epochs come near."""
    monitored = metrics.get("monitored") or []
    watched = np.array([value for value in monitored if value is not None], np.float64)
    scored = (monitored[int(metrics["best_epoch"]) :] or [None])[0]
    if scored is None:
        return None
    near = int(np.sum(np.abs(watched - scored) <= NEAR))
    return {
        "scored": scored,
        "last": watched[-1],
        "median": float(np.median(watched)),
        "near": near,
        "of": len(watched),
    }


def _influence(table: Predictions, metrics: Json, part: str) -> dict[str, Any] | None:
    """How much the AUROC by image rests on single cases; None where it or the cases are unknown."""
    known = score_value(metrics, part, "image", "auroc") is not None
    return influence_table(table) if known and level_scores(metrics, part, "case").get("n") else None
