"""``report.html``, ``images.csv`` and ``problems.csv`` of a data set: what a copy holds, and what is wrong with it."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histo_lightning.data.breakhis.names import CLASSES, MAGNIFICATIONS, SUBTYPE_NAMES, SUBTYPES
from histo_lightning.data.breakhis.problems import BLOCKING, KINDS, Problem, missing_by_group
from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.pixels.duplicates import SUSPICIOUS, Pair
from histo_lightning.data.pixels.stains import COLUMNS
from histo_lightning.evaluation.table_csv import csv_text, quote_cell
from histo_lightning.report.pages import Picture, thumbnail, write_page
from histo_lightning.report.tables import Table
from histo_lightning.runs import write_atomic

PROBLEM_COLUMNS = ("kind", "image", "path", "detail")
NAME_COLUMNS = ("image", "path", "class", "subtype", "slide", "case", "magnification", "sequence")
FILE_COLUMNS = ("width", "height", "bytes", "pixel_sha256", "state")
IMAGE_COLUMNS = (*NAME_COLUMNS, *FILE_COLUMNS, *COLUMNS)
WIDTH = 240  # pixels, of a thumbnail
SHOWN = 50  # problems of each kind, groups of identical images; problems.csv holds all
PAIRS_SHOWN = 10


@dataclass(frozen=True)
class DatasetFacts:
    """Facts of one copy. All sequences by image are in the order of ``records``.

    Attributes:
        name, root: of the data set, and where the images are, as people are told.
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

    def of_kind(self, kind: str) -> list[Problem]:
        return [problem for problem in self.problems if problem.kind == kind]

    def verdict(self) -> tuple[str, bool]:
        """A few plain sentences on the copy, and whether training would refuse it."""
        counts = {kind: len(self.of_kind(kind)) for kind in KINDS}
        found = ", ".join(f"{kind} ({count:,})" for kind, count in counts.items() if count)
        census = self.census.removeprefix("census: ")
        told = f"{census[:1].upper()}{census[1:]}. " + (
            f"Found: {found}." if found else "No problem was found in it."
        )
        refused = any(counts[kind] for kind in BLOCKING)
        if refused:
            kinds = ", ".join(kind for kind in KINDS if kind in BLOCKING)
            told += f" Training refuses this copy while it has files of these kinds: {kinds}."
        if suspicious := sum(pair.suspicious for pair in self.pairs):
            told += f" Pairs of images of different cases that look like copies: {suspicious}."
        return told, refused


def write_dataset_report(folder: Path, facts: DatasetFacts) -> Path:
    """Write ``report.html``, ``images.csv`` and ``problems.csv``, each whole or not at all.

    Returns:
        The report. It needs no network, script or other file.

    Raises:
        UserError: a file cannot be written.
    """
    images = image_table(facts)
    problems = [[problem.kind, problem.image, problem.path, problem.detail] for problem in facts.problems]
    unknown = images[["magnification", "sequence", "width", "height"]] == 0
    known = images.astype(object).mask(unknown.reindex(columns=images.columns, fill_value=False), "")
    _write_csv(folder / "images.csv", IMAGE_COLUMNS, known.itertuples(index=False))
    _write_csv(folder / "problems.csv", PROBLEM_COLUMNS, problems)
    cases = {record.image: record.case or "unknown" for record in facts.records}
    groups = [
        (", ".join(group), sorted({cases.get(image, "unknown") for image in group}))
        for group in facts.identical
    ]
    groups.sort(key=lambda group: len(group[1]) == 1)
    named, zoomed = images[images.case != ""], images[images.magnification > 0]
    rows = {image: row for row, image in reversed(list(enumerate(images.image)))}
    return write_page(
        folder / "report.html",
        "dataset.html",
        facts=facts,
        verdict=facts.verdict(),
        tiles={
            "Images": len(images),
            "Slides": named.slide.nunique(),
            "Cases": named.case.nunique(),
            "Missing images": len(facts.of_kind("missing")),
            "Other problems": sum(
                problem.kind not in ("missing", "split twin") for problem in facts.problems
            ),
        },
        problems=[_problem_context(facts, kind) for kind in KINDS if facts.of_kind(kind)],
        classes=_count_table("class", zoomed, dict.fromkeys(CLASSES, "")),
        subtypes=_count_table("subtype", zoomed, SUBTYPE_NAMES),
        unzoomed=len(images) - len(zoomed),
        class_cases=_class_table(named),
        cases=_case_table(named),
        mosaic=_mosaic(facts, images),
        stains=_stain_table(images),
        sizes=_size_table(images),
        megabytes=sum(facts.bytes) / 1e6,
        across=sum(len(cases_of) > 1 for _, cases_of in groups),
        identical=Table(
            ["images", "cases"], [[text, ", ".join(own)] for text, own in groups[:SHOWN]], align="ll"
        ),
        pairs=[entry for pair in facts.pairs[:PAIRS_SHOWN] if (entry := _pair_pictures(facts, pair, rows))],
        suspicious=SUSPICIOUS,
        magnifications=MAGNIFICATIONS,
    )


def image_table(facts: DatasetFacts) -> pd.DataFrame:
    """A row an image with the columns of ``images.csv``; 0, NaN and empty text are what is not known."""
    rows = [
        [r.image, r.path, r.class_name, r.subtype, r.slide, r.case, r.magnification, r.sequence, *size, *more]
        for r, size, *more in zip(
            facts.records, facts.sizes, facts.bytes, facts.digests, facts.states, strict=True
        )
    ]
    table = pd.DataFrame(rows, columns=[*NAME_COLUMNS, *FILE_COLUMNS])
    return table.assign(**dict(zip(COLUMNS, facts.stains.T, strict=True)))


