"""The console: how far a long step has come, and at the end of a command scores, conclusions and where the files are."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from histo_lightning.report import comparison_words
from histo_lightning.report.pages import render_text
from histo_lightning.report.tables import Table
from histo_lightning.report.words import interval_text, labels_of

LINE_EVERY_SECONDS = 15.0
SCORES = ("auroc", "balanced_accuracy", "accuracy", "log_loss")


def console() -> Console:
    """Where commands print: numbers are not coloured, long lines are not broken."""
    return Console(highlight=False, soft_wrap=True)


class StepProgress:
    """A bar on a terminal, else a line now and then: call it with (done, in all); use it as a context."""

    def __init__(self, text: str, shown: bool = True) -> None:
        terminal = sys.stdout.isatty()
        self.text, self.lines = text, shown and not terminal
        rate = "{task.fields[rate]}"
        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
        self.bar = Progress(*columns, console=console(), transient=True, disable=not (shown and terminal))
        self.task = self.bar.add_task(text, total=None, rate="")
        self.done = 0
        self.started = self.printed = time.monotonic()

    def __enter__(self) -> "StepProgress":
        self.bar.start()
        return self

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done < self.done:  # another step has begun
            self.started = now
        self.done = done
        rate = f"{done / max(now - self.started, 1e-9):,.0f}/s"
        self.bar.update(self.task, completed=done, total=total, rate=rate)
        if self.lines and (done == total or now - self.printed > LINE_EVERY_SECONDS):
            self.printed = now
            seconds = (total - done) * (now - self.started) / max(done, 1)
            left = "" if done == total else f", {seconds:,.0f} s left"
            print(f"{self.text}: {done:,} of {total:,} ({rate}{left})", flush=True)

    def __exit__(self, *_: object) -> None:
        self.bar.stop()


def _print_scores(metrics: Mapping[str, Any], labels: Sequence[str]) -> None:
    rows = []
    for part, levels in metrics.items():
        for level in ("image", "case"):
            scores = (levels or {}).get(level) or {}
            if scores.get("n"):
                texts = [interval_text(scores.get(name) or {}) for name in SCORES]
                cells = [text.replace(" (", "\n(").replace(" to ", "\N{EN DASH}") for text in texts]
                rows.append([part, level, str(scores["n"]), *cells])
    head = ["part", "unit", "n", "AUROC", "balanced accuracy", "accuracy", "log loss"]
    for label in labels:
        console().print(label, style="bold red", markup=False)
    console().print(Table(head, rows, align="llrrrrr").console())


def print_evaluation(folder: Path, metrics: Mapping[str, Any]) -> None:
    """The closing summary of an evaluation."""
    _print_scores({metrics["part"]: metrics["scores"]}, labels_of(metrics, str(metrics["label"])))
    for name in ("report.html", "predictions.csv", "metrics.json"):
        print(f"{name + ':':<16} {folder / name}")


def print_summary(folder: Path, metrics: Mapping[str, Any], labels: Sequence[str], seconds: float) -> None:
    """The closing summary of a run: scores by image and case, and where the report, checkpoint and dashboards are."""
    _print_scores({part: metrics.get(part) for part in ("val", "test")}, labels)
    if metrics.get("test") is None:
        print("test: left unread (test=false)")
    print(f"scored epoch {metrics['best_epoch'] + 1} of {metrics['epochs']}, {seconds:.0f} s")
    for sentence in metrics.get("remarks") or []:
        print(sentence)
    print(f"report:      {folder / 'report.html'}")
    print(f"checkpoint:  {min((folder / 'checkpoints').glob('*.ckpt'), default=folder / 'checkpoints')}")
    print(f"tensorboard: {folder / 'tensorboard'}")


def print_comparison(results: Mapping[str, Any], out: Path, *, unfinished: bool = True) -> None:
    """The closing summary of a comparison; ``unfinished=False`` leaves out the jobs that are not done."""
    screen = console()

    def table(content: Table) -> str:
        with screen.capture() as captured:
            screen.print(content.console())
        return captured.get()

    missing = results["unfinished"] if unfinished else []
    context = {"results": results, "say": comparison_words, "table": table, "unfinished": missing, "out": out}
    print(render_text("comparison.console", **context), end="")
