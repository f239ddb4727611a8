"""The BreakHis file-name grammar: what a name alone says about an image.

The file name is the truth about an image, never its folder: one public copy keeps images of slide
16184CD inside slide 16184's folder, and folders write ``_14-`` where files write ``-14-``.
"""

import re
from dataclasses import dataclass
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
        slide_folder = f"SOB_{self.class_name[0].upper()}_{self.slide.replace('-', '_', 1)}"
        return (
            f"histology_slides/breast/{self.class_name}/SOB/{SUBTYPE_NAMES[self.subtype]}/"
            f"{slide_folder}/{self.magnification}X/{self.file_name}"
        )


def parse_name(file_name: str) -> Name | None:
    """Read a file name; None where it is outside the grammar (a class letter that contradicts the subtype too)."""
    if (match := _NAME.fullmatch(file_name)) is None:
        return None
    letter, slide, subtype, magnification, sequence = match.groups()
    agrees = SUBTYPE_CLASS[subtype][0].upper() == letter
    return Name(slide, int(magnification), int(sequence)) if agrees else None
