"""Several comparisons at once: max-t over joint resamples of cases, and Holm's adjustment."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from histo_lightning.evaluation.paired import Floats

USABLE = 0.99
"""Share of the resamples in which every difference must be defined."""


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """A family of A comparisons with their joint null distribution.

    Attributes:
        largest: (B,) sorted: the largest |deviation| / SE of the family in each resample; empty for A = 1.
        comparisons: A.
    """

    largest: Floats
    comparisons: int

    def level(self, level: float) -> float:
        """Confidence level of each comparison at which all of them hold together at ``level``.

        The max-t critical value z gives the error 2 Phi(-z) to each comparison, which then is read off each
        difference's own t distribution. It lies between the error of one comparison (A = 1, or arms that move
        together) and Bonferroni's, which always is enough.
        """
        from scipy.special import ndtr

        error = 1 - level
        if self.comparisons == 1:
            return level
        critical = np.quantile(self.largest, level, method="higher")
        return 1 - float(np.clip(2 * ndtr(-critical), error / self.comparisons, error))

    def adjusted(self, p: Floats) -> Floats:
        """(A,) p-values that answer for the whole family (single step), from p-values of one comparison each."""
        from scipy.special import ndtri

        if self.comparisons == 1:
            return p
        beyond = len(self.largest) - np.searchsorted(self.largest, -ndtri(p / 2), "left")
        return np.clip((1 + beyond) / (1 + len(self.largest)), p, np.minimum(self.comparisons * p, 1.0))


def family(resampled: Floats, values: Floats, case_se: Floats, seed: int) -> Family | None:
    """The joint null distribution of A differences.

    Each resample of cases deviates from the mean resample jointly over the arms; the deviations are scaled to the
    jackknife's case SE, and a normal deviation with the covariance S/R of the differences over the R training runs
    is added. So arms that share a reference and cases stay correlated as they are.

    Args:
        resampled: (A, B) differences in resamples of cases, NaN where undefined.
        values: (A, R) differences by replicate.
        case_se: (A,) standard errors over cases.
        seed: of the training deviations.

    Returns:
        None where fewer than 99 % of the resamples are defined.
    """
    count, replicates = values.shape
    if count == 1:
        return Family(np.zeros(0), 1)
    usable = resampled[:, np.isfinite(resampled).all(axis=0)]
    if usable.shape[1] < max(USABLE * resampled.shape[1], 1):
        return None
    centred = usable - usable.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1)
    scale = np.divide(case_se, spread, out=np.zeros(count), where=spread > 0)
    deviations = centred * scale[:, None]
    variance = case_se**2
    if replicates > 1:
        covariance = np.cov(values) / replicates
        sizes, axes = np.linalg.eigh(covariance)
        # The symmetric root does not depend on the order of the replicates.
        root = axes @ np.diag(np.sqrt(np.maximum(sizes, 0))) @ axes.T
        noise = np.random.default_rng([seed, 1]).standard_normal((deviations.shape[1], count))
        deviations = deviations + root @ noise.T
        variance = variance + np.diag(covariance)
    moving = variance > 0
    if not moving.any():
        return None
    largest = np.abs(deviations[moving] / np.sqrt(variance[moving])[:, None]).max(axis=0)
    return Family(np.sort(largest), count)


def holm(p: Floats) -> Floats:
    """(...) p-values adjusted over all of them by Holm (1979); NaN stays NaN and is not counted."""
    flat = p.ravel()
    known: NDArray[np.intp] = np.flatnonzero(np.isfinite(flat))
    order = known[np.argsort(flat[known], kind="stable")]
    stepped = flat[order] * np.arange(len(order), 0, -1)
    result = np.full(flat.shape, np.nan)
    result[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return result.reshape(p.shape)
