"""Who the synthetic cases are: each case's stain and stroma, and the malignancy behind its class.

The class is hidden in how nuclei and glands look, by a latent malignancy
``class mean + case effect + slide effect + image effect``, as real margins vary: cases of one class differ far more
than images of one case. Stain and fibres vary by case whatever the class: a network can learn a case by heart from
them, and a split that puts one case on both sides rewards it.
"""

import hashlib
from dataclasses import dataclass
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


def generator(*key: object) -> np.random.Generator:
    """A generator that depends on the key alone, on any machine and in any process."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


@dataclass(frozen=True)
class Look:
    """A case's signature: the laboratory's stain and the patient's stroma, independent of the class.

    ``haematoxylin``, ``eosin``: optical density per unit of dye in R, G, B; ``glass``: optical density of the empty
    slide; ``fibre_um``: thickness of collagen bundles; the others are factors near 1 or shares from 0 to 1.
    """

    haematoxylin: Floats
    eosin: Floats
    glass: float
    fibre_um: float
    fibre_contrast: float
    cytoplasm: float
    cellularity: float
    coverage: float
    focus_um: float


@cache
def _rank(seed: int, quantity: str) -> dict[str, float]:
    """A value from 0 to 1 for each case: evenly spread over each class, and dealt at random within it.

    Not drawn independently: only 16 cases are benign, and by chance they would be paler, or milder, with one seed
    than with another.
    """
    values: dict[str, float] = {}
    slides = [entry.names()[0] for entry in census().values()]
    for class_name in CLASSES:
        cases = sorted({name.case for name in slides if name.class_name == class_name})
        ranks = generator(seed, quantity, class_name).permutation(len(cases))
        values.update(zip(cases, ((ranks + 0.5) / len(cases)).tolist(), strict=True))
    return values


def look_of(seed: int, case: str) -> Look:
    """The signature of a case (``14-22549``)."""

    def factor(quantity: str, least: float, most: float) -> float:
        return float(least * (most / least) ** _rank(seed, quantity)[case])

    def spectrum(dye: str, mean: tuple[float, ...]) -> Floats:
        shifts = np.array([norm.ppf(_rank(seed, f"{dye} {channel}")[case]) for channel in "RGB"])
        return np.asarray((np.array(mean) + 0.03 * shifts) * factor(dye, 0.74, 1.3))

    return Look(
        haematoxylin=spectrum("haematoxylin", (0.62, 0.66, 0.30)),
        eosin=spectrum("eosin", (0.12, 0.72, 0.34)),
        glass=factor("glass", 0.04, 0.14),
        fibre_um=factor("fibre", 2.5, 8.0),
        fibre_contrast=factor("contrast", 0.4, 1.1),
        cytoplasm=factor("cytoplasm", 0.6, 1.3),
        cellularity=factor("cellularity", 0.6, 1.7),
        coverage=factor("coverage", 0.3, 1.0),
        focus_um=factor("focus", 0.06, 0.22),
    )


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
