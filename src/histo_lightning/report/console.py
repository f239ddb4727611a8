"""What commands print for a person: progress of long steps and closing summaries."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from histo_lightning.report.words import labels_of

LINE_EVERY_SECONDS = 15.0


def console() -> Console:
    return Console(highlight=False, soft_wrap=True)


class _Rate(ProgressColumn):
    """Steps a second, over the last half minute."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")


class StepProgress:
    """A bar on a terminal, else a line now and then: call it with (done, in all); use it as a context."""

    def __init__(self, text: str, shown: bool = True) -> None:
        self.text, self.shown = text, shown
        self.bar: Progress | None = None
        self.task: Any = None
        self.done = 0
        self.started = self.said = time.monotonic()

    def __enter__(self) -> "StepProgress":
        return self

    def __call__(self, done: int, total: int) -> None:
        if not self.shown:
            return
        if done < self.done:  # another step has begun
            self.started = time.monotonic()
        self.done = done
        if not sys.stdout.isatty():
            if done == total or time.monotonic() - self.said > LINE_EVERY_SECONDS:
                self.said = time.monotonic()
                rate = done / max(self.said - self.started, 1e-9)
                left = "" if done == total else f", {(total - done) / rate:,.0f} s left"
                print(f"{self.text}: {done:,} of {total:,} ({rate:,.0f}/s{left})", flush=True)
            return
        if self.bar is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                _Rate(),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=console(), transient=True)
            self.bar.start()
            self.task = self.bar.add_task(self.text, total=total)
        self.bar.update(self.task, completed=done, total=total)
        if done == total:
            self.bar.stop()
            self.bar = None

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()


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
