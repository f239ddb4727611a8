"""What a run chooses on its validation part after training, and where that is kept: operating point, temperature."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histo_lightning.classifier.checkpoint import read_checkpoint, save_atomic
from histo_lightning.errors import UserError
from histo_lightning.evaluation import Table, score_predictions
from histo_lightning.evaluation.thresholds import apply_temperature, fit_temperature, operating_point

HEADLINE_THRESHOLD = 0.5
SHOWN = ("log_loss", "ece", "calibration_slope", "calibration_intercept")


@dataclass(frozen=True)
class Choice:
    """``point``: see ``operating_point``, or a ``reason`` why there is none; ``temperature``: see ``fit_temperature``."""

    point: dict[str, Any]
    temperature: dict[str, Any]

    @property
    def threshold(self) -> float | None:
        found = self.point.get("threshold")
        return None if found is None else float(found)

    def as_dict(self, test: Table | None) -> dict[str, Any]:
        """Entries of ``metrics.json``; scores of the test images before and after tempering are shown, never used."""
        shown = dict(self.temperature)
        if test is not None:
            shown["test"] = {
                "before": _calibration(test),
                "after": _calibration(apply_temperature(test, self.temperature["temperature"])),
            }
        return {"operating_point": self.point, "temperature": shown}


def choose(validation: Table, sensitivity: float) -> Choice:
    """Fit both on the validation predictions, and on nothing else."""
    try:
        point = operating_point(validation, sensitivity)
    except UserError as error:
        point = {"threshold": None, "reason": str(error)}
    return Choice(point, fit_temperature(validation))


def _calibration(table: Table) -> dict[str, float | None]:
    image = score_predictions(table, intervals=False)["image"]
    scores = image.get("binary") or image
    return {name: scores[name]["value"] for name in SHOWN if name in scores}


def store_choice(path: Path, choice: Choice) -> None:
    """Keep the choice in a checkpoint's ``histo_lightning`` dict; the file is replaced whole.

    Without an operating point ``threshold`` is 0.5.
    """
    checkpoint = read_checkpoint(path)
    checkpoint["histo_lightning"] |= {
        "threshold": HEADLINE_THRESHOLD if choice.threshold is None else choice.threshold,
        "operating_point": choice.point,
        "temperature": choice.temperature,
    }
    save_atomic(checkpoint, path)


def mark_apparent(scores: dict[str, Any]) -> None:
    """Say of scores at the threshold that it was chosen on these very predictions."""
    for level in scores.values():
        for found in (level, level.get("binary") or {}):
            if found.get("at_threshold"):
                found["at_threshold"]["apparent"] = True
