"""Scores that models are compared by, by name: ``<level>_<score>``, e.g. ``case_auroc`` or ``image_log_loss``."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from histo_lightning.errors import UserError
from histo_lightning.evaluation import scores
from histo_lightning.evaluation.levels import LEVELS, Units
from histo_lightning.evaluation.resampling import (
    Statistic,
    auroc_of,
    average_precision_of,
    count_statistics,
    mean_of,
    mean_over_folds_of,
    recognition_statistics,
)

_COUNTED = ("balanced_accuracy", "accuracy", "sensitivity", "specificity", "f1", "mcc")
_STATISTICS: dict[str, Callable[[Units], Statistic]] = {
    "auroc": lambda u: auroc_of(u, u.truth == 1, u.p),
    "auprc": lambda u: mean_over_folds_of(u, lambda v: average_precision_of(v, v.truth == 1, v.p)),
    "brier": lambda u: mean_of(u, scores.squared_error(u.truth, u.p)),
    "log_loss": lambda u: mean_of(u, scores.log_error(u.truth, u.p)),
    "patient_recognition_rate": lambda u: recognition_statistics(u)["patient_recognition_rate"],
}
_WORDS = {
    "auroc": "AUROC",
    "auprc": "area under the precision-recall curve",
    "brier": "Brier score",
    "log_loss": "log loss",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "mcc": "MCC",
    "patient_recognition_rate": "patient recognition rate",
}
_ERRORS = ("brier", "log_loss")
COMPARED = (*_COUNTED, "auroc", "auprc", "brier", "log_loss")
NAMES = (
    *(f"{level}_{score}" for level in LEVELS for score in COMPARED),
    "slide_patient_recognition_rate",
)
"""Every score that can be compared."""


@dataclass(frozen=True, slots=True)
class NamedScore:
    """A score at a level.

    Attributes:
        level: ``image``, ``slide`` or ``case``; score: its name at that level.
    """

    level: str
    score: str

    @property
    def lower_is_better(self) -> bool:
        """True for Brier score and log loss, which also are told in their own units instead of points."""
        return self.score in _ERRORS

    @property
    def words(self) -> str:
        """For a sentence, e.g. ``case-level AUROC``."""
        return f"{self.level}-level {_WORDS.get(self.score, self.score)}"

    def statistic(self, units: Units) -> Statistic:
        """The score as a function of case weights, at 0.5 where it needs a decision."""
        if self.score in _COUNTED:
            return count_statistics(units)[self.score]
        return _STATISTICS[self.score](units)


def named_score(name: str) -> NamedScore:
    """The score of a name in ``NAMES``.

    Raises:
        UserError: another name.
    """
    if name not in NAMES:
        near = get_close_matches(name, NAMES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(
            f"score={name}: unknown; give <level>_<score> with level {', '.join(LEVELS)} and score "
            f"{', '.join(COMPARED)}, or slide_patient_recognition_rate{hint}"
        )
    level, _, score = name.partition("_")
    return NamedScore(level, score)
