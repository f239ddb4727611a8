"""What TensorBoard shows of a run beside its curves: its settings and its final scores."""

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
        """Write to every TensorBoard logger; called once, when a run's scores are known.

        Args:
            loggers: of the Trainer.
            settings: dotted keys and values.
            scores: ``val``, and ``test`` where it was read, as in ``metrics.json``.
            label: what must be said of the result; a text where it is not empty.
        """
        chosen = {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in settings.items()
        }
        final = {
            f"hparams/val_{level}_{name}": _value(scores["val"], level, name)
            for level in LEVELS
            for name in SCORES
        }
        for logger in loggers:
            if not isinstance(logger, TensorBoardLogger):
                continue
            writer = logger.experiment
            for summary in hparams(chosen, final):  # type: ignore[no-untyped-call]  # torch ships it without types
                writer._get_file_writer().add_summary(summary)
            for tag, value in final.items():
                writer.add_scalar(tag, value, 0)
            if label:
                writer.add_text("label", label, 0)
            if scores.get("test"):
                for level in LEVELS:
                    for name in SCORES:
                        writer.add_scalar(f"test/{level}_{name}", _value(scores["test"], level, name), 0)
            logger.save()


def _value(part: Mapping[str, Any] | None, level: str, name: str) -> float:
    score = ((part or {}).get(level) or {}).get(name) or {}
    return float("nan") if score.get("value") is None else float(score["value"])
