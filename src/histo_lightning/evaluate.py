"""``python -m histo_lightning.evaluate``: score a checkpoint on a data set."""

import sys
from pathlib import Path

from histo_lightning.config.command_line import launch
from histo_lightning.config.exits import guard
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


def main() -> int:
    return launch("evaluate", run)


if __name__ == "__main__":
    sys.exit(guard(main))
