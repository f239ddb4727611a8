"""What a difference allows to say, in words that point both ways, and what it cannot decide."""

from dataclasses import dataclass

from histo_lightning.evaluation.named_scores import NamedScore

REGIONS = (0.01, 0.03, 0.05)
"""Half widths of the regions of practical equivalence: 1, 3 and 5 points."""
DETECTABLE = 2.95
"""Minimum detectable difference in SE: about t_.975 + t_.80 at some 20 degrees of freedom (power 80 %)."""
ENOUGH = 0.95
CONDITIONAL = "conditional on the fitted models; another training run may differ by more than this interval"
SCOPE = "For this recipe, budget and laboratory."
NO_SPREAD = "the two arms agree on every case and in every run (zero spread), so there is no standard error"


@dataclass(frozen=True, slots=True)
class Setting:
    """What every sentence of one comparison says.

    Attributes:
        score: what is compared by.
        magnifications: that the score is averaged over.
        cases, benign: numbers of cases.
        replicates: R; split_repeats: True where they are repeats of the split, False for seeds on one split.
        simultaneous: the interval told is one of a family fixed beforehand; else exploratory.
        equal_budget: whether the arms were trained alike but for what is compared.
    """

    score: NamedScore
    magnifications: int
    cases: int
    benign: int
    replicates: int
    split_repeats: bool
    simultaneous: bool
    equal_budget: bool

    @property
    def repeats(self) -> str:
        """E.g. ``5 seeds``."""
        plural = "" if self.replicates == 1 else "s"
        return (
            f"{self.replicates} repeat{plural} of the split"
            if self.split_repeats
            else f"{self.replicates} seed{plural}"
        )


def _size(value: float, score: NamedScore, decimals: int = 1) -> str:
    """A magnitude without its unit: points (100 x score), or the score's own unit for errors."""
    return f"{abs(value):.3f}" if score.lower_is_better else f"{100 * abs(value):.{decimals}f}"


def _signed(value: float, score: NamedScore) -> str:
    size = _size(value, score)
    if not float(size):
        return size
    return ("-" if value < 0 else "+") + size


def _unit(score: NamedScore) -> str:
    return "" if score.lower_is_better else " points"


def _limits(low: float, high: float, score: NamedScore) -> str:
    """What lies outside the interval, on both sides."""
    up, down = ("increase", "decrease") if score.lower_is_better else ("gain", "loss")
    unit = _unit(score)
    top, bottom = _size(high, score), _size(low, score)
    if low > 0:
        return f"{_a(up)} above {top}{unit}, {_a(up).lower()} below {bottom}{unit} and any {down}"
    if high < 0:
        return f"{_a(down)} above {bottom}{unit}, {_a(down).lower()} below {top}{unit} and any {up}"
    return f"{_a(up)} above {top} and {_a(down).lower()} above {bottom}{unit}"


def _a(noun: str) -> str:
    return f"An {noun}" if noun.startswith("i") else f"A {noun}"


def _detectable(se: float, score: NamedScore) -> str:
    smallest = DETECTABLE * se
    return f"{_size(smallest, score, 0 if 100 * smallest >= 1.95 else 1)}{_unit(score)}"


def sentence(
    arm: str,
    reference: str,
    difference: float,
    se: float,
    ends: tuple[float | None, float | None],
    setting: Setting,
) -> str:
    """The two-sided conclusion of one comparison, in the form of ``STATISTICS.md`` section 5.

    Args:
        difference, se: arm minus reference and its standard error, in units of the score.
        ends: of the interval that the sentence tells; None where there is none.
    """
    score, (low, high) = setting.score, ends
    over = f", mean over {setting.magnifications} magnifications" if setting.magnifications > 1 else ""
    start = f"{score.words[0].upper()}{score.words[1:]}{over}: {'at equal budget ' if setting.equal_budget else ''}"
    start += f"{arm} minus {reference} is {_signed(difference, score)}{_unit(score)}"
    rests = f"{setting.cases} cases, {setting.benign} benign; {setting.repeats}"
    if low is None or high is None:
        return (
            f"{start} ({rests}); {NO_SPREAD}, and nothing follows for other cases or training runs. {SCOPE}"
        )
    kind = "simultaneous 95 % interval" if setting.simultaneous else "exploratory 95 % interval"
    text = (
        f"{start} ({kind} {_signed(low, score)} to {_signed(high, score)}; {rests}). "
        f"{_limits(low, high, score)} are not compatible with these data at that level; "
        f"differences below about {_detectable(se, score)} could not have been detected reliably. "
    )
    if score.lower_is_better:
        text += "Lower is better. "
    if setting.replicates == 1:
        text += f"{CONDITIONAL[0].upper()}{CONDITIONAL[1:]}. "
    return text + SCOPE


@dataclass(frozen=True, slots=True)
class Equivalence:
    """A region of practical equivalence and what the data say about it.

    Attributes:
        region: half width in units of the score.
        p_region: probability of a true difference inside it, the t distribution read as a posterior (flat prior);
            None without a standard error.
        largest_reachable: the same if the difference were exactly 0: the most that these cases can show.
        words: the verdict.
    """

    region: float
    p_region: float | None
    largest_reachable: float | None
    words: str


def equivalence(difference: float, se: float, df: float, region: float, score: NamedScore) -> Equivalence:
    """Judge one region from a difference with its standard error and degrees of freedom."""
    from scipy.special import stdtr

    if score.lower_is_better:
        name = f"equivalence within +-{region:g}"
    else:
        name = f"equivalence within +-{100 * region:g} point{'' if round(100 * region) == 1 else 's'}"
    if not se > 0:
        return Equivalence(region, None, None, f"{name} is not judged: {NO_SPREAD}")
    inside = float(stdtr(df, (region - difference) / se) - stdtr(df, (-region - difference) / se))
    reachable = float(1 - 2 * stdtr(df, -region / se))
    if reachable < ENOUGH:
        verdict = "cannot be shown with these cases"
    elif inside >= ENOUGH:
        verdict = f"is supported (probability {inside:.2f})"
    else:
        verdict = f"is not shown (probability {inside:.2f})"
    return Equivalence(region, inside, reachable, f"{name} {verdict}")
