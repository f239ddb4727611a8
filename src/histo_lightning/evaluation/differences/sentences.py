"""What a difference allows to say, in words that point both ways, and what it cannot decide."""

from collections.abc import Mapping
from typing import Any

import scipy

from histo_lightning.evaluation.named_scores import NamedScore, named_score

REGIONS = (0.01, 0.03, 0.05)
"""Half widths of the regions of practical equivalence: 1, 3 and 5 points."""
DETECTABLE = 2.95
"""Minimum detectable difference in SE: about t_.975 + t_.80 at some 20 degrees of freedom (power 80 %)."""
ENOUGH = 0.95
CONDITIONAL = "conditional on the fitted models; another training run may differ by more than this interval"
SCOPE = "For this recipe, budget and laboratory."
NO_SPREAD = "both agree on every case and in every run (zero spread), so there is no standard error"


def sentence(pair: Mapping[str, Any], record: Mapping[str, Any], *, equal_budget: bool) -> str:
    """The two-sided conclusion of one comparison, in the form of ``STATISTICS.md`` section 5.

    Args:
        pair: of ``record``, with ``arm``, ``reference``, ``difference``, ``se`` and interval ends.
        record: of the whole comparison, with ``score``, ``primary``, ``magnifications``, ``cases``, ``replicates`` and what
            they are.
        equal_budget: whether the levels were trained alike but for what is compared.
    """
    score, count = named_score(record["score"]), len(record["magnifications"])
    kind, prefix = ("simultaneous", "simultaneous_") if record["primary"] else ("exploratory", "")
    low, high = pair[f"{prefix}low"], pair[f"{prefix}high"]
    unit = "" if score.lower_is_better else " points"
    text = f"{score.words[0].upper()}{score.words[1:]}{f', mean over {count} magnifications' if count > 1 else ''}: "
    text += f"{'at equal budget ' if equal_budget else ''}{pair['arm']} minus {pair['reference']} is "
    text += f"{_signed(pair['difference'], score)}{unit}"
    one_seed = record["replicates"] == 1
    benign, malignant = record["cases"]["benign"], record["cases"]["malignant"]
    seeds = str(record["replicates_are"])
    seeds = seeds.replace("repeats", "repeat").replace("seeds", "seed") if one_seed else seeds
    rests = f"{benign + malignant} cases, {benign} benign; {record['replicates']} {seeds}"
    if low is None or high is None:
        return f"{text} ({rests}); {NO_SPREAD}, and nothing follows for other cases or training runs. {SCOPE}"
    detectable = DETECTABLE * pair["se"]
    smallest = _size(detectable, score, 0 if 100 * detectable >= 1.95 else 1)
    text += (
        f" ({kind} 95 % interval {_signed(low, score)} to {_signed(high, score)}; {rests}). "
        f"{_limits(low, high, score, unit)} are not compatible with these data at that level; "
        f"differences below about {smallest}{unit} could not have been detected reliably. "
    )
    text += "Lower is better. " if score.lower_is_better else ""
    text += f"{CONDITIONAL[0].upper()}{CONDITIONAL[1:]}. " if one_seed else ""
    return text + SCOPE


def _size(value: float, score: NamedScore, decimals: int = 1) -> str:
    """A magnitude without its unit: points (100 x score), or the score's own unit for errors."""
    return f"{abs(value):.3f}" if score.lower_is_better else f"{100 * abs(value):.{decimals}f}"


def _signed(value: float, score: NamedScore) -> str:
    size = _size(value, score)
    return size if not float(size) else ("-" if value < 0 else "+") + size


def _limits(low: float, high: float, score: NamedScore, unit: str) -> str:
    """What lies outside the interval, on both sides."""
    up, down = ("an increase", "a decrease") if score.lower_is_better else ("a gain", "a loss")
    top, bottom = _size(high, score), _size(low, score)
    if low > 0:
        text = f"{up} above {top}{unit}, {up} below {bottom}{unit} and any {down.split()[1]}"
    elif high < 0:
        text = f"{down} above {bottom}{unit}, {down} below {top}{unit} and any {up.split()[1]}"
    else:
        text = f"{up} above {top} and {down} above {bottom}{unit}"
    return f"A{text[1:]}"


def equivalence(difference: float, se: float, df: float, region: float, score: NamedScore) -> dict[str, Any]:
    """Judge one region of practical equivalence from a difference with its standard error and degrees of freedom.

    Returns:
        ``region``, its half width in units of the score; ``p_region``, the probability of a true difference inside it,
        the t distribution read as a posterior (flat prior); ``largest_reachable``, the same if the difference were
        exactly 0: the most that these cases can show; and the verdict in ``words``. Without a standard error both
        probabilities are None.
    """
    if score.lower_is_better:
        name = f"equivalence within +-{region:g}"
    else:
        name = f"equivalence within +-{100 * region:g} point{'' if round(100 * region) == 1 else 's'}"
    inside = reachable = None
    verdict = f"is not judged: {NO_SPREAD}"
    if se > 0:
        above, below, at_zero = ((x / se) for x in (region - difference, -region - difference, -region))
        inside = float(scipy.special.stdtr(df, above) - scipy.special.stdtr(df, below))
        reachable = float(1 - 2 * scipy.special.stdtr(df, at_zero))
        verdict = f"is {'supported' if inside >= ENOUGH else 'not shown'} (probability {inside:.2f})"
        if reachable < ENOUGH:
            verdict = "cannot be shown with these cases"
    return {
        "region": region,
        "p_region": inside,
        "largest_reachable": reachable,
        "words": f"{name} {verdict}",
    }
