"""From a fitted network's predictions to tables, scores, pictures and pages."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_lightning.callbacks.predictions import Rows
from histo_lightning.callbacks.scored import write_scored
from histo_lightning.config.identity import as_primitives, shortened
from histo_lightning.config.schema import Config
from histo_lightning.data.datamodule import BreakHisDataModule
from histo_lightning.evaluation import Table, make_table, score_predictions, write_predictions
from histo_lightning.evaluation.remarks import remarks
from histo_lightning.report.run_page import draw_plots, draw_worst, write_report
from histo_lightning.report.words import SYNTHETIC, run_title
from histo_lightning.runs import read_json, write_json
from histo_lightning.training.baselines import mean_colour
from histo_lightning.training.decisions import choose, mark_apparent, store_choice
from histo_lightning.training.fit import Fitted

log = logging.getLogger("histo_lightning")


def labels_of(config: Config, split_label: str) -> list[str]:
    """What must be said wherever a result of this config shows."""
    drawn = SYNTHETIC if config.dataset.name == "synthetic" else ""
    return [label for label in (drawn, split_label, shortened(config)) if label]


def write_results(config: Config, folder: Path, data: BreakHisDataModule, fitted: Fitted) -> None:
    """Predictions, ``metrics.json`` and the dashboards' final scores of a fitted run."""
    split_label = str(data.split.as_dict()["label"]) if data.split else ""
    metrics: dict[str, Any] = {
        "schema": 1,
        "title": run_title(as_primitives(config), data.split.as_dict() if data.split else {}),
        **fitted.facts,
        "split": split_label,
        "data": config.dataset.name,
        "shortened": shortened(config),
    }
    tables = {part: _table(config.task, part, data, rows) for part, rows in fitted.predictions.items()}
    chosen = choose(tables["val"], config.target_sensitivity)
    log.info("operating point: %s; temperature: %s", chosen.point, chosen.temperature)
    store_choice(fitted.scored, chosen)
    scores: dict[str, Any] = {"val": None, "test": None, "train": None}
    for part, table in tables.items():
        if part != "train":
            write_predictions(folder / "predictions" / f"{part}.csv", table)
        scores[part] = score_predictions(
            table, threshold=chosen.threshold if part != "train" else None, intervals=part != "train"
        )
    mark_apparent(scores["val"])
    metrics |= chosen.as_dict(tables.get("test"))
    if config.task == "binary" and not shortened(config):
        metrics["baselines"] = {"mean_colour": mean_colour(data, tables)}
    warmup = float(config.scheduler.get("warmup_epochs") or 0)
    metrics["remarks"] = remarks(metrics | scores, epochs=config.epochs, warmup_epochs=warmup)
    for sentence in metrics["remarks"]:
        log.info("%s", sentence)
    write_json(folder / "metrics.json", metrics | scores)


def _table(task: str, part: str, data: BreakHisDataModule, rows: Rows) -> Table:
    index, logits = rows
    records = [data.parts[part].records[i] for i in index]
    return make_table(
        task,
        image=[record.image for record in records],
        path=[record.path for record in records],
        class_name=[record.class_name for record in records],
        subtype=[record.subtype for record in records],
        slide=[record.slide for record in records],
        case=[record.case for record in records],
        magnification=[record.magnification for record in records],
        part=part,
        logits=logits,
    )


def draw_run(config: Config, folder: Path, data: BreakHisDataModule) -> None:
    """Pictures, ``report.html`` and what TensorBoard shows of a scored run."""
    draw_plots(folder, config.report.formats)
    draw_worst(folder, _reader(data), config.report.formats)
    write_report(folder)
    write_board(config, folder)


def write_board(config: Config, folder: Path) -> None:
    """The scores of a run in TensorBoard, where its callback and logger are not taken out."""
    if "dashboard" in config.callbacks and "tensorboard" in config.logger:
        label = str(read_json(folder / "split.json").get("label", ""))
        write_scored(folder, "; ".join(labels_of(config, label)))


def _reader(data: BreakHisDataModule) -> Callable[[str], NDArray[np.uint8] | None]:
    """Stored pixels by the ``path`` of a record; None for a path that is not in the split."""
    data.setup()
    assert data.pixels is not None
    pixels = data.pixels
    rows: Mapping[str, int] = {
        record.path: int(row)
        for part in data.parts.values()
        for record, row in zip(part.records, part.rows, strict=True)
    }
    return lambda path: pixels.take(np.array([rows[path]]))[0] if path in rows else None
