"""A row of the benchmark, interleaved rounds, and the verdict."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

UNMEASURED = "not measured"


@dataclass(frozen=True)
class Row:
    """One measure. ``asked`` reads ``<= 1.05``; ``spread`` is the lowest and highest round."""

    id: str
    title: str
    asked: str
    measured: float | None
    spread: tuple[float, float] | None
    verdict: str
    why: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"spread": None if self.spread is None else list(self.spread)}


def judged(id: str, title: str, asked: str, rounds: Sequence[float], why: str) -> Row:
    """Median and spread of the rounds; ``met`` when the median is within what is asked.

    Args:
        asked: ``<= x`` or ``>= x``; anything else is no limit, and always met.
    """
    median = statistics.median(rounds)
    sign, _, limit = asked.partition(" ")
    met = {"<=": lambda: median <= float(limit), ">=": lambda: median >= float(limit)}
    verdict = "met" if met.get(sign, lambda: True)() else "short"
    return Row(id, title, asked, median, (min(rounds), max(rounds)), verdict, why)


def unmeasured(id: str, title: str, asked: str, why: str) -> Row:
    """A row without a figure, and the reason."""
    return Row(id, title, asked, None, None, UNMEASURED, why)


def interleaved(
    functions: Sequence[Callable[[], float]], rounds: int, *, warm: bool = True
) -> list[list[float]]:
    """Call every function once a round, with ``warm`` after one round that is thrown away; what each returned, by round.

    On machines whose speed wanders, only figures from one round can be compared.
    """
    found: list[list[float]] = [[] for _ in functions]
    for number in range(rounds + warm):
        for values, function in zip(found, functions, strict=True):
            value = function()
            if number >= warm:
                values.append(value)
    return found


def ratios(numerator: Iterable[float], denominator: Iterable[float]) -> list[float]:
    """Ratio by round."""
    return [a / b for a, b in zip(numerator, denominator, strict=True)]
