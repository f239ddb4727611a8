"""What a reader of a run must not miss, as plain sentences for the console and the page."""

from collections.abc import Mapping
from typing import Any


def remarks(metrics: Mapping[str, Any], *, epochs: int, warmup_epochs: float) -> list[str]:
    """Sentences on an early stop, a scored epoch within warm-up and a validation AUROC below .5; empty for none.

    Args:
        metrics: as in ``metrics.json``: ``epochs`` run, ``best_epoch`` from 0, and the scores of ``val``.
        epochs: that the configuration asked for, -1 for no limit; warmup_epochs: of the schedule.
    """
    run, best = metrics.get("epochs"), metrics.get("best_epoch")
    sentences = []
    if run is not None and run < epochs:
        sentences.append(f"Training stopped early, after {run} of {epochs} epochs.")
    if best is not None and best < warmup_epochs:
        sentences.append(
            f"The scored epoch {best + 1} lies within the warm-up of {warmup_epochs:g} epochs, "
            "before the learning rate was at its full height."
        )
    for level in ("case", "image"):
        scores = (metrics.get("val") or {}).get(level) or {}
        auroc = ((scores.get("binary") or scores).get("auroc") or {}).get("value")
        if auroc is not None and auroc < 0.5:
            sentences.append(f"The network ranks validation {level}s worse than chance: AUROC {auroc:.3f}.")
            break
    return sentences
