"""Closing summaries on the console: scores by image and case, and where the files are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from histo_lightning.report.console import console
from histo_lightning.report.words import labels_of


def _cell(score: Mapping[str, Any] | None) -> str:
    if not score or score.get("value") is None:
        return "-"
    text = f"{score['value']:.3f}"
    if score.get("low") is not None and score.get("high") is not None:
        text += f" ({score['low']:.3f}-{score['high']:.3f})"
    return text


def _level(metrics: Mapping[str, Any], part: str, level: str) -> Mapping[str, Any]:
    return ((metrics.get(part) or {}).get(level)) or {}


def _score_rows(table: Table, metrics: Mapping[str, Any], part: str) -> None:
    for level in ("image", "case"):
        scores = _level(metrics, part, level)
        if scores.get("n"):
            cells = [
                _cell(scores.get(name)) for name in ("auroc", "balanced_accuracy", "accuracy", "log_loss")
            ]
            table.add_row(part, level, str(scores["n"]), *cells)


def _score_table(label: str) -> Table:
    table = Table(title=f"[bold red]{label}[/]" if label else None, title_justify="left")
    for heading in ("part", "unit", "n", "AUROC", "balanced accuracy", "accuracy", "log loss"):
        table.add_column(heading, justify="left" if heading in ("part", "unit") else "right")
    return table


def print_evaluation(folder: Path, metrics: Mapping[str, Any]) -> None:
    """The closing summary of an evaluation."""
    out = console()
    table = _score_table("\n".join(labels_of(metrics, str(metrics["label"]))))
    _score_rows(table, {metrics["part"]: metrics["scores"]}, str(metrics["part"]))
    out.print(table)
    for name in ("report.html", "predictions.csv", "metrics.json"):
        out.print(f"{name + ':':<16} {folder / name}", markup=False)


def print_summary(folder: Path, metrics: Mapping[str, Any], labels: Sequence[str], seconds: float) -> None:
    """The closing summary of a run: scores by image and case, and where the report, checkpoint and dashboards are."""
    out = console()
    table = _score_table("\n".join(labels))
    for part in ("val", "test"):
        _score_rows(table, metrics, part)
    out.print(table)
    if metrics.get("test") is None:
        out.print("test: left unread (test=false)")
    out.print(f"scored epoch {metrics['best_epoch'] + 1} of {metrics['epochs']}, {seconds:.0f} s")
    for sentence in metrics.get("remarks") or []:
        out.print(sentence, markup=False)
    for name, path in (
        ("report", folder / "report.html"),
        ("checkpoint", next(iter(sorted((folder / "checkpoints").glob("*.ckpt"))), folder / "checkpoints")),
        ("tensorboard", folder / "tensorboard"),
    ):
        out.print(f"{name + ':':<12} {path}", markup=False)
