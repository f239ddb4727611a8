"""How the data were split, and what is in each part: from ``split.json`` and the image names in it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from types import MappingProxyType
from typing import Any

import numpy as np

from histo_lightning.data.breakhis.names import CLASSES, parse_name
from histo_lightning.evaluation.levels import kish
from histo_lightning.report.page import paragraph
from histo_lightning.report.score_tables import row, table
from histo_lightning.report.words import PART_NAMES, level_scores

Json = Mapping[str, Any]
ROWS = ("images", "slides", "cases", "effective cases (Kish)", "largest case")
SHUFFLED_TOLD = (
    "The classes were shuffled among the cases, so there is nothing to learn about tissue: what this run gets right on cases "
    "of its training is memory. It is a control, never a result. Tables of the parts count true classes."
)
KISH = (
    "Effective number of cases (Kish): so many cases of equal size would carry about as much information, since "
    "images of one case are alike."
)


@dataclass(frozen=True)
class ClassContents:
    """One class in one part.

    Attributes:
        images, slides, cases: how many.
        kish: effective number of cases by their images, (sum n)^2 / sum n^2.
        largest: the case with most images, empty where there is none.
        largest_share: its share of the class's images, in [0, 1].
    """

    images: int
    slides: int
    cases: int
    kish: float
    largest: str
    largest_share: float


def contents(images: Sequence[str]) -> dict[str, ClassContents] | None:
    """A part's contents by class, or None where a name is outside the grammar, so that cases are unknown."""
    names = [parse_name(image) for image in images]
    known = [name for name in names if name is not None]
    if len(known) < len(names):
        return None
    found = {}
    for class_name in CLASSES:
        here = [name for name in known if name.class_name == class_name]
        by_case = Counter(name.case for name in here)
        # Ties by name, so that the same split always reads the same.
        largest = min(by_case, key=lambda case: (-by_case[case], case), default="")
        found[class_name] = ClassContents(
            images=len(here),
            slides=len({name.slide for name in here}),
            cases=len(by_case),
            kish=kish(np.array(list(by_case.values()), dtype=np.int64)),
            largest=largest,
            largest_share=by_case[largest] / len(here) if here else 0.0,
        )
    return found


def _column(found: ClassContents | None, images: int | None) -> list[str]:
    """HTML cells of one class in one part, in the order of ``ROWS``; ``images`` is what the scores know without names."""
    if found is None:
        return ["unknown" if images is None else str(images), *["unknown"] * 4]
    largest = f'{100 * found.largest_share:.0f} %<span class="interval">{escape(found.largest)}</span>'
    return [
        str(found.images),
        str(found.slides),
        str(found.cases),
        f"{found.kish:.1f}",
        largest if found.cases else "none",
    ]


def contents_table(split: Json, metrics: Json) -> str:
    """Images, slides and cases of each part by class, how unequal the cases are, as HTML."""
    parts = [part for part in PART_NAMES if part in (split.get("parts") or {})]
    rows = [row("images", [str(len(split["parts"][part])) for part in parts])]
    found = {part: contents(split["parts"][part]) for part in parts}
    for class_name in CLASSES:
        columns = []
        for part in parts:
            units = level_scores(metrics, part, "image").get("units") or {}
            here = found[part]
            columns.append(_column(None if here is None else here[class_name], units.get(class_name)))
        for heading, cells in zip(ROWS, zip(*columns, strict=True), strict=False):
            title = f"<b>{class_name}</b> images" if heading == "images" else f"\N{EM DASH} {heading}"
            rows.append(row(title, cells))
    return table(["", *(PART_NAMES[part] for part in parts)], rows, paragraph(KISH, "small"))


def _others(count: int) -> str:
    return "remaining one" if count == 1 else f"other {count}"


def in_words(split: Json, settings: Json = MappingProxyType({})) -> str:
    """How the data were split, in words; ``settings`` are the config's keys of ``split``."""
    return _kind_in_words(split, settings) + (f" {SHUFFLED_TOLD}" if split.get("shuffled_labels") else "")


def _kind_in_words(split: Json, settings: Json) -> str:
    kind, fold, folds = split.get("kind"), split.get("fold"), split.get("folds")
    if kind in ("case_kfold", "slide_kfold"):
        unit = "case" if kind == "case_kfold" else "slide"
        turn = ""
        if isinstance(fold, int) and isinstance(folds, int):
            turn = f" Test is fold {fold}, validation fold {(fold + 1) % folds}, training the {_others(folds - 2)} (folds count from 0)."
        if unit == "case":
            held = "so no case stands in two parts"
        else:
            held = "so a case with several slides can stand in training and in test"
        return f"Whole {unit}s were dealt to {folds} folds, balanced by class and number of images, {held}.{turn}"
    if kind == "official":
        shared = "slides of one case stand in training and in test"
        if settings.get("clean"):
            shared = "cases that stand in both were dropped from training"
        elif settings.get("matched"):
            shared += "; of the others so much was dropped from training that it is as small as without the shared cases"
        return f"The data set authors' own fold {fold} of 5, which divides slides: {shared}. Validation was cut from training by case."
    if kind == "injection":
        found = split.get("injection") or {}
        return (
            f"The causal arm of the leakage study. The slides of case fold {fold} give {found.get('probe')} test images and a "
            f"pool of {found.get('pool')} siblings; {found.get('images')} siblings stand in training, in exchange for as many "
            "images of other cases. Every arm of the fold has the same test images, and as many training cases and images "
            "of each class."
        )
    if kind == "image_random":
        return (
            "Images were dealt at random, whatever slide and case they are from: almost every test image has "
            "neighbours from its own slide in training."
        )
    if kind == "folders":
        return "The parts are the folders train, val and test of the data set, as they were given."
    if kind == "file":
        return "The parts were read from a file, as they were given."
    return f"The split's kind is {kind or 'not recorded'}."
