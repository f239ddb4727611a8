"""``python -m histo_lightning.evaluate``: score a checkpoint on a data set."""

import sys

from histo_lightning.launch import guard, launch
from histo_lightning.schema import EvaluateConfig


def run(config: EvaluateConfig, hydra: dict[str, str]) -> None:
    """One evaluation."""
    from histo_lightning.display import print_evaluation
    from histo_lightning.inference.evaluate import evaluate  # torch takes seconds: not for --help or a typo

    folder, metrics = evaluate(config)
    if config.trainer.progress != "none":
        print_evaluation(folder, metrics)


def main() -> int:
    launch("evaluate", run)
    return 0


if __name__ == "__main__":
    sys.exit(guard(main))
