"""The one list of scores: results, intervals, comparisons and pages ask it which scores exist and what they mean.

A score is one function below ``@score``, also in a module of one's own (``docs/extend.md``). It is then in ``metrics.json``
at its levels, with an interval, and ``case_<name>`` is a score to compare models by. The names of the arguments say what a
function is of:

- ``labels`` (n,) int64 class indices, ``probabilities`` (n,) float64 of malignant or (n, 8), ``decisions`` (n,) int64,
  ``weights`` (n,) float64, how often each unit counts: as many as it needs. It returns a number; NaN or a division by
  zero says that the score is undefined. Units of weight 0 are left out.
- ``confusion``: (..., K, K) weighted counts, rows the truth, to (...) scores.
- ``units``: the ``Units`` of a level, to a ``Statistic``, or to the value itself where ``no_interval`` is set.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any, TypeVar

import numpy as np

from histo_lightning.errors import UserError
from histo_lightning.evaluation import scores
from histo_lightning.evaluation.levels import LEVELS, Units
from histo_lightning.evaluation.scores import Statistic, mean_over_folds_of, of_confusion, value_of
from histo_lightning.evaluation.table import Floats

EXPANDED_BCA = "expanded BCa over cases"
NEWCOMBE = "Newcombe method 5"
WILSON = "Wilson"
MOVER = "MOVER of two Wilson intervals"
NO_WEIGHTS = "the score takes no weights, so cases cannot be drawn again"
_ARRAYS = ("labels", "probabilities", "decisions", "weights")
_TAKEN = {"n", "units", "cases", "kish", "reason", "confusion", "always_malignant", "at_threshold", "binary"}

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Score:
    """What a score is."""

    name: str
    meaning: str  # one sentence, the first line of the function's docstring
    formula: str  # with its source in brackets
    compute: Callable[[Units], Any]  # a ``Statistic``, or the value itself where ``no_interval`` is set
    words: str  # the name within a sentence
    module: str  # that registered it
    task: str = "binary"  # or ``subtype`` (eight classes)
    levels: tuple[str, ...] = LEVELS
    better: str = "higher"  # or ``lower``, or empty where neither is
    bounds: tuple[float, float] = (0.0, 1.0)
    classes: tuple[int, ...] = ()  # whose units it counts; empty for all
    per_fold: bool = False  # over pooled folds it is their mean, else a value of all units
    pairs: bool = False  # over pooled folds it is of the pairs within folds, beside that of all pairs
    decides: bool = False  # whether it depends on decisions, so that a threshold moves it
    case_interval: str = EXPANDED_BCA  # method at case level; elsewhere it is the expanded BCa
    no_interval: str = ""  # why there is never an interval
    averages_classes: bool = False  # no interval where a class has fewer than five cases
    extras: Callable[[Units], dict[str, Any]] | None = None  # further fields of its entry in ``metrics.json``

    @property
    def title(self) -> str:
        """For a heading, e.g. ``Balanced accuracy``."""
        return self.words[0].upper() + self.words[1:]

    @property
    def lower_is_better(self) -> bool:
        """True for errors, which are given in their own units instead of points."""
        return self.better == "lower"

    def statistic(self, units: Units) -> Statistic:
        """The score as a function of case weights; only where ``no_interval`` is empty."""
        result: Statistic = mean_over_folds_of(units, self.compute) if self.per_fold else self.compute(units)
        return result

    def value(self, units: Units) -> float:
        """The score of all units, NaN where undefined."""
        if not self.no_interval:
            return value_of(self.statistic(units), units)
        parts = [units.chosen(units.fold == k) for k in np.unique(units.fold)] if self.per_fold else [units]
        return float(scores.mean_where_defined(np.array([self.compute(part) for part in parts], np.float64)))


_SCORES: dict[tuple[str, str], Score] = {}


def _of_arrays(function: Callable[..., float], names: list[str]) -> Callable[[Units], Any]:
    """``Score.compute`` of a function of arrays."""

    def compute(units: Units) -> Any:
        p = units.probabilities if units.probabilities.shape[1] > 2 else units.p
        columns = {"labels": units.truth, "probabilities": p, "decisions": units.decision}

        def of_weighted(weights: Floats) -> float:
            each = weights[units.case]
            given = {name: array[each > 0] for name, array in (columns | {"weights": each}).items()}
            try:
                return float(function(**{name: given[name] for name in names}))
            except ZeroDivisionError:
                return float("nan")

        if "weights" not in names:
            return of_weighted(np.ones(len(units.cases)))
        return lambda weights: np.array([of_weighted(draw) for draw in weights], np.float64)

    return compute


def score(*, name: str = "", words: str = "", **fields: Any) -> Callable[[F], F]:
    """Register the function below as a score; the function itself stays as it is.

    Args:
        name: else the function's name; words: else the name with spaces; fields: of ``Score``, ``formula`` at least.

    UserError: a name that is taken or impossible, no docstring, or an unknown argument.
    """

    def register(function: F) -> F:
        key = name or function.__name__
        where = f"score {key} of {function.__module__}"
        names = list(inspect.signature(function).parameters)
        about: dict[str, Any] = {"words": words or key.replace("_", " "), "compute": function}
        if names == ["confusion"]:
            about |= {"compute": partial(of_confusion, function), "decides": True}
        elif names != ["units"]:
            if unknown := [argument for argument in names if argument not in _ARRAYS]:
                takes = f"a score takes {', '.join(_ARRAYS)}, or confusion, or units"
                raise UserError(f"{where}: unknown argument {unknown[0]}; {takes}")
            about |= {"compute": _of_arrays(function, names), "decides": "decisions" in names}
            about["no_interval"] = "" if "weights" in names else NO_WEIGHTS
        if not key.isidentifier() or key in _TAKEN:
            raise UserError(f"{where}: the name is not possible; use another of letters, digits, _")
        if not (meaning := (inspect.getdoc(function) or "").partition("\n")[0]):
            raise UserError(f"{where}: no docstring; say in its first line what the score means")
        new = Score(key, meaning, module=function.__module__, **(about | fields))
        known = _SCORES.get((new.task, key))
        if known and known.module != new.module:
            raise UserError(f"{where}: {known.module} has a score of this name already; choose another name")
        _SCORES[new.task, key] = new
        return function

    return register


def all_scores(task: str = "binary", level: str | None = None) -> list[Score]:
    """The scores of a task, of one level or of any, in the order of ``metrics.json``."""
    return [s for s in _SCORES.values() if s.task == task and (level is None or level in s.levels)]


def get_score(name: str, task: str = "binary") -> Score | None:
    """The score of a name, None where there is none."""
    return _SCORES.get((task, name))


def _compared(level: str | None = None) -> list[Score]:
    """The scores that models can be compared by: one end is better, and cases can be weighted."""
    return [score for score in all_scores(level=level) if score.better and not score.no_interval]


def score_names() -> tuple[str, ...]:
    """Every name that ``named_score`` knows."""
    return tuple(f"{level}_{score.name}" for level in LEVELS for score in _compared(level))


def named_score(name: str) -> tuple[str, Score]:
    """The level and the score of a name among ``score_names``; UserError for another name."""
    level, _, key = name.partition("_")
    for score in _compared(level):
        if score.name == key:
            return level, score
    near = get_close_matches(name, score_names(), n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    keys = (s.name if s.levels == LEVELS else f"{s.name} ({', '.join(s.levels)})" for s in _compared())
    raise UserError(
        f"score={name}: unknown; give <level>_<score> with level {', '.join(LEVELS)} and score {', '.join(keys)}{hint}"
    )
