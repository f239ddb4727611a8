"""Several comparisons at once: max-t over joint resamples of cases, and Holm's adjustment."""

import numpy as np
import scipy

from histo_lightning.evaluation.table import Floats

USABLE = 0.99
"""Share of the resamples in which every difference must be defined."""


def largest_deviations(resampled: Floats, values: Floats, case_se: Floats, seed: int) -> Floats:
    """The joint null distribution of A differences: the largest |deviation| / SE among them in each resample.

    Each resample of cases deviates from the mean resample jointly over the levels; the deviations are scaled to the
    jackknife's case SE, and a normal deviation with the covariance S/R of the differences over the R training runs
    is added. So levels that share a reference and cases stay correlated as they are.

    Args:
        resampled: (A, B) differences in resamples of cases, NaN where undefined.
        values: (A, R) differences by replicate; case_se: (A,) standard errors over cases.
        seed: of the training deviations.

    Returns:
        (at most B,) sorted; empty where it is not needed (A = 1) or not known (fewer than 99 % defined resamples, or no
        variation at all), and Bonferroni's bound takes its place.
    """
    count, replicates = values.shape
    usable = resampled[:, np.isfinite(resampled).all(axis=0)]
    if count == 1 or usable.shape[1] < max(USABLE * resampled.shape[1], 1):
        return np.zeros(0)
    centred = usable - usable.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1)
    scale = np.divide(case_se, spread, out=np.zeros(count), where=spread > 0)
    deviations, variance = centred * scale[:, None], case_se**2
    if replicates > 1:
        covariance = np.cov(values) / replicates
        sizes, axes = np.linalg.eigh(covariance)
        # The symmetric root does not depend on the order of the replicates.
        root = axes @ np.diag(np.sqrt(np.maximum(sizes, 0))) @ axes.T
        noise = np.random.default_rng([seed, 1]).standard_normal((deviations.shape[1], count))
        deviations, variance = deviations + root @ noise.T, variance + np.diag(covariance)
    moving = variance > 0
    if not moving.any():
        return np.zeros(0)
    return np.sort(np.abs(deviations[moving] / np.sqrt(variance[moving])[:, None]).max(axis=0))


def single_level(largest: Floats, comparisons: int, level: float) -> float:
    """Confidence level of each comparison at which all of them hold together at ``level``.

    The max-t critical value z gives the error 2 Phi(-z) to each comparison, which then is read off each difference's
    own t distribution. It lies between the error of one comparison (A = 1, or levels that move together) and
    Bonferroni's, which always is enough.
    """
    error = 1 - level
    if not len(largest):
        return 1 - error / comparisons
    critical = np.quantile(largest, level, method="higher")
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
    stepped = flat[order] * np.arange(len(order), 0, -1)
    result = np.full(flat.shape, np.nan)
    result[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return result.reshape(p.shape)
