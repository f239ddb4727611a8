"""``evaluate``: score a checkpoint on a data set, never silently on cases that it was trained on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from histo_lightning.classifier.hardware import device_of
from histo_lightning.config.schema import EvaluateConfig
from histo_lightning.data.breakhis.names import CLASSES, SUBTYPES
from histo_lightning.data.breakhis.records import Record, select_magnification, without_twins
from histo_lightning.data.pixels.cache import Pixels, default_cache_dir, load_pixels
from histo_lightning.data.sources.dataset import find_root, open_source
from histo_lightning.errors import UserError
from histo_lightning.evaluation import score_predictions, table_of, write_predictions
from histo_lightning.inference.trained import Trained
from histo_lightning.report.console import StepProgress
from histo_lightning.report.run_page import draw_evaluation, write_evaluation
from histo_lightning.runs import read_json, write_json
from histo_lightning.runs.manifest import renew, write_manifest

DIGITS = 16  # of a pixel hash that a checkpoint keeps


def evaluate(config: EvaluateConfig) -> tuple[Path, dict[str, Any]]:
    """Predict, score, draw and report into ``evaluations/<name>``; that folder and its metrics. UserError for seen cases."""
    trained = Trained.load(config.checkpoint, device_of(config.trainer), config.imports)
    about, dataset, visible = trained.about, config.dataset, config.trainer.progress != "none"
    task = trained.config.task
    if (names := list(SUBTYPES if task == "subtype" else CLASSES)) != trained.classes:
        raise UserError(f"the checkpoint's classes are {trained.classes}; {names} are needed")
    cache_dir = Path(config.cache_dir) if config.cache_dir else default_cache_dir()
    magnification = config.magnification or trained.config.magnification
    with StepProgress("preparing images", visible) as progress:
        source = open_source(dataset, find_root(dataset, cache_dir, progress))
        records = select_magnification(source.records, magnification)
        if not records:
            raise UserError(f"magnification={magnification}: the data set has no such image")
        side, sizes = dataset.short_side or trained.short_side, source.sizes
        pixels = load_pixels(source.root, records, side, cache_dir, sizes=sizes, progress=progress)
    chosen, seen = choose_records(config, trained, without_twins(records, task)[0], pixels)
    if task == "subtype" and not all(record.subtype for record in chosen):
        raise UserError("task=subtype: some names do not say the subtype; give BreakHis names")
    row_of = {image: row for row, image in enumerate(pixels.images)}
    rows = np.array([row_of[record.image] for record in chosen], dtype=np.int64)
    logits = []
    with StepProgress("predicting", visible) as progress:
        for stop in range(size := config.batch_size, len(rows) + size, size):
            logits.append(trained.logits(pixels.take(rows[stop - size : stop])))
            progress(min(stop, len(rows)), len(rows))
    table = table_of(task, chosen, "test", np.concatenate(logits))
    point = about.get("operating_point") or {}  # without a threshold where validation gave none
    threshold = None if point.get("threshold") is None else float(about["threshold"])
    run = Path(config.checkpoint).resolve().parent.parent.name
    metrics: dict[str, Any] = {"schema": 1, "checkpoint": Path(config.checkpoint).name, "run": run}
    metrics |= {"dataset": source.name, "data": dataset.name, "shortened": str(about.get("shortened") or "")}
    metrics |= {"source": source.message, "part": config.part}
    metrics |= {"label": f"SEEN CASES ({seen} images)" if seen else "", "split_hash": about["split_hash"]}
    metrics["fingerprint"] = pixels.fingerprint(record.image for record in chosen)
    metrics["scores"] = score_predictions(table, threshold=threshold)
    folder = Path(config.output_dir) / "evaluations" / (config.run_name or f"{run}_{source.name}")
    renew(folder)
    write_predictions(folder / "predictions.csv", table)
    write_json(folder / "metrics.json", metrics)
    row_at = {record.path: row for record, row in zip(chosen, rows, strict=True)}
    draw_evaluation(
        folder, table, metrics["scores"], threshold, about.get("temperature"),
        lambda path: pixels.take(np.array([row_at[path]]))[0], config.report.formats,
    )  # fmt: skip
    write_evaluation(folder, metrics, table)
    write_manifest(folder)
    if config.json:
        write_json(Path(config.json), metrics)
    return folder, metrics


def choose_records(
    config: EvaluateConfig, trained: Trained, records: Sequence[Record], pixels: Pixels
) -> tuple[list[Record], int]:
    """The records to score, and how many of them the checkpoint has seen (by case, or by pixels)."""
    cases, hashes = set(trained.about["seen_cases"]), set(trained.about.get("seen_pixels") or ())
    digest = dict(zip(pixels.images, pixels.digests, strict=True))
    seen = {r.image for r in records if (r.case and r.case in cases) or digest[r.image][:DIGITS] in hashes}
    chosen = list(records)
    if config.part in ("train", "val", "test"):
        split = read_json(Path(config.checkpoint).resolve().parent.parent / "split.json")
        if not split.get("parts"):
            mend = "keep the run folder together, or use part=unseen"
            raise UserError(f"part={config.part}: split.json is not beside the checkpoint's folder; {mend}")
        names = set(split["parts"][config.part])
        chosen = [record for record in records if record.image in names]
    elif config.part == "unseen":
        chosen = [record for record in records if record.image not in seen]
    known = [record for record in chosen if record.image in seen]
    if known and not config.allow_seen_cases:
        first, *more = sorted({record.case or record.image for record in known})
        problem = f"{len(more) + 1} of these cases were seen in training or validation ({len(known)} images, e.g. case {first})"
        mend = "part=unseen scores the others, allow_seen_cases=true all"
        raise UserError(f"checkpoint={config.checkpoint}: {problem}; {mend}")
    if not chosen:
        raise UserError(f"part={config.part}: no image is left to score; every case here was seen")
    return chosen, len(known)
