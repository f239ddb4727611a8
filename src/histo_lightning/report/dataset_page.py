"""``report.html``, ``images.csv`` and ``problems.csv`` of a data set: what a copy holds, and what is wrong with it."""

import io
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray
from PIL import Image

from histo_lightning.data.duplicates import SUSPICIOUS, Pair
from histo_lightning.data.inspection import BLOCKING, KINDS, Problem, missing_by_group
from histo_lightning.data.names import CLASSES, MAGNIFICATIONS, SUBTYPE_CLASS, SUBTYPE_NAMES, SUBTYPES
from histo_lightning.data.records import Record
from histo_lightning.data.stains import COLUMNS
from histo_lightning.evaluation.table_csv import csv_text, quote_cell
from histo_lightning.report.figures.stain import stain_figure
from histo_lightning.report.pages import Picture, picture_of, thumbnail, write_page
from histo_lightning.report.tables import Table
from histo_lightning.runs import write_atomic

RECORD_COLUMNS = ("image", "path", "class_name", "subtype", "slide", "case", "magnification", "sequence")
IMAGE_COLUMNS = (
    *("image", "path", "class", "subtype", "slide", "case", "magnification", "sequence"),
    *("width", "height", "bytes", "pixel_sha256", "state"),
    *COLUMNS,
)
PROBLEM_COLUMNS = ("kind", "image", "path", "detail")
WIDTH = 240  # pixels, of a thumbnail
SHOWN = 50  # problems of each kind, groups of identical images; problems.csv holds all
PAIRS_SHOWN = 10


@dataclass(frozen=True)
class DatasetFacts:
    """Facts of one copy. All sequences by image are in the order of ``records``.

    Attributes:
        name: of the data set, e.g. ``breakhis``.
        root: where the images are, as people are told.
        census: one sentence that compares the copy with the census.
        records: every image, also those that cannot be read.
        sizes: native (width, height) in pixels; (0, 0) where unreadable.
        bytes: file sizes.
        digests: SHA-256 of native pixels; empty where unreadable.
        states: ``ok``, or why the image is unreadable.
        stains: float64, images x ``stains.COLUMNS``; NaN where unreadable.
        problems: of names, folders and decoding.
        identical: groups of images with the same pixels.
        pairs: near-duplicates across cases, best first.
        pixels: rows (int64) -> uint8 RGB, B x H x W x 3, as stored; not asked for unreadable images.
    """

    name: str
    root: str
    census: str
    records: Sequence[Record]
    sizes: Sequence[tuple[int, int]]
    bytes: Sequence[int]
    digests: Sequence[str]
    states: Sequence[str]
    stains: NDArray[np.float64]
    problems: Sequence[Problem]
    identical: Sequence[tuple[str, ...]]
    pairs: Sequence[Pair]
    pixels: Callable[[NDArray[np.int64]], NDArray[np.uint8]]

    @cached_property
    def row_of(self) -> dict[str, int]:
        """The first row of each image name."""
        return {record.image: row for row, record in reversed(list(enumerate(self.records)))}

    def of_kind(self, kind: str) -> list[Problem]:
        return [problem for problem in self.problems if problem.kind == kind]

    def verdict(self) -> tuple[str, bool]:
        """A few plain sentences on the copy, and whether training would refuse it."""
        counts = {kind: len(self.of_kind(kind)) for kind in KINDS}
        found = ", ".join(f"{kind} ({count:,})" for kind, count in counts.items() if count)
        census = self.census.removeprefix("census: ")
        told = [f"{census[:1].upper()}{census[1:]}.", f"Found: {found}." if found else "No problem was found in it."]
        refused = any(counts[kind] for kind in BLOCKING)
        if refused:
            kinds = ", ".join(kind for kind in KINDS if kind in BLOCKING)
            told.append(f"Training refuses this copy while it has files of these kinds: {kinds}.")
        if suspicious := sum(pair.suspicious for pair in self.pairs):
            told.append(f"Pairs of images of different cases that look like copies: {suspicious}.")
        return " ".join(told), refused


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
    named = [record for record in facts.records if record.case]
    zoomed = [record for record in facts.records if record.magnification]
    cases = {record.image: record.case or "unknown" for record in facts.records}
    identical = sorted(facts.identical, key=lambda group: len({cases.get(image) for image in group}) == 1)
    return write_page(
        folder / "report.html",
        "dataset.html",
        facts=facts,
        verdict=facts.verdict(),
        slides=len({record.slide for record in named}),
        cases=len({record.case for record in named}),
        other_problems=sum(problem.kind not in ("missing", "split twin") for problem in facts.problems),
        problems=[_problem_context(facts, kind) for kind in KINDS if facts.of_kind(kind)],
        classes=_count_table("class", [(record.class_name, record.magnification) for record in zoomed], CLASSES),
        subtypes=_count_table("subtype", [(record.subtype, record.magnification) for record in zoomed], SUBTYPES),
        unzoomed=len(facts.records) - len(zoomed),
        class_cases=_class_table(named),
        case_table=_case_table(named),
        mosaic=_mosaic(facts),
        stain=_stain_picture(facts),
        stain_table=_stain_table(facts),
        sizes=_size_table(facts),
        megabytes=sum(facts.bytes) / 1e6,
        across=sum(len({cases.get(image) for image in group}) > 1 for group in identical),
        identical=Table(
            ["images", "cases"],
            [[", ".join(group), ", ".join(sorted({cases.get(i, "unknown") for i in group}))] for group in identical[:SHOWN]],
            align="ll",
        ),
        pairs=[entry for pair in facts.pairs[:PAIRS_SHOWN] if (entry := _pair_pictures(facts, pair))],
        suspicious=SUSPICIOUS,
        magnifications=MAGNIFICATIONS,
    )  # fmt: skip


