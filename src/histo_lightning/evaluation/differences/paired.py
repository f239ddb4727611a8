"""A difference of two models with its variance over cases and over training runs (``STATISTICS.md`` section 5).

SE^2 = sum over classes (n_c - 1)/n_c sum_i (D_(-i) - mean)^2 + s_seed^2 / R: a stratified jackknife over cases
(Efron and Tibshirani 1993, ch. 11) of the mean difference, and the variance of that mean over R training runs.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy

from histo_lightning.evaluation.scores import ratio
from histo_lightning.evaluation.table import Floats, Integers

LEVEL = 0.95
SMALLEST_SE = 1e-12
"""Below it two levels agree on every case and in every run, up to rounding; nothing can be inferred."""


class Paired(NamedTuple):
    """Differences with their variance components; every array has the shape (...) of the differences.

    Attributes:
        difference: mean over the R replicates.
        case_se, seed_se: square roots of the jackknife variance over cases, and of s_seed^2 / R (NaN for R = 1).
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
        return ratio(self.difference, self.se)

    @property
    def p(self) -> Floats:
        """Two-sided p-values of t with ``df`` degrees of freedom."""
        return np.asarray(2 * scipy.special.stdtr(self.df, -np.abs(self.t)))

    def half_width(self, level: float = LEVEL) -> Floats:
        """Half the width of the interval at a level, NaN where se is 0."""
        return np.asarray(scipy.special.stdtrit(self.df, (1 + level) / 2) * self.se)

    def numbers(self) -> dict[str, Floats]:
        """``se, case_se, seed_se, df, t, p`` and the ends ``low, high`` of the interval at ``LEVEL``."""
        half = self.half_width()
        fields = {"se": self.se, "case_se": self.case_se, "seed_se": self.seed_se, "df": self.df}
        ends = {"low": self.difference - half, "high": self.difference + half}
        return fields | {"t": self.t, "p": self.p} | ends


def number(value: Any) -> float | None:
    """A JSON number, null where it is not finite."""
    return float(value) if np.isfinite(value) else None


def paired(values: Floats, left_out: Floats, case_class: Integers) -> Paired:
    """The mean difference, its standard error and degrees of freedom.

    The df follow Satterthwaite (1946): se^4 / sum of V^2 / df(V) over the components V, which have n_c - 1 (the
    cases of class c) and R - 1 (the training runs) degrees of freedom.

    Args:
        values: (..., R) differences, one a replicate.
        left_out: (..., R, C) the same without each case.
        case_class: (C,) class of each case.
    """
    replicates = values.shape[-1]
    over_cases, spread = np.zeros(values.shape[:-1]), np.zeros(values.shape[:-1])
    for c in np.unique(case_class):
        t = left_out.mean(axis=-2)[..., case_class == c]
        count = t.shape[-1]
        component = (count - 1) / count * ((t - t.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
        over_cases, spread = over_cases + component, spread + component**2 / (count - 1)
    over_seeds = np.full(values.shape[:-1], np.nan)  # of one replicate nothing is known
    variance = over_cases
    if replicates > 1:
        over_seeds = np.asarray(values.var(axis=-1, ddof=1) / replicates)
        spread, variance = spread + over_seeds**2 / (replicates - 1), over_cases + over_seeds
    variance = np.where(np.sqrt(variance) < SMALLEST_SE, 0.0, variance)
    case_se, seed_se, se = (np.sqrt(each) for each in (over_cases, over_seeds, variance))
    return Paired(values.mean(axis=-1), case_se, seed_se, se, ratio(variance**2, np.where(se > 0, spread, 0)))
