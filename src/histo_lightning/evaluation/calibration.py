"""Logistic recalibration: how far probabilities are from the frequencies they promise.

logit P(malignant) = intercept + slope * logit(p). As in Van Calster et al. 2019 (BMC Medicine 17:230) the *slope* is that
of the joint fit (Cox 1958), the *intercept* is fitted with the slope held at 1 (calibration in the large).
"""

import numpy as np
import scipy

from histo_lightning.evaluation.levels import Units
from histo_lightning.evaluation.scores import SMALLEST_P, Statistic, unit_weights
from histo_lightning.evaluation.table import Floats, Integers

_STEPS, _REFIT_STEPS, _STEEPEST = 100, 25, 1e3
_SINGULAR = 1e-9
"""Determinant of the information below which a maximum counts as not finite (separated classes)."""


def logit(p: Floats) -> Floats:
    """log(p / (1 - p)) with p clipped by ``SMALLEST_P``; (n,) in [0, 1] to (n,) finite."""
    clipped = np.clip(p, SMALLEST_P, 1 - SMALLEST_P)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow; any shape."""
    return np.asarray(scipy.special.expit(x), np.float64)


def fit(truth: Integers, offset: Floats, design: Floats) -> Floats | None:
    """(k,) maximum-likelihood coefficients of (n,) truths in {0, 1} on an (n,) offset and an (n, k) design.

    By Newton steps that are halved until they climb; None without a finite maximum (separated classes, constant column).
    """

    def likelihood(beta: Floats) -> float:
        eta = offset + design @ beta
        return float(np.sum(truth * eta - np.logaddexp(0.0, eta)))

    beta = np.zeros(design.shape[1])
    height = likelihood(beta)
    for _ in range(_STEPS):
        mean = sigmoid(offset + design @ beta)
        information = design.T @ (design * (mean * (1 - mean))[:, None])
        try:
            step = np.linalg.solve(information, design.T @ (truth - mean))
        except np.linalg.LinAlgError:
            return None
        while (climbed := likelihood(beta + step)) < height - 1e-9:
            step = step / 2
        beta, height = beta + step, climbed
        if np.abs(beta).max() > _STEEPEST:
            return None
        if np.abs(step).max() < 1e-9 * (1 + np.abs(beta).max()):
            return beta
    return None


def refit(truth: Integers, offset: Floats, design: Floats, weights: Floats, start: Floats) -> Floats:
    """(k, B) coefficients as of ``fit`` with (n, B) weights, all at once from the (k,) unweighted fit; NaN for None."""
    width = design.shape[1]
    products = (design[:, :, None] * design[:, None, :]).reshape(len(design), width * width)
    beta = np.repeat(start[:, None], weights.shape[1], axis=1)
    result = np.full_like(beta, np.nan)
    active = np.arange(weights.shape[1])
    for _ in range(_REFIT_STEPS):
        mean = sigmoid(offset[:, None] + design @ beta[:, active])
        gradient = design.T @ (weights * (truth[:, None] - mean))
        information = (products.T @ (weights * mean * (1 - mean))).T.reshape(-1, width, width)
        solvable = np.linalg.det(information) > _SINGULAR
        active, weights = active[solvable], weights[:, solvable]
        step = np.linalg.solve(information[solvable], gradient.T[solvable][..., None])[..., 0].T
        beta[:, active] += step
        done = np.abs(step).max(axis=0) < 1e-6 * (1 + np.abs(beta[:, active]).max(axis=0))
        result[:, active[done]] = beta[:, active[done]]
        active, weights = active[~done], weights[:, ~done]
        if not len(active):
            break
    return result


def coefficient_of(units: Units, *, slope: bool) -> Statistic:
    """The calibration slope or intercept of weighted units of both classes; NaN where it has no finite value."""
    x, ones = logit(units.p), np.ones(len(units))
    offset, design = (0 * x, np.column_stack([ones, x])) if slope else (x, ones[:, None])
    start = None if slope and not np.ptp(x) else fit(units.truth, offset, design)

    def statistic(weights: Floats) -> Floats:
        result = np.full(len(weights), np.nan)
        if start is None:
            return result
        unweighted = (weights == 1).all(axis=1)  # the fit itself, which is finer than a refit
        result[unweighted] = start[-1]
        chunks = unit_weights(units, weights[~unweighted])
        drawn = [refit(units.truth, offset, design, chunk, start)[-1] for chunk in chunks]
        result[~unweighted] = np.concatenate([np.empty(0), *drawn])
        return result

    return statistic
