"""95 % intervals of one model's scores: what another sample of cases from the same source would give.

Cases are drawn again within benign and malignant: *expanded BCa* (``STATISTICS.md`` section 4). Independent cases have
closed forms: Wilson 1927, MOVER (Zou and Donner 2008), Newcombe 2006 (Stat Med 25:559-573, method 5) for the AUROC.
"""

from collections.abc import Sequence

import numpy as np

from histo_lightning.data.breakhis.names import CLASSES, SUBTYPES
from histo_lightning.evaluation.levels import Units, kish
from histo_lightning.evaluation.registry import EXPANDED_BCA, MOVER, NEWCOMBE, Score
from histo_lightning.evaluation.scores import Statistic, value_of
from histo_lightning.evaluation.table import Floats, Integers, Json

Pair = tuple[float, float]
Support = dict[str, Integers]
"""The cases a score rests on: by group (class or subtype), the number of units of each of its cases."""

FEWEST_CASES = 5
"""A class with fewer cases has no bootstrap interval and counts in no headline average."""
Z = 1.959963984540054
"""The 97.5 % point of the standard normal."""
SMALLEST_SPREAD = 1e-12
USABLE = 0.99
"""Share of the draws in which a score must be defined."""
_FIELDS = ("low", "high", "method", "cases", "cases_smaller_class", "kish", "draws")


def no_interval(reason: str) -> Json:
    """The fields of a score without an interval in ``metrics.json``, and the reason."""
    return dict.fromkeys(_FIELDS) | {"reason": reason}


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

    The ends are the t with (t - auroc)^2 = z^2 V(t), V(t) = t (1 - t) (1 + N (1 - t)/(2 - t) + N t/(1 + t)) / (m n),
    N = (m + n)/2 - 1: the middle two roots of a quartic with one on each of [-1, 0], [0, auroc], [auroc, 1] and [1, 2].
    """
    pairs, mean_less_one = benign * malignant, (benign + malignant) / 2 - 1
    t = np.polynomial.Polynomial([0.0, 1.0])
    denominator = (2 - t) * (1 + t)
    spread = t * (1 - t) * (denominator + mean_less_one * ((1 - t) * (1 + t) + t * (2 - t)))
    roots = np.sort((pairs * (t - auroc) ** 2 * denominator - Z**2 * spread).roots().real)
    return float(np.clip(roots[1], 0, auroc)), float(np.clip(roots[2], auroc, 1))


def case_weights(case_class: Integers, draws: int, seed: int) -> Floats:
    """(draws, C) counts of each case in bootstrap draws of as many cases within each class."""
    random = np.random.default_rng(seed)
    weights = np.zeros((draws, len(case_class)))
    for c, n in zip(*np.unique(case_class, return_counts=True), strict=True):
        weights[:, case_class == c] = random.multinomial(n, np.full(n, 1 / n), size=draws)
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

    ``value`` is the score itself, ``draws`` (B,) finite bootstrap scores, ``a`` the ``acceleration``.
    """
    from scipy.special import ndtr, ndtri

    below = ((draws < value).mean() + (draws <= value).mean()) / 2
    z0 = float(ndtri(np.clip(below, 0.5 / len(draws), 1 - 0.5 / len(draws))))

    def limit(normal_point: float) -> float:
        shifted = z0 + normal_point
        slack = 1 - a * shifted
        # Past its pole the correction asks for the outermost draw.
        level = float(ndtr(z0 + shifted / slack)) if slack > 0 else float(shifted > 0)
        return float(np.quantile(draws, level))

    return limit(-z), limit(z)


def class_support(units: Units, names: Sequence[str] = CLASSES, classes: Sequence[int] = ()) -> Support:
    """The cases of all or some ``CLASSES``, or of subtypes where ``names`` is ``SUBTYPES``."""
    label = units.truth if names is SUBTYPES else units.case_class[units.case]
    chosen = classes or range(len(names))
    return {names[c]: np.unique(units.case[label == c], return_counts=True)[1] for c in chosen}


def too_few(support: Support) -> str | None:
    """The reason against a bootstrap, if a group is too small for one."""
    few = [f"{len(sizes)} {name}" for name, sizes in support.items() if len(sizes) < FEWEST_CASES]
    return f"fewer than {FEWEST_CASES} cases of a class here ({', '.join(few)})" if few else None


def _interval(support: Support, ends: Pair, method: str, draws: int | None = None) -> Json:
    counts = [len(sizes) for sizes in support.values()]
    values = (*ends, method, sum(counts), min(counts), min(map(kish, support.values())), draws)
    return dict(zip(_FIELDS, values, strict=True))


def bootstrap(units: Units, statistic: Statistic, weights: Floats, support: Support) -> Json:
    """The expanded BCa interval of a statistic from (draws, C) case weights, or the reason why there is none.

    kappa is the smallest Kish number among the score's classes by image, the smallest number of cases else.
    """
    if reason := too_few(support):
        return no_interval(reason)
    draws = statistic(weights)
    usable = draws[np.isfinite(draws)]
    if len(usable) < USABLE * len(draws):
        return no_interval(f"undefined in {len(draws) - len(usable)} of {len(draws)} draws")
    if np.ptp(usable) < SMALLEST_SPREAD:
        return no_interval("zero spread: every draw of cases gives the same value")
    kappa = float(min(map(kish if units.level == "image" else len, support.values())))
    if kappa < 2:
        return no_interval(f"one case dominates its class (effectively {kappa:.1f} cases)")
    left_out = statistic(1 - np.eye(len(units.cases)))
    defined = np.isfinite(left_out)
    by_class = [left_out[(units.case_class == c) & defined] for c in np.unique(units.case_class)]
    ends = bca(value_of(statistic, units), usable, acceleration(by_class), expanded_z(kappa))
    return _interval(support, ends, EXPANDED_BCA, len(draws))


def interval_of(score: Score, units: Units, statistic: Statistic, value: float, weights: Floats) -> Json:
    """The interval of a defined score of known cases from (draws, C) case weights, or why there is none."""
    by_subtype = class_support(units, SUBTYPES) if score.averages_classes else {}
    if rare := [name for name, sizes in by_subtype.items() if 0 < len(sizes) < FEWEST_CASES]:
        return no_interval(f"fewer than {FEWEST_CASES} cases of {', '.join(rare)}")
    names = SUBTYPES if score.task == "subtype" and score.classes else CLASSES
    support = class_support(units, names, score.classes)
    if units.level != "case" or score.case_interval == EXPANDED_BCA:
        return bootstrap(units, statistic, weights, support)
    right = units.decision == units.truth
    by_class = [right[units.truth == c] for c in (0, 1)]
    (b, n), (a, m) = ((int(own.sum()), len(own)) for own in by_class)
    if score.case_interval == NEWCOMBE:
        ends = newcombe_auroc(value, n, m)
    elif score.case_interval == MOVER:
        ends = mover_mean(a / m, b / n, wilson(a, m), wilson(b, n))
    else:
        counted = right[np.isin(units.truth, score.classes)] if score.classes else right
        ends = wilson(int(counted.sum()), len(counted))
    return _interval(support, ends, score.case_interval)
