"""Who the synthetic cases are: each case's stain and stroma, and the malignancy behind its class.

The class is hidden in how nuclei and glands look, by a latent malignancy
``class mean + case effect + slide effect + image effect``: cases of one class differ far more than images of one case.
Stain and fibres vary by case whatever the class: a split that puts one case on both sides rewards learning them.
"""

import hashlib
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from histo_lightning.data.breakhis.census import census
from histo_lightning.data.breakhis.names import CLASSES, Name

Floats = NDArray[np.floating]

# Latent malignancy, 0 to 1. Class means lie 2 * CLASS_SHIFT apart and cases of a class spread by CASE_SPREAD,
# so classes overlap by case: the two together set the ceiling of a case split.
CLASS_SHIFT, CASE_SPREAD, SLIDE_SPREAD, IMAGE_SPREAD = 0.27, 0.17, 0.03, 0.05
STAINS = {"haematoxylin": (0.62, 0.66, 0.30), "eosin": (0.12, 0.72, 0.34)}  # mean optical density in R, G, B
TRAITS = {  # least and most of a case's traits, whatever its class
    "haematoxylin": (0.74, 1.3),  # strength of the stain
    "eosin": (0.74, 1.3),
    "glass": (0.04, 0.14),  # optical density of the empty slide
    "fibre": (2.5, 8.0),  # thickness of collagen bundles, um
    "contrast": (0.4, 1.1),  # of collagen bundles
    "cytoplasm": (0.6, 1.3),
    "cellularity": (0.6, 1.7),
    "coverage": (0.3, 1.0),
    "focus": (0.06, 0.22),  # blur, um
}


def generator(*key: object) -> np.random.Generator:
    """A generator that depends on the key alone, on any machine and in any process."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


@cache
def _rank(seed: int, quantity: str) -> dict[str, float]:
    """A value from 0 to 1 for each case: evenly spread over each class, and dealt at random within it."""
    values: dict[
        str, float
    ] = {}  # drawn independently, the few benign cases might be paler, or milder, by chance
    slides = [entry.names()[0] for entry in census().values()]
    for class_name in CLASSES:
        cases = sorted({name.case for name in slides if name.class_name == class_name})
        ranks = generator(seed, quantity, class_name).permutation(len(cases))
        values.update(zip(cases, ((ranks + 0.5) / len(cases)).tolist(), strict=True))
    return values


def trait(seed: int, case: str, name: str) -> float:
    """One of :data:`TRAITS` of a case (``14-22549``)."""
    least, most = TRAITS[name]
    return float(least * (most / least) ** _rank(seed, name)[case])


def stain(seed: int, case: str, dye: str) -> Floats:
    """Optical density in R, G and B per unit of a dye, as a case's laboratory stains."""
    shifts = np.array([norm.ppf(_rank(seed, f"{dye} {channel}")[case]) for channel in "RGB"])
    return np.asarray((np.array(STAINS[dye]) + 0.03 * shifts) * trait(seed, case, dye))


def malignancy_of(seed: int, name: Name, sequence: int) -> float:
    """The latent malignancy of a field of a slide, 0 to 1."""
    value = (
        0.5
        + (CLASS_SHIFT if name.class_name == "malignant" else -CLASS_SHIFT)
        + CASE_SPREAD * float(norm.ppf(_rank(seed, "malignancy")[name.case]))
        + SLIDE_SPREAD * generator(seed, "slide", name.slide).normal()
        + IMAGE_SPREAD * generator(seed, "image", name.slide, sequence).normal()
    )
    return float(np.clip(value, 0.0, 1.0))
