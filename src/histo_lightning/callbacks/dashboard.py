"""A run's settings and final scores in TensorBoard, beside its curves."""

import math
from collections.abc import Mapping
from typing import Any

from pytorch_lightning import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

SCORES = ("accuracy", "balanced_accuracy", "auroc", "log_loss")
LEVELS = ("image", "case")


class Dashboard(Callback):
    """Writes the settings of a run with its validation scores to HParams, and test scores under a tag of their own."""

    def write_scores(
        self, loggers: list[Any], settings: Mapping[str, Any], scores: Mapping[str, Any], label: str
    ) -> None:
        """Write to every TensorBoard logger, once a run's scores are known.

        ``scores`` are the parts of ``metrics.json``; ``label`` is what must be seen with the result, a text where not empty.
        """
        plain = {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in settings.items()
        }
        validation = {f"hparams/val_{name}": value for name, value in _values(scores["val"]).items()}
        test = _values(scores["test"]) if scores.get("test") else {}
        tags = validation | {f"test/{name}": value for name, value in test.items()}
        for logger in loggers:
            if not isinstance(logger, TensorBoardLogger):
                continue
            writer = logger.experiment
            for summary in hparams(plain, validation):  # type: ignore[no-untyped-call]  # torch ships it without types
                writer._get_file_writer().add_summary(summary)
            for tag, value in tags.items():
                writer.add_scalar(tag, value, 0)
            if label:
                writer.add_text("label", label, 0)
            logger.save()


def _values(part: Mapping[str, Any]) -> dict[str, float]:
    """Scores of a part of ``metrics.json`` by level and name; NaN where undefined."""
    values = {}
    for level in LEVELS:
        for name in SCORES:
            value = ((part.get(level) or {}).get(name) or {}).get("value")
            values[f"{level}_{name}"] = math.nan if value is None else float(value)
    return values
