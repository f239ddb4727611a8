"""95 % intervals of one model's scores: what another sample of cases from the same source would give.

Bootstrap: cases are drawn again within benign and malignant, and the interval is the *expanded BCa* of the
protocol (``STATISTICS.md`` section 4). Closed forms at case level: Wilson 1927 for proportions, MOVER (Zou and
Donner 2008) for the balanced accuracy, Newcombe 2006 (Stat Med 25:559-573, method 5) for the AUROC.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Pair = tuple[float, float]

FEWEST_CASES = 5
"""A class with fewer cases has no bootstrap interval and counts in no headline average."""
Z = 1.959963984540054
"""The 97.5 % point of the standard normal."""
SMALLEST_SPREAD = 1e-12

EXPANDED_BCA = "expanded BCa over cases"
NEWCOMBE = "Newcombe method 5"
WILSON = "Wilson"
MOVER = "MOVER of two Wilson intervals"


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval, or the reason why there is none.

    Attributes:
        low, high: the ends, None without an interval.
        method: how it was made.
        cases, cases_smaller_class: the cases that the score rests on, and those of the rarer class among them.
        kish: effective number of cases of that class, by its units here.
        draws: bootstrap draws, None for a closed form.
        reason: why there is no interval.
    """

    low: float | None = None
    high: float | None = None
    method: str | None = None
    cases: int | None = None
    cases_smaller_class: int | None = None
    kish: float | None = None
    draws: int | None = None
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON; ``reason`` only where there is one."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        if self.reason is None:
            del fields["reason"]
        return fields


def wilson(successes: float, n: int) -> Pair:
    """Score interval of a proportion (Wilson 1927), n >= 1."""
    share = successes / n
    middle = share + Z**2 / (2 * n)
    half = Z * np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    scale = 1 + Z**2 / n
    return max(0.0, float((middle - half) / scale)), min(1.0, float((middle + half) / scale))


def mover_mean(first: float, second: float, first_interval: Pair, second_interval: Pair) -> Pair:
    """Interval of (first + second) / 2 from the intervals of two independent estimates (Zou and Donner 2008)."""
    middle = (first + second) / 2
    below = np.hypot(first - first_interval[0], second - second_interval[0]) / 2
    above = np.hypot(first_interval[1] - first, second_interval[1] - second) / 2
    return float(middle - below), float(middle + above)


def newcombe_auroc(auroc: float, benign: int, malignant: int) -> Pair:
    """Interval of an AUROC over independent units (Newcombe 2006, method 5).

    The ends are the t with (t - auroc)^2 = z^2 V(t),
    V(t) = t (1 - t) (1 + N (1 - t)/(2 - t) + N t/(1 + t)) / (m n), N = (m + n)/2 - 1: Hanley and McNeil's variance
    with both class sizes replaced by their mean. Times (2 - t)(1 + t) it is a quartic that changes sign on
    [-1, 0], [0, auroc], [auroc, 1] and [1, 2]; the middle two roots are the ends.
    """
    from numpy.polynomial import Polynomial

    pairs, mean_less_one = benign * malignant, (benign + malignant) / 2 - 1
    t = Polynomial([0.0, 1.0])
    denominator = (2 - t) * (1 + t)
    spread = t * (1 - t) * (denominator + mean_less_one * ((1 - t) * (1 + t) + t * (2 - t)))
    quartic = pairs * (t - auroc) ** 2 * denominator - Z**2 * spread
    roots = np.sort(quartic.roots().real)
    return float(np.clip(roots[1], 0, auroc)), float(np.clip(roots[2], auroc, 1))


def case_weights(case_class: NDArray[np.int64], draws: int, seed: int) -> Floats:
    """(draws, C) counts of each case in bootstrap draws of as many cases within each class."""
    random = np.random.default_rng(seed)
    weights = np.zeros((draws, len(case_class)))
    for c in np.unique(case_class):
        members = np.flatnonzero(case_class == c)
        weights[:, members] = random.multinomial(
            len(members), np.full(len(members), 1 / len(members)), size=draws
        )
    return weights


def acceleration(left_out: Sequence[Floats]) -> float:
    """BCa acceleration from leave-one-case-out scores, (n_c,) for each class c (Efron and Tibshirani 1993, ch. 14).

    Influences l = (n_c - 1)/n_c (mean - t_(-i)); a = sum l^3 / (6 (sum l^2)^1.5); 0 without any influence.
    """
    influences = np.concatenate([(len(t) - 1) / len(t) * (t.mean() - t) for t in left_out])
    spread = float((influences**2).sum())
    return float((influences**3).sum()) / (6 * spread**1.5) if spread > SMALLEST_SPREAD**2 else 0.0


def expanded_z(kappa: float) -> float:
    """Expanded normal point sqrt(kappa/(kappa - 1)) t_(kappa - 1, .975) (Hesterberg 2015); kappa > 1 cases."""
    from scipy.special import stdtrit

    return float(np.sqrt(kappa / (kappa - 1)) * stdtrit(kappa - 1, 0.975))


def bca(value: float, draws: Floats, a: float, z: float = Z) -> Pair:
    """Bias-corrected accelerated interval (Efron 1987) at normal points -z and z, ties counted half.

    Args:
        value: the score itself; draws: (B,) finite bootstrap scores; a: ``acceleration``; z: ``expanded_z`` or Z.
    """
    from scipy.special import ndtr, ndtri

    below = ((draws < value).mean() + (draws <= value).mean()) / 2
    z0 = float(ndtri(np.clip(below, 0.5 / len(draws), 1 - 0.5 / len(draws))))

    def end(normal_point: float) -> float:
        shifted = z0 + normal_point
        slack = 1 - a * shifted
        # Past its pole the correction asks for the outermost draw.
        level = float(ndtr(z0 + shifted / slack)) if slack > 0 else float(shifted > 0)
        return float(np.quantile(draws, level))

    return end(-z), end(z)