def _count_table(heading: str, counted: Iterable[tuple[str, int]], groups: Sequence[str]) -> Table:
    """Images by group and magnification, with sums."""
    counts = Counter(counted)
    rows = []
    for group in groups:
        title = f"{group} {SUBTYPE_NAMES[group].replace('_', ' ')}" if group in SUBTYPE_NAMES else group
        numbers = [counts[group, m] for m in MAGNIFICATIONS]
        rows.append([title, *(f"{number:,}" for number in [*numbers, sum(numbers)])])
    totals = [sum(counts[group, m] for group in groups) for m in MAGNIFICATIONS]
    rows.append(["all", *(f"{number:,}" for number in [*totals, sum(totals)])])
    return Table([heading, *(f"{m}X" for m in MAGNIFICATIONS), "all"], rows)


def _class_table(named: Sequence[Record]) -> Table:
    """Slides, cases and the largest case of each class."""
    rows = []
    for class_name in CLASSES:
        own = [record for record in named if record.class_name == class_name]
        by_case = Counter(record.case for record in own)
        largest = max(by_case, key=lambda case: (by_case[case], case), default="none")
        numbers = [len({record.slide for record in own}), len(by_case), len(own)]
        rows.append([class_name, *(f"{number:,}" for number in numbers), f"{largest} ({by_case[largest]:,})"])
    return Table(["class", "slides", "cases", "images", "largest case (images)"], rows)


def _case_table(named: Sequence[Record]) -> Table:
    """Every case with its slides and numbers of images."""
    rows = []
    for case in sorted({record.case for record in named}):
        own = [record for record in named if record.case == case]
        counts = Counter(record.magnification for record in own)
        slides = ", ".join(sorted({record.slide for record in own}))
        numbers = [*(counts[m] for m in MAGNIFICATIONS), len(own)]
        rows.append([case, own[0].class_name, slides, *(f"{number:,}" for number in numbers)])
    return Table(["case", "class", "slides", *(f"{m}X" for m in MAGNIFICATIONS), "all"], rows, align="lllrrrrr")


def _size_table(facts: DatasetFacts) -> Table:
    counts = Counter(facts.sizes)
    unreadable = counts.pop((0, 0), 0)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rows = [[f"{width} × {height}", f"{count:,}"] for (width, height), count in ordered[:SHOWN]]
    rows += [["unreadable", f"{unreadable:,}"]] if unreadable else []
    return Table(["width × height (pixels)", "images"], rows)


def _stain_table(facts: DatasetFacts) -> Table:
    """Mean stain statistics by subtype, over the readable images."""
    subtypes = np.array([record.subtype for record in facts.records])
    readable = np.array([state == "ok" for state in facts.states], dtype=bool)
    rows = []
    for subtype in SUBTYPES:
        own = facts.stains[(subtypes == subtype) & readable]
        if len(own):
            mean = dict(zip(COLUMNS, own.mean(axis=0).tolist(), strict=True))
            colour = " / ".join(f"{mean[name]:.0f}" for name in ("red", "green", "blue"))
            amounts = [f"{mean['haematoxylin']:.3f}", f"{mean['eosin']:.3f}", f"{100 * mean['tissue']:.0f} %"]
            rows.append([f"{subtype} {SUBTYPE_CLASS[subtype]}", f"{len(own):,}", colour, *amounts])
    return Table(["subtype", "images", "red / green / blue", "haematoxylin", "eosin", "tissue"], rows)


