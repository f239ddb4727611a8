"""P9 and P10: how long commands take to answer, and what a run costs besides its training."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from histo_lightning.benchmarks.measure import Row, interleaved, judged, ratios, unmeasured

SMALL = (
    "model=resnet10",
    "epochs=1",
    "image_size=32",
    "dataset.images_per_slide=1",
    "dataset.image_size=140",
    "batch_size=32",
    "trainer.progress=none",
)
# Whether a command imported torch: asked of the interpreter itself, after the command has ended.
_WITNESS = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit:
    pass
print("\\ntorch imported:", "torch" in sys.modules)
"""


def _seconds(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
    return time.perf_counter() - start


def answer_rows(rounds: int) -> list[Row]:
    """P9: ``--help`` of the commands against ``import torch``."""
    commands = ("train", "prepare", "benchmark", "balance")
    functions: list[Callable[[], float]] = [lambda: _seconds("-c", "import torch")]
    functions += [partial(_seconds, "-m", f"histo_lightning.{name}", "--help") for name in commands]
    torch, *helps = interleaved(functions, rounds)
    rows = []
    for command, seconds in zip(commands, helps, strict=True):
        seen = subprocess.run(
            [sys.executable, "-c", _WITNESS, f"histo_lightning.{command}", "--help"],
            capture_output=True,
            text=True,
        ).stdout.rsplit("torch imported: ", 1)[-1]
        why = f"{sorted(seconds)[len(seconds) // 2]:.2f} s; torch imported: {seen.strip()}"
        rows.append(
            judged(f"P9 {command}", f"{command} --help / import torch", "<= 0.6", ratios(seconds, torch), why)
        )
    for command in ("audit", "compare"):
        if find_spec(f"histo_lightning.{command}") is None:
            rows.append(
                unmeasured(
                    f"P9 {command}", f"{command} / import torch", "<= 0.6", "the command does not exist yet"
                )
            )
    return rows


def sweep_rows(rounds: int) -> list[Row]:
    """P10: seconds of each further run of a sweep beyond its training, with pictures and report."""
    fixed = [_fixed_cost() for _ in range(max(rounds // 2, 1) + 1)][1:]  # the first one may draw the images
    why = "sweeps of 4 runs and of 1, resnet10 at 32 pixels, an epoch each; their predictions are counted as fixed cost"
    return [
        unmeasured(
            "P10a",
            "sweep: fixed seconds a run, without pictures and report",
            "<= 1",
            "each run draws its own so far",
        ),
        judged("P10b", "sweep: fixed seconds a run, with pictures and report", "<= 3", fixed, why),
    ]


def _fixed_cost() -> float:
    seconds: list[float] = []
    trained: list[float] = []
    for count in (1, 4):
        with tempfile.TemporaryDirectory(prefix="histo-benchmark-") as folder:
            seeds = "seed=" + ",".join(str(seed) for seed in range(count))
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "histo_lightning.train", "-m", seeds, *SMALL, f"output_dir={folder}"],
                capture_output=True,
                check=True,
            )
            seconds.append(time.perf_counter() - start)
            metrics = [json.loads(p.read_text()) for p in Path(folder).glob("sweeps/*/*/metrics.json")]
            trained.append(sum(m["train_seconds"] for m in metrics))
    return ((seconds[1] - trained[1]) - (seconds[0] - trained[0])) / 3
