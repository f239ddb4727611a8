"""``report.html``, ``images.csv`` and ``problems.csv`` of a data set: what a copy holds, and what is wrong with it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histo_lightning.data.breakhis import names, problems
from histo_lightning.data.breakhis.names import CLASSES, MAGNIFICATIONS, SUBTYPE_NAMES
from histo_lightning.data.breakhis.problems import BLOCKING, KINDS, Problem, missing_by_group
from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.pixels.cache import Pixels
from histo_lightning.data.pixels.duplicates import ORIENTATIONS, SUSPICIOUS, Pair, orient
from histo_lightning.data.pixels.stains import COLUMNS
from histo_lightning.report.pages import Picture, thumbnail, write_page
from histo_lightning.report.tables import Table
from histo_lightning.runs import write_csv

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
    root: str  # where the images are, as people are shown it
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
        refused, blocking = bool(counts.keys() & BLOCKING), ", ".join(k for k in KINDS if k in BLOCKING)
        suspicious = sum(pair.suspicious for pair in self.pairs)
        sentences = {
            f"{census[:1].upper()}{census[1:]}.": True,
            f"Found: {problems}." if problems else "No problem was found in it.": True,
            f"Training refuses this copy while it has files of these kinds: {blocking}.": refused,
            f"Pairs of images of different cases that look like copies: {suspicious}.": suspicious,
        }
        return " ".join(sentence for sentence, holds in sentences.items() if holds), refused


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
    """Write ``report.html``, ``images.csv`` and ``problems.csv``, or raise UserError; the page needs no other file."""
    images, pixels = facts.images, facts.pixels
    unknown = images[["magnification", "sequence", "width", "height"]] == 0
    known = images.astype(object).mask(unknown.reindex(columns=images.columns, fill_value=False), "")
    known[list(COLUMNS)] = images[list(COLUMNS)].map(lambda value: float(f"{value:.6g}"))
    write_csv(folder / "images.csv", [IMAGE_COLUMNS, *known.itertuples(index=False)])
    write_csv(folder / "problems.csv", [PROBLEM_COLUMNS, *map(astuple, facts.problems)])
    cases = {name: case or "unknown" for name, case in zip(images.image, images.case, strict=True)}
    groups = [(group, sorted({cases.get(image, "unknown") for image in group})) for group in facts.identical]
    sizes = [f"{w} × {h}" if w else "unreadable" for w, h in zip(images.width, images.height, strict=True)]
    readable = images[(images.state == "ok") & (images.subtype != "")]
    examples = {
        (r.subtype, r.magnification): thumbnail(pixels.take(np.array([r.Index]))[0], str(r.image), WIDTH)
        for r in readable.drop_duplicates(["subtype", "magnification"]).itertuples()
    }
    pairs = [
        (one, [_centre(facts, one.first, ORIENTATIONS[0]), _centre(facts, one.second, one.orientation)])
        for one in facts.pairs[:PAIRS_SHOWN]
        if {one.first, one.second} <= set(images.image)
    ]
    named, zoomed = images[images.case != ""], images[images.magnification > 0]
    by_case = named.groupby("case")
    slides = by_case["slide"].unique().map(sorted).str.join(", ")
    sections = pd.DataFrame({"class": by_case["class"].first(), "slides": slides})
    context: dict[str, Any] = {"facts": facts, "images": images, "named": named, "zoomed": zoomed}
    context |= {"about": problems, "missing": missing_by_group(facts.problems)}
    context |= {"shown": SHOWN, "names": names}
    context["classes"] = _count_table("class", zoomed, CLASSES)
    context["subtypes"] = _count_table("subtype", zoomed, tuple(SUBTYPE_NAMES))
    context["sizes"] = Counter(sizes).most_common(SHOWN)
    context["cases"] = _table("case", sections.join(_counts(named, "case")), "lllrrrrr")
    context |= {"examples": examples, "stains": readable.groupby("subtype"), "pairs": pairs}
    context["identical"] = sorted(groups, key=lambda group: len(group[1]) == 1)
    return write_page(folder / "report.html", "dataset.html", suspicious=SUSPICIOUS, **context)


def _counts(images: pd.DataFrame, column: str) -> pd.DataFrame:
    counts = pd.crosstab(images[column], images["magnification"]).reindex(
        columns=MAGNIFICATIONS, fill_value=0
    )
    return counts.add_suffix("X").assign(all=counts.sum(axis=1))


def _table(heading: str, frame: pd.DataFrame, align: str = "") -> Table:
    rows = frame.map(lambda cell: cell if isinstance(cell, str) else f"{cell:,}").reset_index()
    return Table([heading, *map(str, frame.columns)], rows.to_numpy().tolist(), align=align)


def _count_table(column: str, images: pd.DataFrame, values: Sequence[str]) -> Table:
    counts = _counts(images, column).reindex(list(values), fill_value=0)
    counts.loc["all"] = counts.sum()
    titles = {value: f"{value} {name.replace('_', ' ')}" for value, name in SUBTYPE_NAMES.items()}
    return _table(column, counts.rename(titles))


def _centre(facts: DatasetFacts, image: str, orientation: str) -> Picture:
    pixels = facts.pixels.take(np.array([facts.images.image.tolist().index(image)]))[0]
    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    square = orient(pixels[top : top + side, left : left + side], ORIENTATIONS.index(orientation))
    return thumbnail(np.asarray(square, dtype=np.uint8), image, WIDTH)
