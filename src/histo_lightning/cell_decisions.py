"""What a cell's networks decided on test, pooled over the folds: confusion matrices and ROC curves."""

from typing import Any

import numpy as np

from histo_lightning.evaluation.levels import Units, is_grouped, units
from histo_lightning.evaluation.scores import confusion
from histo_lightning.pooled_cells import OutOfFold, PooledCell
from histo_lightning.report.figures.ranking import GRID, roc_points

Json = dict[str, Any]


def decisions_of(found: PooledCell) -> Json | None:
    """Confusion matrices and ROC curves of a cell by image and (where known) by case; None where nothing is pooled.

    Returns:
        ``world, arm, level, stratum, magnification, trainings`` and for each of ``image, case``: ``confusion``, 2 x 2
        counts (rows are the truth) summed over the replicates, and ``roc``, see ``mean_roc``, or None.
    """
    poolings = [each[0] for each in found.pooled.values()]
    if not poolings:
        return None
    cell = found.cell
    about: Json = {
        "world": cell.world,
        "arm": str(cell.arm),
        "level": cell.arm.level,
        "stratum": cell.arm.stratum,
        "magnification": cell.magnification,
        "trainings": len(poolings),
    }
    return about | {
        level: _at(level, poolings)
        for level in ("image", "case")
        if level == "image" or all(is_grouped(one.table) for one in poolings)
    }


def _at(level: str, poolings: list[OutOfFold]) -> Json:
    here = [units(one.table, level, fold=one.fold) for one in poolings]
    counts = sum(confusion(each.truth, each.decision, 2) for each in here)
    folds = [each.chosen(each.fold == k) for each in here for k in np.unique(each.fold)]
    return {"confusion": np.asarray(counts).tolist(), "roc": mean_roc(folds)}


def mean_roc(folds: list[Units]) -> Json | None:
    """The folds' ROC curves and their vertical average (Fawcett 2006, section 7).

    Folds hold different networks, so probabilities are compared within a fold only. Each fold weighs as many pairs of a benign
    and a malignant unit as it has; the area under the average then is the pooled AUROC of ``evaluation.score_pooled``.

    Returns:
        ``curves``, false and true positive rates of each fold that holds both classes, and ``mean``, the average true
        positive rate at the false positive rates ``ranking_pictures.GRID``; None where no fold holds both classes.
    """
    curves, pairs = [], []
    for fold in folds:
        malignant = int(fold.truth.sum())
        if 0 < malignant < len(fold):
            curves.append(roc_points(fold.truth, fold.p))
            pairs.append(malignant * (len(fold) - malignant))
    if not curves:
        return None
    heights = np.array([np.interp(GRID, false, true) for false, true in curves])
    return {
        "curves": [[false.tolist(), true.tolist()] for false, true in curves],
        "mean": np.average(heights, axis=0, weights=pairs).tolist(),
    }
