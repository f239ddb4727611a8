"""P9 and P10: how long commands take to answer, and what a run costs besides its training."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path

from histo_lightning.config.exits import EXIT_FOUND
from histo_lightning.data.breakhis.names import census
from histo_lightning.data.breakhis.records import record_of

from .measure import Row, interleaved, judged, ratios

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


def _seconds(*arguments: str, status: int = 0) -> float:
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True)
    if done.returncode != status:
        raise RuntimeError(f"{arguments}: exit status {done.returncode}")
    return time.perf_counter() - start


def answer_rows(rounds: int) -> list[Row]:
    """P9: ``--help`` of the commands, an audit of the authors' first fold, and compare's first line, against ``import torch``."""
    with tempfile.TemporaryDirectory(prefix="histo-benchmark-") as folder:
        fold = Path(folder) / "dsfold1.txt"
        names = (name.file_name for slide in census().values() for name in slide.names())
        parts = {slide: entry.official[1] for slide, entry in census().items()}
        lines = [
            f"{name}|{record.magnification}|1|{parts[record.slide]}"
            for name in names
            if (record := record_of(name))
        ]
        fold.write_text("\n".join(lines) + "\n")
        commands = {f"{name} --help": [name, "--help"] for name in ("train", "prepare", "benchmark")}
        commands["audit of a fold"] = ["audit", f"split_file={fold}"]
        functions: list[Callable[[], float]] = [lambda: _seconds("-c", "import torch")]
        for name, *given in commands.values():
            status = EXIT_FOUND if name == "audit" else 0
            functions.append(partial(_seconds, "-m", f"histo_lightning.{name}", *given, status=status))
        torch, *answers = interleaved(functions, rounds)
        rows = []
        for (title, (name, *given)), seconds in zip(commands.items(), answers, strict=True):
            seen = subprocess.run(
                [sys.executable, "-c", _WITNESS, f"histo_lightning.{name}", *given],
                capture_output=True,
                text=True,
            ).stdout.rsplit("torch imported: ", 1)[-1]
            why = f"{statistics.median(seconds):.2f} s; torch imported: {seen.strip()}"
            rows.append(
                judged(f"P9 {name}", f"{title} / import torch", "<= 0.6", ratios(seconds, torch), why)
            )
        rows.append(_compare_row(Path(folder), rounds))
    return rows


def _first_line(*arguments: str) -> float:
    """Seconds until a command prints something."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        seconds = time.perf_counter() - start
        process.stdout.read()
    if not said:
        raise RuntimeError(f"{arguments}: printed nothing")
    return seconds


def _compare_row(folder: Path, rounds: int) -> Row:
    """The first line of ``compare``, on one run folder that it can read."""
    run = folder / "runs" / "run"
    run.mkdir(parents=True)
    (run / "status.json").write_text('{"state": "failed", "error": "made up"}')
    given = ("histo_lightning.compare", f"runs={run}", f"output_dir={folder / 'comparison'}")
    torch, compare = interleaved(
        [lambda: _seconds("-c", "import torch"), partial(_first_line, "-m", *given)], rounds
    )
    seen = subprocess.run(
        [sys.executable, "-c", _WITNESS, *given], capture_output=True, text=True
    ).stdout.rsplit("torch imported: ", 1)[-1]
    why = f"{statistics.median(compare):.2f} s; torch imported: {seen.strip()}"
    return judged("P9 compare", "compare, first line / import torch", "<= 0.6", ratios(compare, torch), why)


def sweep_rows(rounds: int) -> list[Row]:
    """P10: seconds of each further run of a sweep beyond its training, without and with pictures and report."""
    found = [_fixed_costs() for _ in range(max(rounds // 2, 1) + 1)][1:]  # the first one may draw the images
    what = "resnet10 at 32 pixels, an epoch each; predictions and scores are counted as fixed cost"
    return [
        judged(
            "P10a",
            "sweep: fixed seconds a run, without pictures and report",
            "<= 1",
            [without for without, _ in found],
            f"from the start of one run to that of the next, in a sweep of 4; {what}",
        ),
        judged(
            "P10b",
            "sweep: fixed seconds a run, with pictures and report",
            "<= 3",
            [within for _, within in found],
            f"sweeps of 4 runs and of 1, whole commands; {what}",
        ),
    ]


def _fixed_costs() -> tuple[float, float]:
    """Seconds a further run costs without and with pictures."""
    seconds: list[float] = []
    trained: list[float] = []
    between: list[float] = []
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
            metrics = {
                p.parent.name: json.loads(p.read_text()) for p in Path(folder).glob("sweeps/*/*/metrics.json")
            }
            trained.append(sum(m["train_seconds"] for m in metrics.values()))
            jobs = [
                {"run": path.parent.name, "started": json.loads(path.read_text())["started"]}
                for path in Path(folder).glob("sweeps/*/*/status.json")
            ]
            jobs.sort(key=lambda job: str(job["started"]))
            between = [
                (
                    datetime.fromisoformat(after["started"]) - datetime.fromisoformat(job["started"])
                ).total_seconds()
                - metrics[job["run"]]["train_seconds"]
                for job, after in pairwise(jobs)
            ][1:]  # the first run carries what only a first one does
    within = ((seconds[1] - trained[1]) - (seconds[0] - trained[0])) / 3
    return sum(between) / len(between), within
