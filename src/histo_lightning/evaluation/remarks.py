"""What a reader of a run must not miss: how often its intervals hold, on which case its AUROC hangs, and odd training."""

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np

from histo_lightning.errors import UserError
from histo_lightning.evaluation.levels import is_grouped, units
from histo_lightning.evaluation.scores import auroc_of, value_of
from histo_lightning.evaluation.table import Table

HEAVY_CASES = ("14-21998", "14-22549")
"""A fifth of all benign images, and the next: each is left out once in an influence table."""
SCALE = 1.4
"""Image AUROC = Phi(d / 1.4) for the separation d of the protocol's model."""
SCORES = ("image_auroc", "image_balanced_accuracy", "patient_recognition_rate", "case_auroc")
MEASURED = {
    1.0: (0.957, 0.955, 0.966, 0.957),
    2.0: (0.950, 0.946, 0.962, 0.974),
    2.8: (0.927, 0.940, 0.955, 0.979),
    3.5: (0.905, 0.939, 0.944, 0.994),
    4.0: (0.886, 0.933, 0.932, 0.994),
}
"""Coverage of ``SCORES`` by separation d: case AUROC by Newcombe's method 5, the others by expanded BCa, 2,000 draws.

Simulated with the protocol's model (``STATISTICS.md`` section 4) on the 16 benign and 54 malignant cases of 100X, 3,000
replicates, so with a standard error of .004: ``tests/factories/coverage.py``; ``tests/statistics`` repeats it.
"""


def separation_of(image_auroc: float) -> float:
    """The measured separation d next to that of a run with this AUROC by image, in [0, 1]."""
    distance = SCALE * NormalDist().inv_cdf(min(max(image_auroc, 0.5), 1 - 1e-9))
    return min(MEASURED, key=lambda separation: abs(separation - distance))


def coverage_of(image_auroc: float | None) -> str:
    """A sentence on how often intervals hold where a run has this AUROC by image; None where it is undefined."""
    simulated = "With 16 benign and 54 malignant cases, in simulations"
    if image_auroc is None:
        shares = sorted(f"{100 * shares[0]:.0f}" for shares in MEASURED.values())
        return (
            f"{simulated}, nominal 95 % intervals of the AUROC by image hold in {shares[0]} to {shares[-1]} of 100 "
            "samples, fewest near perfection; where this run lies is unknown."
        )
    nearest = separation_of(image_auroc)
    image, _, _, case = MEASURED[nearest]
    return (
        f"{simulated} of networks that rank images about as well as this one (AUROC "
        f"{NormalDist().cdf(nearest / SCALE):.3f}), nominal 95 % intervals hold in {100 * image:.0f} of 100 samples "
        f"for the AUROC by image and in {100 * case:.0f} for the AUROC by case."
    )


def influence_table(table: Table) -> dict[str, Any]:
    """The AUROC by image without the two heaviest cases, and the largest change that leaving one case out makes.

    Changes are without minus with; null where the case is absent or the AUROC undefined.
    """
    if not is_grouped(table):
        raise UserError("predictions: some images have no slide or case; influence is by case")
    here = units(table, "image")
    statistic = auroc_of(here, here.truth == 1, here.p)
    value, values = value_of(statistic, here), statistic(1 - np.eye(len(here.cases)))
    without = {
        case: {"value": float(left), "change": float(left - value)}
        for case, left in zip(here.cases.tolist(), values, strict=True)
        if np.isfinite(left - value)
    }
    largest = max(without, key=lambda case: abs(without[case]["change"]), default=None)
    return {
        "value": value if np.isfinite(value) else None,
        "without": {case: without.get(case) for case in HEAVY_CASES},
        "largest": None if largest is None else {"case": largest} | without[largest],
    }


def remarks(metrics: Mapping[str, Any], *, epochs: int, warmup_epochs: float) -> list[str]:
    """Sentences on an early stop, a scored epoch within warm-up and a validation AUROC below .5; empty for none.

    ``metrics`` are those of ``metrics.json``; ``epochs`` and ``warmup_epochs`` were configured, -1 for no limit.
    """
    run, best = metrics.get("epochs"), metrics.get("best_epoch")
    sentences = []
    if run is not None and run < epochs:
        sentences.append(f"Training stopped early, after {run} of {epochs} epochs.")
    if best is not None and best < warmup_epochs:
        within = f"The scored epoch {best + 1} lies within the warm-up of {warmup_epochs:g} epochs"
        sentences.append(f"{within}, before the learning rate was at its full height.")
    for level in ("case", "image"):
        scores = (metrics.get("val") or {}).get(level) or {}
        auroc = ((scores.get("binary") or scores).get("auroc") or {}).get("value")
        if auroc is not None and auroc < 0.5:
            return [
                *sentences,
                f"The network ranks validation {level}s worse than chance: AUROC {auroc:.3f}.",
            ]
    return sentences
