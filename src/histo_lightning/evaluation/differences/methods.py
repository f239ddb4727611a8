"""The statistics of differences: errors over cases and training runs, several comparisons at once, lines over folds.

- ``paired`` (``STATISTICS.md`` section 5): SE^2 = sum over classes (n_c - 1)/n_c sum_i (D_(-i) - mean)^2 + s_seed^2 / R, a
  stratified jackknife over cases (Efron and Tibshirani 1993, ch. 11) and the variance over R training runs.
- ``paired`` with the interactions of pairs of a benign and a malignant case: the jackknife counts twice what only a pair has.
  Less the squares of the interactions it is the unbiased variance of a two-sample U-statistic (Cameron, Gelbach and Miller
  2011, J. Bus. Econ. Stat. 29:238-249, two-way clusters); of s_seed^2 / R what exceeds the runs' own variance over cases is added.
- ``correlated_t``: variance s^2 (1/J + n_test/n_train) of J differences by fold (Nadeau and Bengio 2003, Machine Learning
  52:239-281); it is the posterior scale of Corani and Benavoli (2015, Machine Learning 100:285-304) as well.
- ``friedman`` (Demsar 2006, JMLR 7) is descriptive only: five folds are few blocks.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy

from histo_lightning.evaluation.scores import ratio
from histo_lightning.evaluation.table import Floats, Integers

LEVEL = 0.95
ROPE = 0.01
FEWEST_FOLDS = 3
"""Test, validation and train each need one."""
SMALLEST_SE = 1e-12
"""Below it two levels agree on every case and in every run, up to rounding."""
USABLE = 0.99
"""Share of the resamples in which every difference must be defined."""


def number(value: Any) -> float | None:
    """A JSON number, null where it is not finite."""
    return float(value) if np.isfinite(value) else None


def sd(values: Floats) -> float | None:
    """Standard deviation of (n,) values, null where there are fewer than two or one is undefined."""
    return number(values.std(ddof=1)) if len(values) > 1 else None


class Paired(NamedTuple):
    """Differences with their variance components; every array has the shape (...) of the differences."""

    difference: Floats  # mean over the R replicates
    case_se: Floats  # square root of the variance over cases
    seed_se: Floats  # square root of what training runs add, NaN for R = 1
    se: Floats  # square root of the sum of both variances, 0 where it is below ``SMALLEST_SE``
    df: Floats  # Satterthwaite's degrees of freedom, NaN where se is 0, as is all that follows from it

    @property
    def t(self) -> Floats:
        """difference / se."""
        return ratio(self.difference, self.se)

    @property
    def p(self) -> Floats:
        """Two-sided p-values of t with ``df`` degrees of freedom."""
        return np.asarray(2 * scipy.special.stdtr(self.df, -np.abs(self.t)))

    def half_width(self, level: float = LEVEL) -> Floats:
        """Half the width of the interval at a level."""
        return np.asarray(scipy.special.stdtrit(self.df, (1 + level) / 2) * self.se)

    def numbers(self) -> dict[str, Floats]:
        """``se, case_se, seed_se, df, t, p`` and the ends ``low, high`` of the interval at ``LEVEL``."""
        ends = {"low": self.difference - self.half_width(), "high": self.difference + self.half_width()}
        return {name: getattr(self, name) for name in ("se", "case_se", "seed_se", "df", "t", "p")} | ends


def paired(
    values: Floats, left_out: Floats, case_class: Integers, interactions: Floats | None = None
) -> Paired:
    """The mean difference, its standard error and degrees of freedom.

    The df follow Satterthwaite (1946): se^4 / sum of V^2 / df(V) over the components V, with n_c - 1 (class c) and R - 1
    (training runs) df. Where a part of s_seed^2 / R is taken off, its V^2 is what is left times the whole: calibrated by
    simulation (``tests/statistics``).

    Args:
        values: (..., R) differences; left_out: (..., R, C) the same without each case; case_class: (C,).
        interactions: (..., R, P) of the pairs of cases, ``D - D_(-i) - D_(-j) + D_(-ij)``; None for the plain jackknife.
    """
    replicates = values.shape[-1]
    over_cases, spread = _over_cases(left_out, case_class, interactions)
    over_seeds = np.full(values.shape[:-1], np.nan)  # of one replicate nothing is known
    variance = over_cases
    if replicates > 1:
        whole = over_seeds = np.asarray(values.var(axis=-1, ddof=1) / replicates)
        if interactions is not None:
            # Of the variance over cases this share comes from the runs: their deviations from the mean run.
            deviations = [each - each.mean(axis=-2, keepdims=True) for each in (left_out, interactions)]
            runs = [[each[..., [r], :] for each in deviations] for r in range(replicates)]
            known = sum(_over_cases(left, case_class, pairs)[0] for left, pairs in runs)
            over_seeds = np.maximum(whole - known / (replicates - 1) / replicates, 0.0)
        spread, variance = spread + over_seeds * whole / (replicates - 1), over_cases + over_seeds
    variance = np.where(np.sqrt(variance) < SMALLEST_SE, 0.0, variance)
    case_se, seed_se, se = (np.sqrt(each) for each in (over_cases, over_seeds, variance))
    return Paired(values.mean(axis=-1), case_se, seed_se, se, ratio(variance**2, np.where(se > 0, spread, 0)))


def _over_cases(left_out: Floats, case_class: Integers, interactions: Floats | None) -> tuple[Floats, Floats]:
    """(...) variance over cases of the mean over R replicates, and the sum of V^2 / df(V) of its components."""
    classes, counts = np.unique(case_class, return_counts=True)
    by_class = [left_out.mean(axis=-2)[..., case_class == c] for c in classes]
    squares = [((t - t.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1) for t in by_class]
    components = (counts - 1) / counts * np.stack(squares, axis=-1)
    total = components.sum(axis=-1)
    if interactions is not None:  # never below what the cases of one class vary
        total = total - np.prod((counts - 1) / counts) * (interactions.mean(axis=-2) ** 2).sum(axis=-1)
        total = np.maximum(total, components.max(axis=-1))
    return np.asarray(total), np.asarray((components**2 / (counts - 1)).sum(axis=-1))


def largest_deviations(
    resampled: Floats, values: Floats, case_se: Floats, seed_se: Floats, seed: int
) -> Floats:
    """The joint null distribution of A differences: the largest |deviation| / SE among them in each resample, sorted.

    Deviations of (A, B) resamples of cases are scaled to the (A,) case SE, and normal ones with the covariance of the (A, R)
    values by replicate, scaled to the seed SE, are added: levels that share a reference and cases stay correlated.
    Empty, for Bonferroni's bound, where A = 1, resamples are undefined (NaN) or nothing varies.
    """
    count, replicates = values.shape
    usable = resampled[:, np.isfinite(resampled).all(axis=0)]
    if count == 1 or usable.shape[1] < max(USABLE * resampled.shape[1], 1):
        return np.zeros(0)
    centred = usable - usable.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1)
    deviations, variance = centred * np.nan_to_num(ratio(case_se, spread))[:, None], case_se**2
    if replicates > 1:
        covariance = np.cov(values) / replicates
        shrink = np.nan_to_num(ratio(seed_se, np.sqrt(np.diag(covariance))))
        covariance = covariance * np.outer(shrink, shrink)
        sizes, axes = np.linalg.eigh(covariance)
        # The symmetric root does not depend on the order of the replicates.
        root = axes @ np.diag(np.sqrt(np.maximum(sizes, 0))) @ axes.T
        noise = np.random.default_rng([seed, 1]).standard_normal((deviations.shape[1], count))
        deviations, variance = deviations + root @ noise.T, variance + np.diag(covariance)
    moving = variance > 0
    t = np.abs(deviations[moving] / np.sqrt(variance[moving])[:, None])
    return np.sort(t.max(axis=0)) if moving.any() else np.zeros(0)


def single_level(largest: Floats, comparisons: int, level: float) -> float:
    """Confidence level of each comparison, by its own t distribution, at which all of them hold together at ``level``.

    The max-t critical value z gives each the error 2 Phi(-z), between that of one comparison and Bonferroni's.
    """
    error = 1 - level
    critical = np.quantile(largest, level, method="higher") if len(largest) else np.inf
    return 1 - float(np.clip(2 * scipy.special.ndtr(-critical), error / comparisons, error))


def simultaneous_p(largest: Floats, p: Floats) -> Floats:
    """(A,) p-values that answer for all comparisons together (single step), from p-values of one comparison each."""
    bound = np.minimum(len(p) * p, 1.0)
    if not len(largest):
        return np.asarray(bound)
    beyond = len(largest) - np.searchsorted(largest, -scipy.special.ndtri(p / 2), "left")
    return np.clip((1 + beyond) / (1 + len(largest)), p, bound)


def holm(p: Floats) -> Floats:
    """(...) p-values adjusted over all of them by Holm (1979); NaN stays NaN and is not counted."""
    flat = p.ravel()
    known = np.flatnonzero(np.isfinite(flat))
    order = known[np.argsort(flat[known], kind="stable")]
    result = np.full(flat.shape, np.nan)
    result[order] = np.minimum(np.maximum.accumulate(flat[order] * np.arange(len(order), 0, -1)), 1.0)
    return result.reshape(p.shape)


def rotating_ratio(fold: Integers) -> float:
    """Mean n_test / n_train in cases, where validation is the next fold, from (C,) folds 0 to K - 1, K >= 3."""
    size = np.bincount(fold)
    return float(np.mean(size / (size.sum() - size - np.roll(size, -1))))


def correlated_t(differences: Floats, n_test_by_n_train: float) -> dict[str, float] | None:
    """The t distribution of the true difference from (J,) differences by fold and n_test / n_train in cases.

    ``scale, variance_factor, t, df`` (J - 1), two-sided ``p``, ``low`` and ``high`` at ``LEVEL``, and the posterior
    probabilities ``below, within`` and ``above`` +-``ROPE``; None where the differences do not vary.
    """
    count, factor = len(differences), 1 / len(differences) + n_test_by_n_train
    spread = float(differences.std(ddof=1))
    if spread < 1e-12:
        return None
    centre, scale, df = float(differences.mean()), spread * factor**0.5, count - 1
    half = float(scipy.special.stdtrit(df, (1 + LEVEL) / 2)) * scale
    t = centre / scale
    ends = ((-ROPE - centre) / scale, (centre - ROPE) / scale, -abs(t))
    below, above, tail = (float(scipy.special.stdtr(df, end)) for end in ends)
    inference = {"t": t, "df": df, "p": 2 * tail, "low": centre - half, "high": centre + half}
    posterior = {"below": below, "within": max(0.0, 1 - below - above), "above": above}
    return {"scale": scale, "variance_factor": factor} | inference | posterior


def friedman(blocks: Floats, *, lower_is_better: bool = False) -> dict[str, Any]:
    """Friedman (1937) and Nemenyi (1963) over (n, k) scores of n >= 2 blocks and k >= 2 models; mean rank 1 is the best.

    The statistic is a chi-square with k - 1 degrees of freedom, corrected for ties; ``critical_difference`` of mean ranks
    q sqrt(k (k + 1) / 6 n), with q of the studentised range / sqrt 2.
    """
    n, k = blocks.shape
    # Scores that differ by rounding alone are tied.
    ranks = scipy.stats.rankdata(np.round(blocks if lower_is_better else -blocks, 12), axis=1)
    counts = [np.unique(row, return_counts=True)[1] for row in ranks]
    correction = 1 - sum(float((c**3 - c).sum()) for c in counts) / (n * k * (k**2 - 1))
    spread = 12 / (n * k * (k + 1)) * float((ranks.sum(axis=0) ** 2).sum()) - 3 * n * (k + 1)
    statistic = max(0.0, spread / correction) if correction > 1e-12 else 0.0
    p = float(scipy.special.chdtrc(k - 1, statistic))
    q = float(scipy.stats.studentized_range.ppf(LEVEL, k, np.inf)) / np.sqrt(2)
    nemenyi = {"critical_difference": float(q * np.sqrt(k * (k + 1) / (6 * n)))}
    return {"mean_rank": ranks.mean(axis=0).tolist(), "statistic": statistic, "p": p} | nemenyi
