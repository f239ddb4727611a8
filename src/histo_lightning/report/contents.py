"""What is in each part of a split, read from the image names in ``split.json``."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from histo_lightning.data.names import CLASSES, parse_name
from histo_lightning.evaluation.levels import kish


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
