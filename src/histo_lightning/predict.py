"""``python -m histo_lightning.predict``: predict any images with a checkpoint."""

import sys
from pathlib import Path

from histo_lightning.config.command_line import front_door
from histo_lightning.config.exits import EXIT_USER
from histo_lightning.config.schema import PredictConfig


def run(config: PredictConfig) -> int:
    """One folder of predictions; the exit status is 2 where images could not be read."""
    from histo_lightning.inference.predict import predict  # torch takes seconds: not for --help or a typo
    from histo_lightning.report.index import refresh_index

    folder, predictions = predict(config)
    refresh_index(Path(config.output_dir))
    unreadable = [one for one in predictions if one.probabilities is None]
    if config.trainer.progress != "none":
        print(f"{len(predictions) - len(unreadable)} of {len(predictions)} images predicted")
        for name in ("predictions.csv", *(["index.html"] if config.gradcam else [])):
            print(f"{name + ':':<16} {folder / name}")
    for one in unreadable[:20]:
        print(f"unreadable: {one.error}", file=sys.stderr)
    if unreadable:
        count = f"{len(unreadable)} image(s)"
        print(f"error: {count} could not be read; predictions.csv names them", file=sys.stderr)
    return EXIT_USER if unreadable else 0


main = front_door("predict", run, __name__)
