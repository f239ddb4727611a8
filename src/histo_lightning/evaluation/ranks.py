"""Ranks of several models over folds: Friedman's test and Nemenyi's critical difference (Demsar 2006, JMLR 7).

Descriptive only: five folds are few blocks, and their training parts overlap.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Ranks:
    """Friedman's test of k arms over n blocks.

    Attributes:
        mean_rank: (k,), 1 is the highest score.
        statistic: chi-square with k - 1 degrees of freedom, corrected for ties (0 where all are tied); p: its p-value.
        critical_difference: mean ranks further apart differ at 5 % by Nemenyi's test.
        blocks: n.
    """

    mean_rank: Floats
    statistic: float
    p: float
    critical_difference: float
    blocks: int


def friedman(blocks: Floats, *, lower_is_better: bool = False) -> Ranks:
    """Friedman (1937) and Nemenyi (1963) over (n, k) scores, n >= 2 blocks and k >= 2 arms."""
    from scipy.special import chdtrc
    from scipy.stats import rankdata

    n, k = blocks.shape
    # Scores that differ by rounding alone are tied.
    rounded = np.round(blocks if lower_is_better else -blocks, 12)
    ranks = rankdata(rounded, axis=1)
    ties = sum(
        float((counts**3 - counts).sum()) for counts in (np.unique(r, return_counts=True)[1] for r in ranks)
    )
    correction = 1 - ties / (n * k * (k**2 - 1))
    spread = 12 / (n * k * (k + 1)) * float((ranks.sum(axis=0) ** 2).sum()) - 3 * n * (k + 1)
    statistic = max(0.0, spread / correction) if correction > 1e-12 else 0.0
    return Ranks(ranks.mean(axis=0), statistic, float(chdtrc(k - 1, statistic)), critical_difference(k, n), n)


def critical_difference(arms: int, blocks: int, level: float = 0.95) -> float:
    """Nemenyi's critical difference of mean ranks, q sqrt(k (k + 1) / 6 n), q of the studentised range / sqrt 2."""
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(level, arms, np.inf)) / np.sqrt(2)
    return float(q * _rank_scale(arms, blocks))


def nemenyi_p(ranks: Ranks) -> Floats:
    """(k, k) p-values of Nemenyi's test of every two mean ranks, 1 on the diagonal."""
    from scipy.stats import studentized_range

    k = len(ranks.mean_rank)
    apart = np.abs(ranks.mean_rank[:, None] - ranks.mean_rank) / _rank_scale(k, ranks.blocks)
    return np.asarray(studentized_range.sf(apart * np.sqrt(2), k, np.inf), np.float64)


def _rank_scale(arms: int, blocks: int) -> float:
    return float(np.sqrt(arms * (arms + 1) / (6 * blocks)))
