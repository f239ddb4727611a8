"""``report.html``, ``images.csv`` and ``problems.csv`` of a data set: what a copy holds, and what is wrong with it."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from histo_lightning.data.pixels.stains import COLUMNS
from histo_lightning.evaluation.table_csv import csv_text, quote_cell
from histo_lightning.report.dataset_facts import DatasetFacts
from histo_lightning.report.dataset_pictures import CSS, mosaic, pair_pictures, stain_picture
from histo_lightning.report.dataset_tables import (
    count_tables,
    group_tables,
    identical_table,
    problem_tables,
    size_table,
    stain_table,
)
from histo_lightning.report.page import page, paragraph, section
from histo_lightning.runs import write_atomic

__all__ = ["IMAGE_COLUMNS", "PROBLEM_COLUMNS", "DatasetFacts", "write_dataset_report"]

IMAGE_COLUMNS = (
    "image",
    "path",
    "class",
    "subtype",
    "slide",
    "case",
    "magnification",
    "sequence",
    "width",
    "height",
    "bytes",
    "pixel_sha256",
    "state",
    *COLUMNS,
)
PROBLEM_COLUMNS = ("kind", "image", "path", "detail")


def write_dataset_report(folder: Path, facts: DatasetFacts) -> Path:
    """Write ``report.html``, ``images.csv`` and ``problems.csv``, each whole or not at all.

    Returns:
        The report. It needs no network, script or other file.

    Raises:
        UserError: a file cannot be written.
    """
    _write_csv(folder / "images.csv", IMAGE_COLUMNS, _image_rows(facts))
    problems = [(p.kind, p.image, p.path, p.detail) for p in facts.problems]
    _write_csv(folder / "problems.csv", PROBLEM_COLUMNS, problems)
    sections = [
        CSS,
        _header(facts),
        section("Problems", problem_tables(facts)),
        section("Images by class and magnification", count_tables(facts)),
        section("Slides and cases", group_tables(facts)),
        section("Examples", mosaic(facts)),
        section("Stain", stain_picture(facts) + stain_table(facts)),
        section("Sizes", size_table(facts)),
        section("Identical images", identical_table(facts)),
        section("Nearest images of different cases", pair_pictures(facts)),
    ]
    path = folder / "report.html"
    text = page(f"Data set: {facts.name}", "\n".join(sections))
    write_atomic(path, text.encode("utf-8", errors="replace"))  # a file's name may be no text
    return path


def _header(facts: DatasetFacts) -> str:
    verdict, refused = facts.verdict()
    named = [record for record in facts.records if record.case]
    tiles = {
        "Images": len(facts.records),
        "Slides": len({record.slide for record in named}),
        "Cases": len({record.case for record in named}),
        "Missing images": len(facts.of_kind("missing")),
        "Other problems": sum(p.kind not in ("missing", "split twin") for p in facts.problems),
    }
    boxes = "".join(f'<div class="tile">{title}<b>{count:,}</b></div>' for title, count in tiles.items())
    mark = paragraph("training refuses this copy", "label") if refused else ""
    return (
        f'<header><h1>Data set: {escape(facts.name)}</h1><span class="small">{escape(facts.root)}</span>{mark}'
        f'<p class="lead">{escape(verdict)}</p><div class="tiles">{boxes}</div></header>'
    )


def _image_rows(facts: DatasetFacts) -> Iterable[Sequence[object]]:
    """Cells of ``images.csv``; what an unreadable image or an ungrammatical name does not say is empty."""
    for row, record in enumerate(facts.records):
        width, height = facts.sizes[row]
        yield (
            record.image,
            record.path,
            record.class_name,
            record.subtype,
            record.slide,
            record.case,
            record.magnification or "",
            record.sequence or "",
            width or "",
            height or "",
            facts.bytes[row],
            facts.digests[row],
            facts.states[row],
            *("" if math.isnan(value) else float(f"{value:.6g}") for value in facts.stains[row].tolist()),
        )


def _cell(value: object) -> str:
    if not isinstance(value, str):
        return str(value)
    return csv_text(quote_cell(value))


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV atomically, with texts that a spreadsheet would run as formulas quoted."""
    lines = [",".join(columns), *(",".join(_cell(value) for value in row) for row in rows)]
    # surrogateescape: a file name that is not UTF-8 keeps its bytes.
    write_atomic(path, ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape"))
