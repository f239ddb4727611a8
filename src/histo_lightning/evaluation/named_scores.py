"""Scores that models are compared by, by name: ``<level>_<score>``, e.g. ``case_auroc`` or ``image_log_loss``."""

from difflib import get_close_matches
from typing import NamedTuple

from histo_lightning.errors import UserError
from histo_lightning.evaluation.levels import LEVELS
from histo_lightning.evaluation.registry import Score, all_scores


class NamedScore(NamedTuple):
    """A score at a level: ``image``, ``slide`` or ``case``; ``about`` says what the score is."""

    level: str
    score: str
    about: Score

    @property
    def lower_is_better(self) -> bool:
        """True for errors, which are given in their own units instead of points."""
        return self.about.better == "lower"

    @property
    def words(self) -> str:
        """For a sentence, e.g. ``case-level AUROC``."""
        return f"{self.level}-level {self.about.words}"


def _compared(level: str | None = None) -> list[Score]:
    """The scores that models can be compared by: one end is better, and cases can be weighted."""
    return [score for score in all_scores(level=level) if score.better and not score.no_interval]


def score_names() -> tuple[str, ...]:
    """Every name that ``named_score`` knows."""
    return tuple(f"{level}_{score.name}" for level in LEVELS for score in _compared(level))


def named_score(name: str) -> NamedScore:
    """The score of a name among ``score_names``.

    Raises:
        UserError: another name.
    """
    level, _, key = name.partition("_")
    for score in _compared(level):
        if score.name == key:
            return NamedScore(level, key, score)
    near = get_close_matches(name, score_names(), n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    keys = (s.name if s.levels == LEVELS else f"{s.name} ({', '.join(s.levels)})" for s in _compared())
    raise UserError(
        f"score={name}: unknown; give <level>_<score> with level {', '.join(LEVELS)} and score {', '.join(keys)}{hint}"
    )
