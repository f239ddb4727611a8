"""What a difference allows to say, in words that point both ways, and what it cannot decide."""

from collections.abc import Mapping
from typing import Any

import scipy

from histo_lightning.evaluation.registry import Score, named_score

REGIONS = (0.01, 0.03, 0.05)
"""Half widths of the regions of practical equivalence: 1, 3 and 5 points."""
DETECTABLE = 2.95
"""Minimum detectable difference in SE: about t_.975 + t_.80 at some 20 degrees of freedom (power 80 %)."""
ENOUGH = 0.95
CONDITIONAL = "conditional on the fitted models; another training run may differ by more than this interval"
SCOPE = "For this recipe, budget and laboratory."
NO_SPREAD = "both agree on every case and in every run (zero spread), so there is no standard error"


def sentence(pair: Mapping[str, Any], record: Mapping[str, Any], *, equal_budget: bool) -> str:
    """The two-sided conclusion of a pair of a record of ``compare_levels``, as section 5 of ``STATISTICS.md`` has it."""
    level, score = named_score(record["score"])
    count, replicates = len(record["magnifications"]), record["replicates"]
    kind, prefix = ("simultaneous", "simultaneous_") if record["primary"] else ("exploratory", "")
    low, high = pair[f"{prefix}low"], pair[f"{prefix}high"]
    unit = "" if score.lower_is_better else " points"
    over = f", mean over {count} magnifications" if count > 1 else ""
    text = f"{level.capitalize()}-level {score.words}{over}: {'at equal budget ' if equal_budget else ''}"
    text += f"{pair['arm']} minus {pair['reference']} is {_signed(pair['difference'], score)}{unit}"
    seeds = str(record["replicates_are"])
    seeds = seeds.replace("repeats", "repeat").replace("seeds", "seed") if replicates == 1 else seeds
    benign, malignant = record["cases"]["benign"], record["cases"]["malignant"]
    rests = f"{benign + malignant} cases, {benign} benign; {replicates} {seeds}"
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
    text += f"{CONDITIONAL[0].upper()}{CONDITIONAL[1:]}. " if replicates == 1 else ""
    return text + SCOPE


def _size(value: float, score: Score, decimals: int = 1) -> str:
    """A magnitude without its unit: points (100 x score), or the score's own unit for errors."""
    return f"{abs(value):.3f}" if score.lower_is_better else f"{100 * abs(value):.{decimals}f}"


def _signed(value: float, score: Score) -> str:
    size = _size(value, score)
    return size if not float(size) else ("-" if value < 0 else "+") + size


def _limits(low: float, high: float, score: Score, unit: str) -> str:
    up, down = ("an increase", "a decrease") if score.lower_is_better else ("a gain", "a loss")
    far, near = _size(high, score), _size(low, score)
    if high < 0:
        up, down, far, near = down, up, near, far
    other = f", {up} below {near}{unit} and any {down.split()[1]}"
    text = (
        f"{up} above {far} and {down} above {near}{unit}"
        if low <= 0 <= high
        else f"{up} above {far}{unit}{other}"
    )
    return text[0].upper() + text[1:]


def equivalence(difference: float, se: float, df: float, region: float, score: Score) -> dict[str, Any]:
    """Judge a region of practical equivalence (half width in units of the score) from a difference, its SE and df.

    ``p_region`` is the probability of a true difference inside it, the t distribution read as a posterior (flat prior);
    ``largest_reachable`` the same if the difference were 0: the most that these cases can show. None without an SE.
    """
    points = f"{100 * region:g} point{'s' * (round(100 * region) != 1)}"
    size = f"{region:g}" if score.lower_is_better else points
    inside = reachable = None
    verdict = f"is not judged: {NO_SPREAD}"
    if se > 0:
        above, below, at_zero = ((x / se) for x in (region - difference, -region - difference, -region))
        inside = float(scipy.special.stdtr(df, above) - scipy.special.stdtr(df, below))
        reachable = float(1 - 2 * scipy.special.stdtr(df, at_zero))
        verdict = f"is {'supported' if inside >= ENOUGH else 'not shown'} (probability {inside:.2f})"
        if reachable < ENOUGH:
            verdict = "cannot be shown with these cases"
    words = f"equivalence within +-{size} {verdict}"
    return {"region": region, "p_region": inside, "largest_reachable": reachable, "words": words}
