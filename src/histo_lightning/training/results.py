"""From a fitted network's predictions to tables, scores, chosen thresholds, pictures and pages."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_lightning.callbacks.scored import write_scored
from histo_lightning.classifier.checkpoint import read_checkpoint, save_atomic, weights_only
from histo_lightning.classifier.hardware import resolve
from histo_lightning.config.identity import shortened
from histo_lightning.config.schema import Config
from histo_lightning.data.datamodule import BreakHisDataModule
from histo_lightning.errors import UserError
from histo_lightning.evaluation import Table, calibration, score_predictions, table_of, write_predictions
from histo_lightning.evaluation.remarks import remarks
from histo_lightning.report.run_page import draw_plots, write_report
from histo_lightning.report.words import labels_of, run_title
from histo_lightning.runs import read_json, write_json
from histo_lightning.training.fit import Fitted

CALIBRATION = ("log_loss", "ece", "calibration_slope", "calibration_intercept")
SCORES = ("auroc", "balanced_accuracy")
log = logging.getLogger("histo_lightning")


def write_results(config: Config, folder: Path, data: BreakHisDataModule, fitted: Fitted) -> None:
    """Predictions, ``metrics.json`` and the dashboards' final scores of a fitted run."""
    assert data.split is not None
    split = data.split.as_dict()
    metrics: dict[str, Any] = {
        "schema": 1,
        "title": run_title(asdict(config), split),
        **fitted.facts,
        "split": str(split["label"]),
        "data": config.dataset.name,
        "shortened": shortened(config),
    }
    tables = {}
    for part, (index, logits) in fitted.predictions.items():
        tables[part] = table_of(config.task, [data.parts[part].records[i] for i in index], part, logits)
    choice = choose(tables["val"], config.target_sensitivity)
    log.info("operating point: %(operating_point)s; temperature: %(temperature)s", choice)
    store_choice(fitted.scored, choice, config.keep if config.scored_weights == "last" else "all")
    scores: dict[str, Any] = {"val": None, "test": None, "train": None}
    for part, table in tables.items():
        held_out = part != "train"
        if held_out:
            write_predictions(folder / "predictions" / f"{part}.csv", table)
        threshold = choice["threshold"] if held_out else None
        scores[part] = score_predictions(table, threshold=threshold, intervals=held_out)
    mark_apparent(scores["val"])
    metrics |= {name: choice[name] for name in ("operating_point", "temperature")}
    if "test" in tables:
        shown = calibrations(tables["test"], choice["temperature"]["temperature"])
        metrics["temperature"] = choice["temperature"] | {"test": shown}
    if config.task == "binary" and not metrics["shortened"]:
        metrics["baselines"] = {"mean_colour": mean_colour(data, tables)}
    warmup = float(config.scheduler.get("warmup_epochs") or 0)
    metrics["remarks"] = remarks(metrics | scores, epochs=config.epochs, warmup_epochs=warmup)
    for sentence in metrics["remarks"]:
        log.info("%s", sentence)
    write_json(folder / "metrics.json", metrics | scores)


def choose(validation: Table, sensitivity: float) -> dict[str, Any]:
    """Fit ``operating_point`` and ``temperature`` on validation predictions; ``threshold`` is None without a point."""
    try:
        point = calibration.operating_point(validation, sensitivity)
    except UserError as error:
        point = {"threshold": None, "reason": str(error)}
    about = {"operating_point": point, "temperature": calibration.fit_temperature(validation)}
    return {"threshold": point.get("threshold"), **about}


def calibrations(test: Table, temperature: float) -> dict[str, dict[str, float | None]]:
    """Scores of the test images ``before`` and ``after`` tempering: shown, never used."""
    shown = {}
    for name, table in (("before", test), ("after", calibration.apply_temperature(test, temperature))):
        image = score_predictions(table, intervals=False)["image"]
        scores = image.get("binary") or image
        shown[name] = {score: scores[score]["value"] for score in CALIBRATION if score in scores}
    return shown


