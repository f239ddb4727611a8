"""``python -m histo_lightning.evaluate``: score a checkpoint on a data set."""

from pathlib import Path

from histo_lightning.config.command_line import front_door
from histo_lightning.config.schema import EvaluateConfig


def run(config: EvaluateConfig) -> None:
    """One evaluation."""
    from histo_lightning.inference.evaluate import evaluate  # torch takes seconds: not for --help or a typo
    from histo_lightning.report.index import refresh_index
    from histo_lightning.report.summaries import print_evaluation

    folder, metrics = evaluate(config)
    refresh_index(Path(config.output_dir))
    if config.trainer.progress != "none":
        print_evaluation(folder, metrics)


main = front_door("evaluate", run, __name__)
