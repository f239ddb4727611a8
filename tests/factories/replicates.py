"""Made-up out-of-fold predictions of several levels, seeds and magnifications."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_lightning.evaluation import make_table
from histo_lightning.evaluation.differences import Replicate
from histo_lightning.evaluation.differences.layout import Predictions

FOLDS = 5
MAGNIFICATIONS = (40, 100)


def replicate(
    seed: int,
    magnification: int = 40,
    benign: int = 10,
    malignant: int = 15,
    skill: float = 1.0,
    shift: int = 0,
) -> Replicate:
    """Cases of 1 to 3 images; the cases (not the images) are hard or easy for every seed; ``shift`` turns the folds."""
    cases = benign + malignant
    hard = np.random.default_rng(99).normal(0, 1, cases)
    random = np.random.default_rng([seed, magnification])
    case = np.repeat(np.arange(cases), 1 + np.arange(cases) % 3)
    label = np.where(case < benign, 0, 1)
    margin = skill + hard[case] + random.normal(0, 1, len(case))
    logits = np.zeros((len(case), 2))
    logits[:, 1] = np.round(np.where(label == 1, margin, -margin), 1)
    subtype = np.where(label == 1, "DC", "F")
    table = make_table(
        "binary",
        image=[f"{magnification}-{i}.png" for i in range(len(case))],
        path=[f"{magnification}-{i}.png" for i in range(len(case))],
        class_name=np.where(label == 1, "malignant", "benign").tolist(),
        subtype=subtype.tolist(),
        slide=[f"{s}-14-{c:03d}A" for s, c in zip(subtype, case, strict=True)],
        case=[f"14-{c:03d}" for c in case],
        magnification=[magnification] * len(case),
        part="test",
        logits=logits,
    )
    return Replicate(table, ((case + shift * (case // FOLDS)) % FOLDS).astype(np.int64))


def seeds_of(first_seed: int, seeds: int = 4, **options: Any) -> dict[str, list[Replicate]]:
    return {f"{m}x": [replicate(first_seed + r, m, **options) for r in range(seeds)] for m in MAGNIFICATIONS}


def three() -> dict[str, dict[str, list[Replicate]]]:
    return {"r18": seeds_of(0), "r34": seeds_of(100, skill=1.2), "r50": seeds_of(200, skill=1.8)}


def changed(
    arms: Predictions, change: Callable[[Replicate], Replicate]
) -> dict[str, dict[str, list[Replicate]]]:
    return {n: {m: [change(r) for r in block] for m, block in a.items()} for n, a in arms.items()}


def rows(r: Replicate, chosen: NDArray[Any]) -> Replicate:
    return Replicate(r.table.rows(chosen), r.fold[chosen])


def without(r: Replicate, case: str) -> Replicate:
    return rows(r, r.table.case != case)
