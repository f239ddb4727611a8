"""What a command prints at its end: scores, conclusions, and where the files are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from histo_lightning.report import comparison_words
from histo_lightning.report.console import console
from histo_lightning.report.pages import render_text
from histo_lightning.report.tables import Table
from histo_lightning.report.words import interval_text, labels_of

SCORES = ("auroc", "balanced_accuracy", "accuracy", "log_loss")


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
