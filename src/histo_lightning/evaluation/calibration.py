"""Calibration: how far probabilities are from frequencies; temperature and operating point, fitted on validation only.

Logistic recalibration: logit P(malignant) = intercept + slope * logit(p). As in Van Calster et al. 2019 (BMC Medicine 17:230)
the *slope* is that of the joint fit (Cox 1958), the *intercept* is fitted with the slope held at 1 (calibration in the large).
Temperature and operating point weigh every case alike (*case-balanced*: an image counts 1 / images of its case), because a
case of 500 images would otherwise decide alone; where some image has no case they weigh images alike and say so.
"""

from dataclasses import replace

import numpy as np

from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.errors import UserError
from histo_lightning.evaluation.levels import Units, is_grouped
from histo_lightning.evaluation.scores import SMALLEST_P, Statistic, ratio, unit_weights
from histo_lightning.evaluation.table import Floats, Integers, Json, Table, malignant_share, softmax

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0
_STEPS, _REFIT_STEPS, _STEEPEST = 100, 25, 1e3
_SINGULAR = 1e-9
"""Determinant of the information below which a maximum counts as not finite (separated classes)."""


def logit(p: Floats) -> Floats:
    """log(p / (1 - p)) with p clipped by ``SMALLEST_P``; (n,) in [0, 1] to (n,) finite."""
    clipped = np.clip(p, SMALLEST_P, 1 - SMALLEST_P)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow; any shape."""
    from scipy.special import expit  # here: it takes a while to import

    return np.asarray(expit(x), np.float64)


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


def _weighted(table: Table, apparent: bool) -> tuple[Floats, Json]:
    """(N,) weight of each image, and what a fit on the table rests on; UserError for another part than val."""
    parts = sorted({str(part) for part in table.part})
    if not apparent and parts != ["val"]:
        raise UserError(
            f"predictions: part {', '.join(parts)} given to fit a threshold or temperature; only validation (val) may "
            "choose them (pooled out-of-fold predictions: apparent=True, for future data)"
        )
    _, index, counts = np.unique(table.case, return_inverse=True, return_counts=True)
    cases: Json = {f"cases_{c}": len(np.unique(table.case[table.class_name == c])) for c in CLASSES[::-1]}
    weights, weighting = 1.0 / counts[index], "case-balanced"
    if not is_grouped(table):
        weights, weighting = np.ones(len(table)), "images alike (GROUPING UNKNOWN)"
        cases = dict.fromkeys(cases)
    return weights, {"weighting": weighting, "apparent": apparent, "images": len(table)} | cases


def operating_point(table: Table, sensitivity: float = 0.95, *, apparent: bool = False) -> Json:
    """The highest threshold on ``p_malignant`` whose case-balanced sensitivity by image reaches a wanted one.

    Of validation predictions, or with ``apparent`` of pooled out-of-fold ones, for future data.

    Returns:
        ``threshold`` (malignant at p >= it), ``wanted_sensitivity``, the ``sensitivity`` and ``specificity`` reached
        (null without benign images), and what they rest on; UserError for another part or no malignant image.
    """
    weights, basis = _weighted(table, apparent)
    if not 0 < sensitivity <= 1:
        raise UserError(f"sensitivity={sensitivity}: give a number above 0, at most 1")
    malignant = table.malignant == 1
    if not malignant.any():
        raise UserError("predictions: no malignant image in validation; an operating point needs some")
    order = np.argsort(-table.p_malignant[malignant], kind="stable")
    ranked = table.p_malignant[malignant][order]
    reached = np.cumsum(weights[malignant][order]) / weights[malignant].sum()
    # Equal probabilities are called alike, so the sensitivity at a value counts to its last image.
    threshold = float(ranked[np.argmax(reached >= sensitivity - 1e-12)])
    right = (table.p_malignant >= threshold) == malignant
    shares = [ratio(weights[own & right].sum(), weights[own].sum()) for own in (malignant, ~malignant)]
    return {
        "threshold": threshold,
        "wanted_sensitivity": float(sensitivity),
        "sensitivity": float(shares[0]),
        "specificity": None if malignant.all() else float(shares[1]),
    } | basis


def fit_temperature(table: Table, *, apparent: bool = False) -> Json:
    """The temperature T that minimises the case-balanced log loss of softmax(logits / T) (Guo et al. 2017).

    The loss is convex in 1/T, so its slope is bisected on a logarithmic scale between .05 and 20. Beside ``temperature``:
    ``at_bound`` (no optimum inside: e.g. every image is right), ``log_loss_before`` and ``log_loss_after`` in nats, and what
    it rests on; UserError for another part than val.
    """
    weights, basis = _weighted(table, apparent)
    rows = np.arange(len(table))

    def loss(temperature: float) -> float:
        chosen = np.maximum(softmax(table.logits / temperature)[rows, table.label], SMALLEST_P)
        return float(weights @ -np.log(chosen) / weights.sum())

    def slope(temperature: float) -> float:
        """Derivative of the loss by 1/T: expected less true logit."""
        expected = (softmax(table.logits / temperature) * table.logits).sum(axis=1)
        return float(weights @ (expected - table.logits[rows, table.label]))

    low, high = np.log(LOWEST_TEMPERATURE), np.log(HIGHEST_TEMPERATURE)
    at_bound = slope(LOWEST_TEMPERATURE) < 0 or slope(HIGHEST_TEMPERATURE) > 0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(float(np.exp(middle))) < 0 else (middle, high)
    temperature = float(np.exp((low + high) / 2))
    losses = {"log_loss_before": loss(1.0), "log_loss_after": loss(temperature)}
    return {"temperature": temperature, "at_bound": at_bound} | losses | basis


def apply_temperature(table: Table, temperature: float) -> Table:
    """The table with ``p_malignant`` from tempered logits; UserError unless the temperature is positive and finite."""
    if not (np.isfinite(temperature) and temperature > 0):
        raise UserError(f"temperature={temperature}: a temperature is a positive number")
    return replace(table, p_malignant=malignant_share(softmax(table.logits / temperature)))