def _counts(images: pd.DataFrame, column: str) -> pd.DataFrame:
    """Images by a column and magnification, and in all."""
    counts = pd.crosstab(images[column], images["magnification"])
    counts = counts.reindex(columns=list(MAGNIFICATIONS), fill_value=0)
    return counts.set_axis([f"{m}X" for m in MAGNIFICATIONS], axis=1).assign(all=counts.sum(axis=1))


def _table(heading: str, frame: pd.DataFrame, align: str = "") -> Table:
    """A data frame, whose index names the rows."""
    rows = [
        [c if isinstance(c, str) else f"{c:,}" for c in row]
        for row in frame.reset_index().to_numpy().tolist()
    ]
    return Table([heading, *map(str, frame.columns)], rows, align=align)


def _count_table(column: str, images: pd.DataFrame, titles: dict[str, str]) -> Table:
    """Counts with sums; ``titles`` are the column's values and their long names."""
    counts = _counts(images, column).reindex(list(titles), fill_value=0)
    counts.index = pd.Index([f"{value} {title.replace('_', ' ')}".strip() for value, title in titles.items()])
    counts.loc["all"] = counts.sum()
    return _table(column, counts)


def _class_table(named: pd.DataFrame) -> Table:
    """Slides, cases and the largest case of each class."""
    rows = []
    for class_name in CLASSES:
        own = named[named["class"] == class_name]
        sizes = own.groupby("case").size().sort_values(kind="stable")
        largest = f"{sizes.index[-1]} ({sizes.iloc[-1]:,})" if len(sizes) else "none"
        numbers = (own.slide.nunique(), len(sizes), len(own))
        rows.append([class_name, *(f"{number:,}" for number in numbers), largest])
    return Table(["class", "slides", "cases", "images", "largest case (images)"], rows)


def _case_table(named: pd.DataFrame) -> Table:
    """Every case with its slides and numbers of images."""
    by_case = named.groupby("case")
    slides = by_case["slide"].unique().map(sorted).str.join(", ")
    about = pd.DataFrame({"class": by_case["class"].first(), "slides": slides})
    return _table("case", about.join(_counts(named, "case")), "lllrrrrr")


def _size_table(images: pd.DataFrame) -> Table:
    sizes = [f"{w} × {h}" if w else "unreadable" for w, h in zip(images.width, images.height, strict=True)]
    counts = Counter(sizes).most_common(SHOWN)
    return Table(["width × height (pixels)", "images"], [[size, f"{count:,}"] for size, count in counts])


def _stain_table(images: pd.DataFrame) -> Table:
    """Mean stain statistics by subtype, over the readable images."""
    rows = []
    for subtype, own in images[(images.state == "ok") & (images.subtype != "")].groupby("subtype"):
        mean = own[list(COLUMNS)].mean()
        colour = f"{mean.red:.0f} / {mean.green:.0f} / {mean.blue:.0f}"
        amounts = [f"{mean.haematoxylin:.3f}", f"{mean.eosin:.3f}", f"{100 * mean.tissue:.0f} %"]
        rows.append([str(subtype), f"{len(own):,}", colour, *amounts])
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
        "meaning": f"{KINDS[kind][:1].upper()}{KINDS[kind][1:]}.",
        "blocking": kind in BLOCKING,
        "table": Table(["file", "what is wrong"], rows, align="ll"),
        "missing": Table(["slide", *(f"{m}X" for m in MAGNIFICATIONS)], missing) if missing else None,
    }


def _pixels(facts: DatasetFacts, row: int) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = facts.pixels(np.array([row], dtype=np.int64))[0]
    return pixels


def _mosaic(facts: DatasetFacts, images: pd.DataFrame) -> list[tuple[str, str, list[Picture | None]]]:
    """Each subtype with its name and the first readable image at each magnification."""
    readable = images[images.state == "ok"].drop_duplicates(["subtype", "magnification"])
    keys = zip(readable.subtype, readable.magnification, strict=True)
    first = dict(zip(keys, readable.index.tolist(), strict=True))
    lines = []
    for subtype in SUBTYPES:
        rows = [first.get((subtype, magnification)) for magnification in MAGNIFICATIONS]
        pictures = [r if r is None else thumbnail(_pixels(facts, r), images.image[r], WIDTH) for r in rows]
        lines.append((subtype, SUBTYPE_NAMES[subtype].replace("_", " "), pictures))
    return lines


def _pair_pictures(facts: DatasetFacts, pair: Pair, rows: dict[str, int]) -> dict[str, Any] | None:
    """The centre squares of two images, the second turned as it matches; None where one is not in the copy."""
    if not {pair.first, pair.second} <= rows.keys():
        return None
    squares = []
    for image in (pair.first, pair.second):
        pixels = _pixels(facts, rows[image])
        side = min(pixels.shape[:2])
        top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
        squares.append(pixels[top : top + side, left : left + side])
    first, second = squares
    turns = re.search(r"(\d+)°", pair.orientation)
    second = second[:, ::-1] if "mirrored" in pair.orientation else second
    second = np.rot90(second, int(turns[1]) // 90 if turns else 0)
    return {
        "pair": pair,
        "pictures": [thumbnail(first, pair.first, WIDTH), thumbnail(second, pair.second, WIDTH)],
    }


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV atomically, with texts that a spreadsheet would run as formulas quoted."""

    def text(cell: Any) -> str:
        if isinstance(cell, str):
            return csv_text(quote_cell(cell))
        if isinstance(cell, float):
            return "" if math.isnan(cell) else str(float(f"{cell:.6g}"))
        return str(cell)

    lines = [",".join(columns), *(",".join(map(text, row)) for row in rows)]
    # surrogateescape: a file name that is not UTF-8 keeps its bytes.
    write_atomic(path, ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape"))
