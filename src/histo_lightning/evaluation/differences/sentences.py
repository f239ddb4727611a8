"""What a difference allows to say, in words that point both ways, and what it cannot decide."""

from typing import Any, NamedTuple

import scipy

from histo_lightning.evaluation.named_scores import NamedScore

REGIONS = (0.01, 0.03, 0.05)
"""Half widths of the regions of practical equivalence: 1, 3 and 5 points."""
DETECTABLE = 2.95
"""Minimum detectable difference in SE: about t_.975 + t_.80 at some 20 degrees of freedom (power 80 %)."""
ENOUGH = 0.95
CONDITIONAL = "conditional on the fitted models; another training run may differ by more than this interval"
SCOPE = "For this recipe, budget and laboratory."
NO_SPREAD = "both agree on every case and in every run (zero spread), so there is no standard error"


class Context(NamedTuple):
    """What every sentence of one comparison says."""

    score: NamedScore
    magnifications: int  # that the score is averaged over
    cases: str  # e.g. ``70 cases, 16 benign``
    seeds: str  # e.g. ``5 seeds`` or ``3 repeats of the split``
    one_seed: bool
    simultaneous: bool  # the interval is one of a family fixed beforehand; else exploratory
    equal_budget: bool  # the levels were trained alike but for what is compared


def sentence(
    name: str,
    reference: str,
    difference: float,
    se: float,
    interval: tuple[float | None, float | None],
    context: Context,
) -> str:
    """The two-sided conclusion of one comparison, in the form of ``STATISTICS.md`` section 5.

    Args:
        name: the level that is compared with ``reference``.
        difference, se: level minus reference and its standard error, in units of the score.
        interval: the ends to tell; None where there is none.
    """
    score, (low, high) = context.score, interval
    over = f", mean over {context.magnifications} magnifications" if context.magnifications > 1 else ""
    budget = "at equal budget " if context.equal_budget else ""
    unit = "" if score.lower_is_better else " points"
    start = f"{score.words[0].upper()}{score.words[1:]}{over}: {budget}{name} minus {reference} is "
    start += f"{_signed(difference, score)}{unit}"
    rests = f"{context.cases}; {context.seeds}"
    if low is None or high is None:
        return (
            f"{start} ({rests}); {NO_SPREAD}, and nothing follows for other cases or training runs. {SCOPE}"
        )
    kind = "simultaneous" if context.simultaneous else "exploratory"
    detectable = DETECTABLE * se
    smallest = _size(detectable, score, 0 if 100 * detectable >= 1.95 else 1)
    return (
        f"{start} ({kind} 95 % interval {_signed(low, score)} to {_signed(high, score)}; {rests}). "
        f"{_limits(low, high, score, unit)} are not compatible with these data at that level; "
        f"differences below about {smallest}{unit} could not have been detected reliably. "
        f"{'Lower is better. ' if score.lower_is_better else ''}"
        f"{f'{CONDITIONAL[0].upper()}{CONDITIONAL[1:]}. ' if context.one_seed else ''}{SCOPE}"
    )


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
