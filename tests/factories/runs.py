"""Small runs, in this process or as a command, and what they leave."""

import csv
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from factories.configs import composed
from factories.forkserver import Command, server
from histo_lightning.config.exits import SIGNALS, guard
from histo_lightning.evaluation import score_predictions
from histo_lightning.training.results import mark_apparent
from histo_lightning.training.run import run_training

SMALL = (
    *("experiment=smoke", "dataset.images_per_slide=2", "dataset.image_size=140", "trainer=cpu"),
    "trainer.threads=1",  # another test runs beside this one
    "report.formats=[]",  # half the time of such a run; a test that looks at pictures adds PICTURES
)
PICTURES = "report.formats=[png]"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def logits_of(path: Path) -> dict[str, list[float]]:
    """The logits of a table of predictions, by image."""
    return {
        row["image"]: [float(value) for name, value in row.items() if name.startswith("logit_")]
        for row in rows(path)
    }


def run_folder(root: Path) -> Path:
    """The only run below ``outputs/``."""
    (folder,) = [path for path in (root / "outputs" / "runs").iterdir() if path.is_dir()]
    return folder


def scores_again(folder: Path, part: str) -> dict[str, Any]:
    """The scores of a part from its table alone, at 0.5 and at the run's operating point."""
    threshold = read(folder / "metrics.json")["operating_point"]["threshold"]
    scores = score_predictions(folder / "predictions" / f"{part}.csv", threshold=threshold)
    if part == "val":
        mark_apparent(scores)
    return scores


@contextmanager
def restored() -> Iterator[None]:
    """What a run sets for its whole process is set back."""
    threads = torch.get_num_threads()
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def overrides_here(root: Path, cache_dir: Path) -> tuple[str, ...]:
    """One thread, and own folders."""
    folders = (f"output_dir={root / 'outputs'}", f"cache_dir={cache_dir / 'histo_lightning'}")
    return ("trainer.threads=1", *folders)


def train_here(
    root: Path, cache_dir: Path, *overrides: str, base: Sequence[str] = SMALL, **options: Any
) -> Path:
    """A small run in this process: the functions of the command, without its start. Returns its folder."""
    config = composed(*base, *overrides_here(root, cache_dir), *overrides)
    with restored():
        return run_training(config, **options)


def main_here(command: str, *arguments: str) -> int:
    """The front door of a command in this process; its exit status."""
    main = importlib.import_module(f"histo_lightning.{command}").main
    with restored(), mock.patch.object(sys, "argv", [command, *arguments]):
        return guard(main)


def environment(cache_dir: Path, **more: str) -> Mapping[str, str]:
    return {**os.environ, "XDG_CACHE_HOME": str(cache_dir), **more}


def start(root: Path, cache_dir: Path, *arguments: str, program: str = "histo_lightning.train") -> Command:
    """Start a command in a folder, as a user does."""
    return server().start(["-m", *program.split(), *arguments], root, environment(cache_dir))


def finish(process: Command) -> int:
    """Wait, show what went wrong; the exit status."""
    _, err = process.communicate(timeout=300)
    if process.returncode:
        print(err)
    return int(process.returncode)


def wait_for_epoch(root: Path, process: Command, epoch: int) -> None:
    """Until an epoch has its line: bounded by the test's timeout."""
    while process.poll() is None:
        files = list(root.glob("outputs/runs/*/history.csv"))
        if files and len(rows(files[0])) > epoch:
            return
        time.sleep(0.02)
    pytest.fail(f"ended before epoch {epoch}: {process.communicate()}")
