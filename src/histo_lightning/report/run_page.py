"""Pictures and ``report.html`` of a run or an evaluation: what was done, on which cases, and what it shows."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from histo_lightning.data.breakhis.names import CLASSES, parse_name
from histo_lightning.errors import UserError
from histo_lightning.evaluation import Table as Predictions
from histo_lightning.evaluation import coverage_of, influence_table, read_predictions
from histo_lightning.evaluation.levels import kish
from histo_lightning.report import words
from histo_lightning.report.figures import curves
from histo_lightning.report.figures.cases import Reader, case_figure, confusion_figure, worst_figure
from histo_lightning.report.pages import Picture, picture, write_page
from histo_lightning.report.scores import group_tables, part_context, titles
from histo_lightning.report.style import save_picture
from histo_lightning.report.tables import Table
from histo_lightning.report.words import Json
from histo_lightning.runs import read_bytes, read_json
from histo_lightning.runs.files import beside

FILES = (
    "metrics.json predictions/test.csv predictions/val.csv predictions.csv history.csv split.json config.yaml "
    "checkpoints/best.ckpt checkpoints/last.ckpt train.log plots tensorboard"
)
CONTENTS = ("images", "slides", "cases", "effective cases (Kish)", "largest case")
NEAR = 0.02  # of the watched score: so close, validation could as well have chosen another epoch


def read_metrics(run_folder: Path) -> dict[str, Any]:
    """``metrics.json`` of a run that has been scored; raise UserError for any other."""
    metrics = read_json(run_folder / "metrics.json")
    if "best_epoch" not in metrics or not (metrics.get("test") or metrics.get("val")):
        raise UserError(f"{run_folder / 'metrics.json'}: is missing or damaged; the run has not been scored")
    return metrics


def part_figures(
    table: Predictions,
    scores: Json,
    threshold: float | None,
    temperature: Json | None,
    read_image: Reader | None,
) -> Iterator[tuple[str, Figure]]:
    """Name and figure of each picture of scored predictions, with the operating point and temperature of ``metrics.json``."""
    yield "roc", curves.roc_figure(table, scores)
    yield "cases", case_figure(table, threshold)
    yield "confusion", confusion_figure(table)
    yield "precision_recall", curves.precision_recall_figure(table, scores)
    yield "reliability", curves.reliability_figure(table, temperature)
    if read_image is not None:
        yield "worst", worst_figure(table, read_image)


def draw_plots(
    run_folder: Path, formats: Sequence[str] = ("png",), read_image: Reader | None = None, fork: bool = False
) -> list[Path]:
    """Draw ``plots/*`` of a run folder from its tables, the worst errors too where their pixels can be read.

    The files written, each whole or not at all, but with ``fork`` not those of validation, which another process draws;
    UserError where a table is damaged or a picture cannot be written.
    """
    metrics, paths = read_metrics(run_folder), list[Path]()
    history, best = curves.read_history(run_folder / "history.csv"), int(metrics["best_epoch"])
    # Of eight subtypes there is no baseline: "malignant" is no answer there.
    baseline = (((metrics.get("val") or {}).get("image") or {}).get("always_malignant") or {}).get("accuracy")
    threshold = (metrics.get("operating_point") or {}).get("threshold")

    def draw(part: str, figures: dict[str, Figure]) -> None:
        if metrics.get(part):
            table = read_predictions(run_folder / "predictions" / f"{part}.csv")
            drawn = part_figures(table, metrics[part], threshold, metrics.get("temperature"), read_image)
            figures |= {f"{name}_{part}": figure for name, figure in drawn}
        for name, figure in figures.items():
            paths.extend(save_picture(figure, run_folder / "plots" / name, formats))

    if not formats:
        return []
    with beside(lambda: draw("val", {}), fork):
        figures = {"loss": curves.curve_figure(history, "loss", best)}
        draw("test", figures | {"accuracy": curves.curve_figure(history, "accuracy", best, baseline)})
    return paths


def draw_evaluation(
    folder: Path, table: Predictions, scores: Json, threshold: float | None, temperature: Json | None, read_image: Reader,
    formats: Sequence[str] = ("png",),
) -> None:  # fmt: skip
    """``plots/*`` of an evaluation: the pictures of a run's part."""
    for name, figure in part_figures(table, scores, threshold, temperature, read_image) if formats else ():
        save_picture(figure, folder / "plots" / name, formats)


def write_report(run_folder: Path) -> Path:
    """Write ``report.html`` of a run from its tables and pictures, one file that needs no other; UserError if damaged."""
    metrics, history = read_metrics(run_folder), curves.read_history(run_folder / "history.csv")
    split, status = read_json(run_folder / "split.json"), read_json(run_folder / "status.json")
    file = run_folder / "config.yaml"
    config, config_text = read_json(file), read_bytes(file).decode() if file.is_file() else ""
    parts = [part for part in ("test", "val") if metrics.get(part)]
    predictions = read_predictions(run_folder / "predictions" / f"{parts[0]}.csv")
    rate = history.get("images_per_second", np.array([np.nan]))
    ranked = words.score_value(metrics, parts[0], "image", "auroc") is not None
    by_case = bool(words.level_scores(metrics, parts[0], "case").get("n"))
    # The watched score at the scored epoch, at the end and in the median, and how many epochs come near.
    monitored, epoch = metrics.get("monitored") or [], None
    watched = np.array([value for value in monitored if value is not None], np.float64)
    scored = (monitored[int(metrics["best_epoch"]) :] or [None])[0]
    if scored is not None:
        near = int(np.sum(np.abs(watched - scored) <= NEAR))
        epoch = {"scored": scored, "last": watched[-1], "median": float(np.median(watched))}
        epoch |= {"near": near, "of": len(watched)}
    context: dict[str, Any] = {
        "name": run_folder.name,
        "title": words.run_title(config, split) or run_folder.name,
    }
    context["labels"] = words.labels_of(metrics, str(split.get("label") or ""), config)
    context |= {"split": split, "status": status, "config": config, "config_text": config_text}
    context |= {"contents": contents_table(split, metrics), "epoch": epoch}
    context["parts"] = {part: part_context(metrics[part]) for part in parts}
    context["images_per_second"] = float(np.nanmedian(rate)) if np.isfinite(rate).any() else None
    context["influence"] = influence_table(predictions) if ranked and by_case else None
    return _write(run_folder, "run.html", metrics, parts, predictions, context)


def write_evaluation(folder: Path, metrics: Json, table: Predictions) -> Path:
    """Write ``report.html`` of an evaluation; raise UserError where it cannot be written."""
    labels = words.labels_of(metrics, str(metrics["label"]))
    context = {"evaluation": metrics, "labels": labels, "scores": part_context(metrics["scores"])}
    return _write(folder, "evaluation.html", {"test": metrics["scores"]}, ["test"], table, context)


def _write(
    folder: Path, template: str, metrics: Json, parts: Sequence[str], table: Predictions, context: Json
) -> Path:
    coverage = coverage_of(words.score_value(metrics, parts[0], "image", "auroc"))

    def pictures(titles: Mapping[str, str], *names: str) -> list[Picture]:
        """The pictures that are there: of the run, of an evaluation, or of each part."""
        ends = {"": ""} | {f"_{part}": f", {words.PART_NAMES[part]} set" for part in parts}
        files = {f"{name}{end}.png": titles[name] + text for name in names for end, text in ends.items()}
        return [one for file, text in files.items() if (one := picture(folder / "plots" / file, text))]

    about: dict[str, Any] = {"metrics": metrics, "part": parts[0], "pictures": pictures}
    about |= {"groups": group_tables(table), "meanings": titles().values()}
    about["coverage"] = f"{coverage} Another training run may differ by more."
    about["files"] = {name: "" for name in FILES.split() if (folder / name).exists()}
    return write_page(folder / "report.html", template, **about, **context)


def contents_of(images: Sequence[str]) -> dict[str, list[str]] | None:
    """By class what ``CONTENTS`` names, as text (effective cases after Kish 1965); None where some cases are unknown."""
    names = [name for image in images if (name := parse_name(image)) is not None]
    if len(names) < len(images):
        return None
    contents = {}
    for class_name in CLASSES:
        own = [name for name in names if name.class_name == class_name]
        cases = Counter(sorted(name.case for name in own))  # of equal cases the first by name is the largest
        shares = [f"{100 * size / len(own):.0f} % ({case})" for case, size in cases.most_common(1)]
        counts = len(own), len({name.slide for name in own}), len(cases)
        effective = f"{kish(np.array([*cases.values()], np.int64)):.1f}"
        contents[class_name] = [*map(str, counts), effective, *(shares or ["none"])]
    return contents


def contents_table(split: Json, metrics: Json) -> Table:
    """Images, slides and cases of each part by class, and how unequal the cases are."""
    rows = [["", "images", *(f"{class_name}: {title}" for class_name in CLASSES for title in CONTENTS)]]
    for part in [part for part in words.PART_NAMES if part in (split.get("parts") or {})]:
        images = split["parts"][part]
        contents, counts = contents_of(images), words.level_scores(metrics, part, "image").get("units") or {}
        unknown = {name: [str(counts.get(name, "unknown")), *["unknown"] * 4] for name in CLASSES}
        cells = [cell for column in (contents or unknown).values() for cell in column]
        rows.append([words.PART_NAMES[part], str(len(images)), *cells])
    head, *body = map(list, zip(*rows, strict=True))
    return Table(head, body)
