"""What no model at all would score."""

from typing import Any

import numpy as np

from histo_lightning.evaluation import scores
from histo_lightning.evaluation.levels import Units


def always_malignant(units: Units) -> dict[str, Any]:
    """The scores of answering "malignant" to everything, at one level; null where undefined.

    On the whole data set: 68.6 % of the images, 70.7 % of the slides, 77.1 % of the cases.
    """
    counts = scores.count(units.truth, np.ones_like(units.truth))
    values = {name: float(score(counts)) for name, score in scores.COUNT_SCORES.items()}
    if units.level == "slide":
        values["patient_recognition_rate"] = values["accuracy"]
    return {name: value if np.isfinite(value) else None for name, value in values.items()}
