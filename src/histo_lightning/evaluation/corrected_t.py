"""t-tests over folds that allow for overlapping training parts: Nadeau-Bengio, and the Bayesian correlated t.

Secondary lines. Both take J differences, one a fold, and the ratio n_test / n_train in cases. Their variance is
s^2 (1/J + n_test/n_train) (Nadeau and Bengio 2003, Machine Learning 52:239-281); with rho = n_test/(n_test + n_train)
that is the posterior scale s^2 (1/J + rho/(1 - rho)) of Corani and Benavoli (2015, Machine Learning 100:285-304).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

OFFICIAL_RATIO = 0.719
"""n_test / n_train of BreakHis's five official folds, by slide."""
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


@dataclass(frozen=True, slots=True)
class CorrectedT:
    """A t distribution of the true difference: centre, scale > 0 and degrees of freedom J - 1."""

    centre: float
    scale: float
    df: int
    variance_factor: float

    @property
    def t(self) -> float:
        return self.centre / self.scale

    @property
    def p(self) -> float:
        """Two-sided."""
        from scipy.special import stdtr

        return float(2 * stdtr(self.df, -abs(self.t)))

    def interval(self, level: float) -> tuple[float, float]:
        from scipy.special import stdtrit

        half = float(stdtrit(self.df, (1 + level) / 2)) * self.scale
        return self.centre - half, self.centre + half

    def shares(self, rope: float = ROPE) -> tuple[float, float, float]:
        """Posterior probabilities of a true difference below -rope, within +-rope, and above rope."""
        from scipy.special import stdtr

        below = float(stdtr(self.df, (-rope - self.centre) / self.scale))
        above = float(stdtr(self.df, (self.centre - rope) / self.scale))
        return below, max(0.0, 1 - below - above), above


def corrected_t(differences: Floats, ratio: float) -> CorrectedT | None:
    """The t distribution from (J,) differences by fold and n_test / n_train; None where they do not vary."""
    count = len(differences)
    factor = 1 / count + ratio
    spread = float(differences.std(ddof=1))
    if spread < 1e-12:
        return None
    return CorrectedT(float(differences.mean()), spread * factor**0.5, count - 1, factor)
