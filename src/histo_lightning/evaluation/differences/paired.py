"""A difference of two models with its variance over cases and over training runs (``STATISTICS.md`` section 5).

SE^2 = sum over classes (n_c - 1)/n_c sum_i (D_(-i) - mean)^2 + s_seed^2 / R: a stratified jackknife over cases
(Efron and Tibshirani 1993, ch. 11) of the mean difference, and the variance of that mean over R training runs.
"""

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LEVEL = 0.95
SMALLEST_SE = 1e-12
"""Below it two levels agree on every case and in every run, up to rounding; nothing can be inferred."""


@dataclass(frozen=True, slots=True, eq=False)
class Paired:
    """Differences with their variance components; every array has the shape (...) of the differences.

    Attributes:
        difference: mean over the R replicates.
        case_se, seed_se: square roots of the jackknife variance over cases, and of s_seed^2 / R (0 for R = 1).
        se: square root of the sum of both variances; 0 where it is below ``SMALLEST_SE``.
        df: Satterthwaite's degrees of freedom, NaN where se is 0.
    """

    difference: Floats
    case_se: Floats
    seed_se: Floats
    se: Floats
    df: Floats

    @property
    def t(self) -> Floats:
        """difference / se, NaN where se is 0."""
        result = np.full(np.shape(self.se), np.nan)
        return np.asarray(np.divide(self.difference, self.se, out=result, where=self.se > 0))

    @property
    def p(self) -> Floats:
        """Two-sided p-values of t with ``df`` degrees of freedom."""
        return np.asarray(2 * scipy.special.stdtr(self.df, -np.abs(self.t)))

    def half_width(self, level: float = LEVEL) -> Floats:
        """Half the width of the interval at a level, NaN where se is 0."""
        return np.asarray(scipy.special.stdtrit(self.df, (1 + level) / 2) * self.se)


def paired(values: Floats, left_out: Floats, case_class: Integers) -> Paired:
    """The mean difference, its standard error and degrees of freedom.

    Args:
        values: (..., R) differences, one a replicate.
        left_out: (..., R, C) the same without each case.
        case_class: (C,) class of each case.

    The df follow Satterthwaite (1946): se^4 / sum of V^2 / df(V) over the components V, which have n_c - 1 (the
    cases of class c) and R - 1 (the training runs) degrees of freedom.
    """
    replicates = values.shape[-1]
    over_cases = _case_variance(left_out.mean(axis=-2), case_class)
    cases = np.unique(case_class, return_counts=True)[1]
    spread = (over_cases**2 / (cases - 1)).sum(axis=-1)
    over_seeds = np.zeros(values.shape[:-1])  # of one replicate nothing is known
    if replicates > 1:
        over_seeds = np.asarray(values.var(axis=-1, ddof=1) / replicates)
        spread = spread + over_seeds**2 / (replicates - 1)
    variance = over_cases.sum(axis=-1) + over_seeds
    variance = np.where(np.sqrt(variance) < SMALLEST_SE, 0.0, variance)
    df = np.divide(variance**2, spread, out=np.full(variance.shape, np.nan), where=variance > 0)
    case_se, seed_se, se = (np.sqrt(each) for each in (over_cases.sum(axis=-1), over_seeds, variance))
    return Paired(values.mean(axis=-1), case_se, seed_se, se, df)


def _case_variance(left_out: Floats, case_class: Integers) -> Floats:
    """(..., classes) jackknife variances of a score from its (..., C) values without each case.

    Each class is a stratum: (n_c - 1)/n_c sum_i (t_(-i) - mean over the class)^2.
    """
    each = []
    for c in np.unique(case_class):
        t = left_out[..., case_class == c]
        count = t.shape[-1]
        each.append((count - 1) / count * ((t - t.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1))
    return np.stack(each, axis=-1)
