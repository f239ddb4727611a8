"""The BreakHis file names: their grammar, what a name says about an image, and the census of the full data set.

The file name is the truth, never its folder: a public copy keeps images of slide 16184CD in slide 16184's folder.
``census.csv``, from the list of all 7,909 names and the authors' ``dsfold1..5.txt``, has a row a slide: train or test in
each official fold, and the sequence numbers at each magnification as ranges (34 of the 328 have gaps).
"""

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import ascii_uppercase

CLASSES = ("benign", "malignant")
SUBTYPE_NAMES = {
    "A": "adenosis",
    "F": "fibroadenoma",
    "PT": "phyllodes_tumor",
    "TA": "tubular_adenoma",
    "DC": "ductal_carcinoma",
    "LC": "lobular_carcinoma",
    "MC": "mucinous_carcinoma",
    "PC": "papillary_carcinoma",
}
SUBTYPES = tuple(SUBTYPE_NAMES)
SUBTYPE_CLASS = dict.fromkeys(SUBTYPES[:4], "benign") | dict.fromkeys(SUBTYPES[4:], "malignant")
MAGNIFICATIONS = (40, 100, 200, 400)
OFFICIAL_FOLDS = (1, 2, 3, 4, 5)

_NAME = re.compile(
    r"SOB_([BM])_((A|F|PT|TA|DC|LC|MC|PC)-\d{2}-\d{1,6}[A-Z]{0,3})-(40|100|200|400)-(\d{3})\.png", re.ASCII
)


def class_indices(task: str) -> dict[str, int]:
    """The index of each class by name, for ``task=binary`` or ``subtype``."""
    return {name: index for index, name in enumerate(SUBTYPES if task == "subtype" else CLASSES)}


@dataclass(frozen=True, slots=True)
class Name:
    """A parsed file name; ``slide`` reads ``A-14-22549AB``, subtype first, because slide 13412 exists as DC and as LC."""

    slide: str
    magnification: int
    sequence: int

    @property
    def subtype(self) -> str:
        return self.slide.partition("-")[0]

    @property
    def class_name(self) -> str:
        return SUBTYPE_CLASS[self.subtype]

    @property
    def case(self) -> str:
        """``14-22549``: year and number of the slide, without its section letters."""
        return self.slide.partition("-")[2].rstrip(ascii_uppercase)

    @property
    def file_name(self) -> str:
        letter = self.class_name[0].upper()
        return f"SOB_{letter}_{self.slide}-{self.magnification}-{self.sequence:03d}.png"

    @property
    def official_path(self) -> str:
        """Where the official tree keeps the file, below its ``BreaKHis_v1`` folder."""
        classes = f"histology_slides/breast/{self.class_name}/SOB/{SUBTYPE_NAMES[self.subtype]}"
        slide = f"SOB_{self.class_name[0].upper()}_{self.slide.replace('-', '_', 1)}"
        return f"{classes}/{slide}/{self.magnification}X/{self.file_name}"


def parse_name(file_name: str) -> Name | None:
    """Read a file name; None where it is outside the grammar (a class letter that contradicts the subtype too)."""
    if (match := _NAME.fullmatch(file_name)) is None:
        return None
    letter, slide, subtype, magnification, sequence = match.groups()
    agrees = SUBTYPE_CLASS[subtype][0].upper() == letter
    return Name(slide, int(magnification), int(sequence)) if agrees else None


@dataclass(frozen=True, slots=True)
class CensusSlide:
    slide: str
    official: dict[int, str]  # part, ``train`` or ``test``, by fold
    sequences: dict[int, tuple[int, ...]]  # numbers by magnification

    def names(self) -> list[Name]:
        """Every image of the slide, by magnification and sequence number."""
        return [Name(self.slide, m, number) for m, numbers in self.sequences.items() for number in numbers]


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
