"""Draws and saves the pictures of a run or an evaluation from its tables."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from histo_lightning.errors import UserError
from histo_lightning.evaluation import Table, read_predictions
from histo_lightning.report.figures.cases import Reader, case_figure, worst_figure
from histo_lightning.report.figures.confusion import confusion_figure
from histo_lightning.report.figures.learning import curve_figure, read_history
from histo_lightning.report.figures.ranking import precision_recall_figure, roc_figure
from histo_lightning.report.figures.reliability import reliability_figure
from histo_lightning.report.style import save_picture
from histo_lightning.runs import read_json

Json = Mapping[str, Any]
PNG = ("png",)
PICTURES = {
    "loss": "Loss by epoch",
    "accuracy": "Accuracy by epoch",
    "roc": "ROC curves",
    "cases": "Score by case",
    "confusion": "Confusion matrices",
    "precision_recall": "Precision-recall curves",
    "reliability": "Reliability diagram",
    "worst": "The worst errors",
}


def read_metrics(run_folder: Path) -> dict[str, Any]:
    """``metrics.json`` of a run that has been scored; raise UserError for any other."""
    metrics = read_json(run_folder / "metrics.json")
    if "best_epoch" not in metrics or not (metrics.get("test") or metrics.get("val")):
        raise UserError(f"{run_folder / 'metrics.json'}: is missing or damaged; the run has not been scored")
    return metrics


def part_figures(
    table: Table, scores: Json, threshold: float | None, temperature: Json | None
) -> Iterator[tuple[str, Figure]]:
    """Name and figure of each picture of scored predictions, one at a time.

    Args:
        scores: of ``score_predictions``.
        threshold, temperature: the stored operating point and the entry of ``metrics.json``; None where there is none.
    """
    yield "roc", roc_figure(table, scores)
    yield "cases", case_figure(table, threshold)
    yield "confusion", confusion_figure(table)
    yield "precision_recall", precision_recall_figure(table, scores)
    yield "reliability", reliability_figure(table, temperature)


def draw_plots(run_folder: Path, formats: Sequence[str] = PNG) -> list[Path]:
    """Draw ``plots/*`` of a run folder from ``history.csv``, ``metrics.json`` and ``predictions/*.csv``.

    Returns:
        The files written, each whole or not at all: ``loss, accuracy``, and the names of :func:`part_figures` with
        ``_val`` and, where the test set was read, ``_test``. The worst errors need pixels: see :func:`draw_worst`.

    Raises:
        UserError: a table is missing or damaged, or a picture cannot be written.
    """
    metrics, plots = read_metrics(run_folder), run_folder / "plots"
    history, best = read_history(run_folder / "history.csv"), int(metrics["best_epoch"])
    # Of eight subtypes there is no baseline: "malignant" is no answer there.
    baseline = (((metrics.get("val") or {}).get("image") or {}).get("always_malignant") or {}).get("accuracy")
    written = save_picture(curve_figure(history, "loss", best), plots / "loss", formats)
    written += save_picture(curve_figure(history, "accuracy", best, baseline), plots / "accuracy", formats)
    threshold = (metrics.get("operating_point") or {}).get("threshold")
    for part in ("val", "test"):
        if metrics.get(part):
            table = read_predictions(run_folder / "predictions" / f"{part}.csv")
            for name, figure in part_figures(table, metrics[part], threshold, metrics.get("temperature")):
                written += save_picture(figure, plots / f"{name}_{part}", formats)
    return written


def draw_worst(run_folder: Path, read_image: Reader, formats: Sequence[str] = PNG) -> list[Path]:
    """Draw ``plots/worst_test`` (``worst_val`` where the test set was left unread); raises as ``draw_plots``."""
    part = "test" if read_metrics(run_folder).get("test") else "val"
    table = read_predictions(run_folder / "predictions" / f"{part}.csv")
    return save_picture(worst_figure(table, read_image), run_folder / "plots" / f"worst_{part}", formats)


def draw_evaluation(
    folder: Path, table: Table, scores: Json, threshold: float | None, temperature: Json | None, read_image: Reader,
    formats: Sequence[str] = PNG,
) -> None:  # fmt: skip
    """``plots/*`` of an evaluation: the pictures of a run's part, and the worst errors."""
    for name, figure in part_figures(table, scores, threshold, temperature):
        save_picture(figure, folder / "plots" / name, formats)
    save_picture(worst_figure(table, read_image), folder / "plots" / "worst", formats)
