"""The census of the full data set: 7,909 images, 82 slides, and the authors' five folds.

``census.csv`` was derived once from the complete list of file names and the authors' ``dsfold1..5.txt``:
a row a slide, its train/test flag in each official fold (constant over magnifications), and the sequence
numbers present at each magnification as ranges (34 of the 328 groups have gaps).
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from histo_lightning.data.breakhis.names import MAGNIFICATIONS, Name

OFFICIAL_FOLDS = (1, 2, 3, 4, 5)
TOTAL_IMAGES = 7909


@dataclass(frozen=True, slots=True)
class CensusSlide:
    """A slide of the full data set: official part (``train`` or ``test``) by fold, sequence numbers by magnification."""

    slide: str
    official: dict[int, str]
    sequences: dict[int, tuple[int, ...]]

    def names(self) -> list[Name]:
        """Every image of the slide, by magnification and sequence number."""
        return [
            Name(self.slide, m, sequence) for m, numbers in self.sequences.items() for sequence in numbers
        ]


@cache
def census() -> dict[str, CensusSlide]:
    """All 82 slides by name (``A-14-22549AB``)."""
    text = files("histo_lightning.data.breakhis").joinpath("census.csv").read_text(encoding="utf-8")
    slides = {}
    for row in csv.DictReader(text.splitlines()):
        sequences: dict[int, tuple[int, ...]] = {}
        for m in MAGNIFICATIONS:
            ranges = [part.split("-") for part in row[str(m)].split()]  # of "1-3 7": 1 to 3, and 7
            sequences[m] = tuple(n for r in ranges for n in range(int(r[0]), int(r[-1]) + 1))
        official = {fold: row[f"fold{fold}"] for fold in OFFICIAL_FOLDS}
        slides[row["slide"]] = CensusSlide(row["slide"], official, sequences)
    return slides


@cache
def census_names() -> frozenset[str]:
    """All 7,909 file names."""
    return frozenset(name.file_name for slide in census().values() for name in slide.names())
