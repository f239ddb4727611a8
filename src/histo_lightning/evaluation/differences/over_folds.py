"""Secondary lines from scores by fold: t-tests that allow for overlapping training parts, and ranks.

Nadeau-Bengio and the Bayesian correlated t take J differences, one a fold, and the ratio n_test / n_train in cases. Their
variance is s^2 (1/J + n_test/n_train) (Nadeau and Bengio 2003, Machine Learning 52:239-281); with rho = n_test/(n_test +
n_train) that is the posterior scale s^2 (1/J + rho/(1 - rho)) of Corani and Benavoli (2015, Machine Learning 100:285-304).
Friedman's test and Nemenyi's critical difference (Demsar 2006, JMLR 7) are descriptive only: five folds are few blocks.
"""

from typing import Any

import numpy as np
import scipy

from histo_lightning.evaluation.table import Floats, Integers

ROPE = 0.01
FEWEST_FOLDS = 3
"""Test, validation and train each need one."""


def rotating_ratio(fold: Integers) -> float:
    """Mean over folds of n_test / n_train in cases, where validation is the next fold.

    Args:
        fold: (C,) fold of each case, 0 to K - 1, K >= 3.
    """
    size = np.bincount(fold)
    return float(np.mean(size / (size.sum() - size - np.roll(size, -1))))


def correlated_t(
    differences: Floats, ratio: float, *, level: float = 0.95, rope: float = ROPE
) -> dict[str, float] | None:
    """The t distribution of the true difference from (J,) differences by fold and n_test / n_train.

    Returns:
        ``scale`` and ``variance_factor`` of its variance, ``t``, ``df`` (J - 1), two-sided ``p``, ``low`` and ``high`` at
        ``level``, and the posterior probabilities ``below`` -rope, ``within`` +-rope and ``above`` rope; None where
        the differences do not vary.
    """
    count, factor = len(differences), 1 / len(differences) + ratio
    spread = float(differences.std(ddof=1))
    if spread < 1e-12:
        return None
    centre, scale, df = float(differences.mean()), spread * factor**0.5, count - 1
    half = float(scipy.special.stdtrit(df, (1 + level) / 2)) * scale
    below = float(scipy.special.stdtr(df, (-rope - centre) / scale))
    above = float(scipy.special.stdtr(df, (centre - rope) / scale))
    return {
        "scale": scale,
        "variance_factor": factor,
        "t": centre / scale,
        "df": df,
        "p": float(2 * scipy.special.stdtr(df, -abs(centre / scale))),
        "low": centre - half,
        "high": centre + half,
        "below": below,
        "within": max(0.0, 1 - below - above),
        "above": above,
    }


def friedman(blocks: Floats, *, lower_is_better: bool = False) -> dict[str, Any]:
    """Friedman (1937) and Nemenyi (1963) over (n, k) scores of n >= 2 blocks and k >= 2 models.

    Returns:
        ``mean_rank``, k floats, 1 is the best score; ``statistic``, chi-square with k - 1 degrees of freedom, corrected
        for ties (0 where all are tied), and its ``p``; ``critical_difference`` of mean ranks.
    """
    n, k = blocks.shape
    # Scores that differ by rounding alone are tied.
    ranks = scipy.stats.rankdata(np.round(blocks if lower_is_better else -blocks, 12), axis=1)
    counts = [np.unique(row, return_counts=True)[1] for row in ranks]
    correction = 1 - sum(float((c**3 - c).sum()) for c in counts) / (n * k * (k**2 - 1))
    spread = 12 / (n * k * (k + 1)) * float((ranks.sum(axis=0) ** 2).sum()) - 3 * n * (k + 1)
    statistic = max(0.0, spread / correction) if correction > 1e-12 else 0.0
    return {
        "mean_rank": ranks.mean(axis=0).tolist(),
        "statistic": statistic,
        "p": float(scipy.special.chdtrc(k - 1, statistic)),
        "critical_difference": critical_difference(k, n),
    }


def critical_difference(models: int, blocks: int, level: float = 0.95) -> float:
    """Nemenyi's critical difference of mean ranks: q sqrt(k (k + 1) / 6 n), q of the studentised range / sqrt 2."""
    q = float(scipy.stats.studentized_range.ppf(level, models, np.inf)) / np.sqrt(2)
    return float(q * np.sqrt(models * (models + 1) / (6 * blocks)))
