"""The whole benchmark: which rows, in which order, and the table."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.table import Table

from histo_lightning.classifier.hardware import cpu_has_bf16
from histo_lightning.config.schema import BenchmarkConfig
from histo_lightning.data.datamodule import BreakHisDataModule
from histo_lightning.errors import UserError
from histo_lightning.report.console import console
from histo_lightning.runs import write_json
from histo_lightning.training.objects import build_datamodule

from .epochs import cpu_rows, gpu_rows
from .gpu_traffic import traffic_rows
from .measure import Row
from .overhead import dashboard_rows, lightning_rows, memory_rows
from .startup import answer_rows, sweep_rows
from .storage import build_rows, ready_rows
from .whole import shared_gpu_row, whole_rows

ROUNDS = {"quick": 5, "full": 15}
GROUPS = {
    "P9": ("P9",),
    "P5": ("P5a", "P5b"),
    "P6": ("P6",),
    "P8": ("P8",),
    "P1": ("P1", "P1c", "P2", "P3a", "P3b", "P4", "P7"),
    "P14": ("P14",),
    "P10": ("P10a", "P10b"),
    "P11": ("P11a", "P11b", "P13"),
    "P12": ("P12",),
    "P17": ("P15", "P16", "P17", "P18"),
    "P19": ("P19",),
    "P20": ("P20",),
}


def measure(config: BenchmarkConfig) -> list[Row]:
    """All wanted rows.

    Raises:
        UserError: ``select`` names no row, or the data cannot be set up.
    """
    known = [name for names in GROUPS.values() for name in names]
    chosen = config.select or known
    for name in chosen:
        if not any(row == name or row.startswith(name) for row in known):
            raise UserError(
                f"select={name}: no such row; allowed are {', '.join(known)} or what they begin with"
            )

    def wanted(id: str) -> bool:
        return any(
            id.split()[0] == name or (id.split()[0].startswith(name) and name in ("P3", "P5", "P10", "P11"))
            for name in chosen
        )

    rounds = ROUNDS[config.suite]
    cpu = replace(config, trainer=replace(config.trainer, accelerator="cpu"))
    data = build_datamodule(cpu)
    data.setup()
    if data.source is None or data.pixels is None:
        raise RuntimeError("the data module is not set up")
    source = data.source
    steps: dict[str, Callable[[], list[Row]]] = {
        "P9": partial(answer_rows, rounds),
        "P5": partial(build_rows, source, 256, rounds),
        "P6": partial(ready_rows, source, 256, rounds, _ready),
        "P8": partial(lightning_rows, cpu, 3 * rounds),
        "P1": partial(cpu_rows, cpu, rounds, wanted, cpu_has_bf16()),
        "P14": partial(memory_rows, replace(cpu, magnification="100x")),
        "P10": partial(sweep_rows, rounds),
        "P11": partial(gpu_rows, config, rounds, wanted),
        "P12": partial(traffic_rows, config),
        "P17": partial(whole_rows, cpu, data, rounds, wanted),
        "P19": partial(dashboard_rows, rounds),
        "P20": lambda: [shared_gpu_row()],
    }
    rows: list[Row] = []
    for group, step in steps.items():
        if any(wanted(name) for name in GROUPS[group]):
            start = time.perf_counter()
            rows += step()
            console().print(f"{group}: measured in {time.perf_counter() - start:.0f} s", markup=False)
    return sorted(rows, key=_order)


def _order(row: Row) -> tuple[int, str]:
    digits = "".join(c for c in row.id.split()[0] if c.isdigit())
    return int(digits), row.id


def _ready(tree: Path, cache_dir: Path) -> None:
    data = BreakHisDataModule(
        "breakhis", str(tree), magnification="100x", short_side=256, cache_dir=cache_dir
    )
    data.setup()


def run(config: BenchmarkConfig) -> None:
    """Measure, print the table, write ``json``."""
    rows = measure(config)
    print_rows(rows)
    if config.json:
        write_json(Path(config.json), [row.as_dict() for row in rows])


def print_rows(rows: list[Row]) -> None:
    """The table, then why each row is as it is."""
    table = Table(show_lines=False)
    for heading in ("row", "measure", "asked", "measured", "spread", "verdict"):
        table.add_column(heading, justify="right" if heading in ("measured", "spread") else "left")
    for row in rows:
        measured = "-" if row.measured is None else f"{row.measured:.3g}"
        spread = "-" if row.spread is None else f"{row.spread[0]:.3g} - {row.spread[1]:.3g}"
        table.add_row(row.id, row.title, row.asked, measured, spread, row.verdict)
    out = console()
    out.print(table)
    for row in rows:
        out.print(f"{row.id}: {row.why}", markup=False)