def mean_colour(data: BreakHisDataModule, tables: Mapping[str, Table]) -> dict[str, Any]:
    """What a run must beat: a logistic regression on mean colours, fitted on train, scored on test (else on validation).

    ``{"part", "image": {"auroc", ...}, "case"}``, or ``{"part", "reason"}`` where colours separate the classes.
    """
    assert data.pixels is not None
    pixels, part = data.pixels, "test" if "test" in tables else "val"

    def colours(name: str) -> NDArray[np.float64]:
        rows, (height, width) = data.parts[name].rows, pixels.shape
        pieces = [pixels.take(some) for some in np.split(rows, range(32, len(rows), 32))]
        columns = [each.reshape(len(each), height, -1).sum(axis=1, dtype=np.uint32) for each in pieces]
        means: NDArray[np.float64] = np.concatenate(columns).reshape(len(rows), width, 3).mean(axis=1)
        return means / height

    def design(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack([np.ones(len(values)), (values - centre) / spread])

    train = colours("train")
    truth = np.array([record.class_name == "malignant" for record in data.parts["train"].records])
    centre, spread = train.mean(axis=0), np.maximum(train.std(axis=0), 1e-6)
    weights = calibration.fit(truth, np.zeros(len(truth)), design(train))
    if weights is None:
        return {"part": part, "reason": "the classes of the train set cannot be fitted by their mean colours"}
    p, table = calibration.sigmoid(design(colours(part)) @ weights), tables[part]
    logits = np.zeros_like(table.logits)
    logits[:, 1] = np.log(np.clip(p, 1e-12, 1 - 1e-12) / np.clip(1 - p, 1e-12, 1))
    guessed = replace(table, logits=logits, p_malignant=p, predicted=(p >= 0.5).astype(table.predicted.dtype))
    scores = score_predictions(guessed, intervals=False)
    return {"part": part} | {
        level: {name: (scores[level].get(name) or {}).get("value") for name in SCORES}
        for level in ("image", "case")
    }


def store_choice(path: Path, choice: dict[str, Any], keep: str | None = "all") -> None:
    """Write a choice into a checkpoint's ``histo_lightning`` dict, without an operating point ``threshold`` 0.5; ``keep`` as the key."""
    checkpoint = read_checkpoint(path)
    if keep == "weights":
        checkpoint = weights_only(checkpoint)
    threshold = 0.5 if choice["threshold"] is None else choice["threshold"]
    checkpoint["histo_lightning"] |= choice | {"threshold": threshold}
    save_atomic(checkpoint, path)


def mark_apparent(scores: dict[str, Any]) -> None:
    """Mark scores at the threshold as apparent: it was chosen on these very predictions."""
    for level in scores.values():
        for entry in (level, level.get("binary") or {}):
            if entry.get("at_threshold"):
                entry["at_threshold"]["apparent"] = True


def write_board(config: Config, folder: Path) -> None:
    """The scores of a run in TensorBoard, where its callback and logger are not taken out."""
    if "dashboard" in config.callbacks and "tensorboard" in config.logger:
        metrics = read_json(folder / "metrics.json")
        write_scored(folder, "; ".join(labels_of(metrics, str(metrics.get("split") or ""))))


def draw_run(config: Config, folder: Path, data: BreakHisDataModule) -> None:
    """Pictures, ``report.html`` and what TensorBoard shows of a scored run."""
    data.setup()
    assert data.pixels is not None
    pixels, rows, fork = data.pixels, dict[str, int](), resolve(config.trainer).threads > 1
    for part in data.parts.values():
        rows |= zip((record.path for record in part.records), part.rows.tolist(), strict=True)
    read = lambda path: pixels.take(np.array([rows[path]]))[0] if path in rows else None  # noqa: E731
    draw_plots(folder, config.report.formats, read, fork)
    write_report(folder)
    write_board(config, folder)