def _problem_context(facts: DatasetFacts, kind: str) -> dict[str, Any]:
    """The first problems of a kind, and missing images by slide and magnification."""
    problems = facts.of_kind(kind)
    rows = [[problem.path or problem.image or "the set", problem.detail] for problem in problems[:SHOWN]]
    slides: dict[str, dict[int, str]] = {}
    for group in missing_by_group(problems) if kind == "missing" else ():
        slides.setdefault(group.slide, {})[group.magnification] = f"{group.missing} of {group.of}"
    missing = [[slide, *(by.get(m, "none") for m in MAGNIFICATIONS)] for slide, by in slides.items()]
    return {
        "kind": kind,
        "count": len(problems),
        "meaning": KINDS[kind][:1].upper() + KINDS[kind][1:],
        "blocking": kind in BLOCKING,
        "table": Table(["file", "what is wrong"], rows, align="ll"),
        "missing": Table(["slide", *(f"{m}X" for m in MAGNIFICATIONS)], missing) if missing else None,
    }


def _pixels(facts: DatasetFacts, row: int) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = facts.pixels(np.array([row], dtype=np.int64))[0]
    return pixels


def _mosaic(facts: DatasetFacts) -> list[tuple[str, str, list[Picture | None]]]:
    """Each subtype with its name and the first readable image at each magnification."""
    first: dict[tuple[str, int], int] = {}
    for row, record in enumerate(facts.records):
        if record.subtype and facts.states[row] == "ok":
            first.setdefault((record.subtype, record.magnification), row)
    return [
        (
            subtype,
            SUBTYPE_NAMES[subtype].replace("_", " "),
            [
                None if row is None else thumbnail(_pixels(facts, row), facts.records[row].image, WIDTH)
                for row in (first.get((subtype, magnification)) for magnification in MAGNIFICATIONS)
            ],
        )
        for subtype in SUBTYPES
    ]


def _stain_picture(facts: DatasetFacts) -> Picture | None:
    """The stains by case; None where no readable image says its case."""
    cases = [r.case if state == "ok" else "" for r, state in zip(facts.records, facts.states, strict=True)]
    if not any(cases):
        return None
    stains = facts.stains[:, [COLUMNS.index("haematoxylin"), COLUMNS.index("eosin")]]
    figure = stain_figure(cases, [record.class_name for record in facts.records], stains)
    canvas, buffer = FigureCanvasAgg(figure), io.BytesIO()
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(buffer, "png")
    return picture_of(buffer.getvalue(), "Haematoxylin and eosin by case")


def _pair_pictures(facts: DatasetFacts, pair: Pair) -> dict[str, Any] | None:
    """Two images side by side, the second turned as it matches the first; None where one is not in the copy."""
    rows = [facts.row_of.get(image) for image in (pair.first, pair.second)]
    if rows[0] is None or rows[1] is None:
        return None
    first, second = (_centre(_pixels(facts, row)) for row in rows if row is not None)
    turns = re.search(r"(\d+)°", pair.orientation)
    second = second[:, ::-1] if "mirrored" in pair.orientation else second
    second = np.rot90(second, int(turns[1]) // 90 if turns else 0)
    return {"pair": pair, "pictures": [thumbnail(first, pair.first, WIDTH), thumbnail(second, pair.second, WIDTH)]}


def _centre(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def _image_rows(facts: DatasetFacts) -> Iterable[Sequence[object]]:
    """Cells of ``images.csv``; what an unreadable image or an ungrammatical name does not say is empty."""
    for row, record in enumerate(facts.records):
        stains = ["" if math.isnan(value) else float(f"{value:.6g}") for value in facts.stains[row].tolist()]
        yield (
            *(getattr(record, name) or "" for name in RECORD_COLUMNS),
            *(side or "" for side in facts.sizes[row]),
            *(facts.bytes[row], facts.digests[row], facts.states[row]),
            *stains,
        )


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV atomically, with texts that a spreadsheet would run as formulas quoted."""
    lines = [",".join(columns)]
    for row in rows:
        lines.append(",".join(csv_text(quote_cell(cell)) if isinstance(cell, str) else str(cell) for cell in row))
    # surrogateescape: a file name that is not UTF-8 keeps its bytes.
    write_atomic(path, ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape"))
