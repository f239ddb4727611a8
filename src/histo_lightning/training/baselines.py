"""What a run must beat to have learned anything: a logistic regression on each image's mean colour."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_lightning.data.datamodule import BreakHisDataModule
from histo_lightning.data.pixels.stains import measure_stains
from histo_lightning.evaluation import Table, score_predictions
from histo_lightning.evaluation.calibration import fit, sigmoid

Floats = NDArray[np.float64]
COLOURS = 3  # the first columns of the stain statistics: mean red, green, blue
SCORES = ("auroc", "balanced_accuracy")


def mean_colour(data: BreakHisDataModule, tables: Mapping[str, Table]) -> dict[str, Any]:
    """Fit on train, score on test (on validation where test is unread): ``{"part", "image": {"auroc", ...}, "case"}``.

    Values may be None; a ``reason`` takes their place where training colours separate the classes and nothing can be fitted.
    """
    assert data.pixels is not None
    pixels = data.pixels
    part = "test" if "test" in tables else "val"

    def colours(name: str) -> Floats:
        """Mean red, green and blue of a part's images, N x 3."""
        rows = data.parts[name].rows
        return measure_stains(lambda chosen: pixels.take(rows[chosen]), len(rows))[:, :COLOURS]

    def design(values: Floats) -> Floats:
        return np.column_stack([np.ones(len(values)), (values - centre) / spread])

    train, truth = colours("train"), tables["train"].malignant
    centre, spread = train.mean(axis=0), np.maximum(train.std(axis=0), 1e-6)
    weights = fit(truth, np.zeros(len(truth)), design(train))
    if weights is None:
        reason = "the classes of the training images cannot be fitted by their mean colours"
        return {"part": part, "reason": reason}
    p = sigmoid(design(colours(part)) @ weights)
    table = tables[part]
    logits = np.zeros_like(table.logits)
    logits[:, 1] = np.log(np.clip(p, 1e-12, 1 - 1e-12) / np.clip(1 - p, 1e-12, 1))
    guessed = replace(table, logits=logits, p_malignant=p, predicted=(p >= 0.5).astype(table.predicted.dtype))
    scores = score_predictions(guessed, intervals=False)
    return {"part": part} | {
        level: {name: (scores[level].get(name) or {}).get("value") for name in SCORES}
        for level in ("image", "case")
    }
