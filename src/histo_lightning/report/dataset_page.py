"""``report.html``, ``images.csv`` and ``problems.csv`` of a data set: what a copy holds, and what is wrong with it."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histo_lightning.data.breakhis.names import CLASSES, MAGNIFICATIONS, SUBTYPE_NAMES
from histo_lightning.data.breakhis.problems import BLOCKING, KINDS, Problem, missing_by_group
from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.pixels.cache import Pixels
from histo_lightning.data.pixels.duplicates import ORIENTATIONS, SUSPICIOUS, Pair, orient
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
    """Facts of one copy of a data set."""

    name: str
    root: str  # where the images are, as people are told
    census: str  # one sentence that compares the copy with the census
    images: pd.DataFrame  # see ``image_table``; also those that cannot be read
    problems: Sequence[Problem]  # of names, folders and decoding
    identical: Sequence[tuple[str, ...]]  # groups of images with the same pixels
    pairs: Sequence[Pair]  # near-duplicates across cases, best first
    pixels: Pixels  # as stored, rows as in ``images``

    def of_kind(self, kind: str) -> list[Problem]:
        return [problem for problem in self.problems if problem.kind == kind]

    def verdict(self) -> tuple[str, bool]:
        """A few plain sentences on the copy, and whether training would refuse it."""
        counts = {kind: count for kind in KINDS if (count := len(self.of_kind(kind)))}
        problems = ", ".join(f"{kind} ({count:,})" for kind, count in counts.items())
        census = self.census.removeprefix("census: ")
        sentences = [f"{census[:1].upper()}{census[1:]}."]
        sentences += [f"Found: {problems}." if problems else "No problem was found in it."]
        refused = bool(counts.keys() & BLOCKING)
        if refused:
            kinds = ", ".join(kind for kind in KINDS if kind in BLOCKING)
            sentences.append(f"Training refuses this copy while it has files of these kinds: {kinds}.")
        if suspicious := sum(pair.suspicious for pair in self.pairs):
            sentences.append(f"Pairs of images of different cases that look like copies: {suspicious}.")
        return " ".join(sentences), refused


def image_table(
    records: Sequence[Record],
    sizes: Sequence[tuple[int, int]],  # native (width, height) in pixels; (0, 0) where unreadable
    file_sizes: Sequence[int],  # in bytes
    digests: Sequence[str],  # SHA-256 of native pixels; empty where unreadable
    states: Sequence[str],  # ``ok``, or why the image is unreadable
    stains: NDArray[np.float64],  # images x ``stains.COLUMNS``; NaN where unreadable
) -> pd.DataFrame:
    """A row an image with the columns of ``images.csv``; 0, NaN and empty text are what is not known."""
    columns = zip(records, sizes, file_sizes, digests, states, strict=True)
    rows = [[*astuple(record), *size, *more] for record, size, *more in columns]
    table = pd.DataFrame(rows, columns=[*NAME_COLUMNS, *FILE_COLUMNS])
    return table.assign(**dict(zip(COLUMNS, stains.T, strict=True)))


def write_dataset_report(folder: Path, facts: DatasetFacts) -> Path:
    """Write ``report.html``, ``images.csv`` and ``problems.csv``, each whole or not at all.

    Returns:
        The report. It needs no network, script or other file.

    Raises:
        UserError: a file cannot be written.
    """
    images = facts.images
    unknown = images[["magnification", "sequence", "width", "height"]] == 0
    known = images.astype(object).mask(unknown.reindex(columns=images.columns, fill_value=False), "")
    _write_csv(folder / "images.csv", IMAGE_COLUMNS, known.itertuples(index=False))
    _write_csv(folder / "problems.csv", PROBLEM_COLUMNS, map(astuple, facts.problems))
    cases = {name: case or "unknown" for name, case in zip(images.image, images.case, strict=True)}
    groups = [(group, sorted({cases.get(image, "unknown") for image in group})) for group in facts.identical]
    sizes = [f"{w} × {h}" if w else "unreadable" for w, h in zip(images.width, images.height, strict=True)]
    named, zoomed = images[images.case != ""], images[images.magnification > 0]
    return write_page(
        folder / "report.html",
        "dataset.html",
        facts=facts,
        images=images,
        named=named,
        zoomed=zoomed,
        kinds=KINDS,
        blocking=BLOCKING,
        missing=missing_by_group(facts.problems),
        shown=SHOWN,
        classes=_count_table("class", zoomed, dict.fromkeys(CLASSES, "")),
        subtypes=_count_table("subtype", zoomed, SUBTYPE_NAMES),
        sizes=Counter(sizes).most_common(SHOWN),
        class_cases=_class_table(named),
        cases=_case_table(named),
        subtype_names=SUBTYPE_NAMES,
        examples=_examples(facts),
        stains=images[(images.state == "ok") & (images.subtype != "")].groupby("subtype"),
        stain_columns=list(COLUMNS),
        identical=sorted(groups, key=lambda group: len(group[1]) == 1),
        pairs=[entry for pair in facts.pairs[:PAIRS_SHOWN] if (entry := _pair_pictures(facts, pair))],
        suspicious=SUSPICIOUS,
        magnifications=MAGNIFICATIONS,
    )


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
        rows.append([class_name, own.slide.nunique(), len(sizes), len(own), largest])
    columns = ["class", "slides", "cases", "images", "largest case (images)"]
    return _table("class", pd.DataFrame(rows, columns=columns, dtype=object).set_index("class"))


def _case_table(named: pd.DataFrame) -> Table:
    """Every case with its slides and numbers of images."""
    by_case = named.groupby("case")
    slides = by_case["slide"].unique().map(sorted).str.join(", ")
    about = pd.DataFrame({"class": by_case["class"].first(), "slides": slides})
    return _table("case", about.join(_counts(named, "case")), "lllrrrrr")


def _examples(facts: DatasetFacts) -> dict[tuple[str, int], Picture]:
    """The first readable image of each (subtype, magnification)."""
    readable = facts.images[facts.images.state == "ok"].drop_duplicates(["subtype", "magnification"])
    readable = readable[readable.subtype != ""]
    columns = (readable.subtype, readable.magnification, readable.image, readable.index)
    return {
        (subtype, magnification): thumbnail(facts.pixels.take(np.array([row]))[0], image, WIDTH)
        for subtype, magnification, image, row in zip(*columns, strict=True)
    }


def _pair_pictures(facts: DatasetFacts, pair: Pair) -> tuple[Pair, list[Picture]] | None:
    """The centre squares of two images, the second turned as it matches; None where one is not in the copy."""
    rows = {image: row for row, image in reversed(list(enumerate(facts.images.image)))}
    pictures = []
    for image, orientation in ((pair.first, ORIENTATIONS[0]), (pair.second, pair.orientation)):
        if image not in rows:
            return None
        pixels = facts.pixels.take(np.array([rows[image]]))[0]
        side = min(pixels.shape[:2])
        top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
        square = orient(pixels[top : top + side, left : left + side], ORIENTATIONS.index(orientation))
        pictures.append(thumbnail(np.asarray(square, dtype=np.uint8), image, WIDTH))
    return pair, pictures


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
