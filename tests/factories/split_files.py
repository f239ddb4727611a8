"""Splits as people keep them: the authors' lists, CSV files, trees of images with planted copies."""

import csv
from collections.abc import Iterator
from pathlib import Path

from factories.copies import draw
from histo_lightning.data.breakhis.names import Name, census

A1, A2 = "SOB_B_A-14-22549AB-40-001.png", "SOB_B_A-14-22549AB-40-002.png"  # one slide
A3 = "SOB_B_A-14-22549CD-40-001.png"  # another slide of its case
B1, B2 = "SOB_B_F-14-25197-40-001.png", "SOB_M_DC-14-2523-40-001.png"  # other cases
DC, LC = "SOB_M_DC-14-13412-40-001.png", "SOB_M_LC-14-13412-40-001.png"
# Of the official folds, as counted from the authors' files: images by part, and what both share.
SIZES = [(5005, 2904), (5506, 2403), (5332, 2577), (5211, 2698), (4826, 3083)]
CASES = [8, 6, 7, 7, 6]
TOUCHED = [1145, 674, 697, 836, 999]
TWINS = [1, 0, 1, 0, 1]


def official_rows(fold: int) -> Iterator[tuple[Name, str]]:
    for slide in census().values():
        for name in slide.names():
            yield name, slide.official[fold]


def write_dsfold(path: Path, fold: int) -> Path:
    rows = [f"{n.file_name}|{n.magnification}|{fold}|{part}" for n, part in official_rows(fold)]
    path.write_text("\n".join(rows) + "\n")
    return path


def write_csv(path: Path, rows, header=("path", "part")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def check_official(figures: dict, fold: int) -> None:
    """The audit's figures of an official fold are those that were counted."""
    i = fold - 1
    assert figures["parts"] == {"train": SIZES[i][0], "test": SIZES[i][1]}
    assert figures["cases_on_both_sides"] == len(figures["cases"]) == CASES[i]
    assert figures["test_images_touched"] == TOUCHED[i]
    assert figures["twin_slides_on_both_sides"] == TWINS[i]
    assert ("14-13412" in figures["cases"]) == bool(TWINS[i])
    assert figures["slides_on_both_sides"] == 0
    assert figures["identical_pixels_on_both_sides"] is None
    assert figures["leak"] is True


def tree_with_copies(root: Path) -> Path:
    """Copies under other names: of a case, of a foreign name, of a twin; one that is darker; one damaged; one alone."""
    for path, seed in (
        (f"train/benign/{A1}", 1),
        (f"test/benign/{B1}", 1),  # another case, the same pixels
        ("train/benign/1.png", 2),
        ("test/benign/1.png", 2),
        (f"train/malignant/{DC}", 3),
        (f"test/malignant/{LC}", 3),
        (f"train/benign/{A2}", 4),
        (f"test/malignant/{B2}", 5),
        ("test/benign/2.png", 6),
    ):
        draw(root / path, seed, (140, 92))
    draw(root / "test/benign/SOB_B_TA-14-16184-40-001.png", 4, (140, 92), gain=0.95)  # A2, darker
    (root / "train/benign/3.png").write_bytes((root / "train/benign/1.png").read_bytes()[:200])
    return root
