"""Logits of every image of a part, once each, on one process or several."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from histo_lightning.classifier import Classifier
from histo_lightning.data.datamodule import BreakHisDataModule


def predict_part(classifier: Classifier, datamodule: BreakHisDataModule, part: str) -> NDArray[np.float64]:
    """Logits of a part, float64 images x classes, in the order of ``datamodule.parts[part].records``.

    Always in float32 arithmetic, so that scores do not depend on the training precision. On several processes each
    takes its share of every batch and all of them get the whole result.

    Raises:
        RuntimeError: an image was not predicted.
    """
    device = classifier.device
    classifier.eval()
    found: list[tuple[list[int], list[list[float]]]] = []
    with torch.inference_mode():
        for batch in datamodule.loader(part):
            index = batch["index"].tolist()
            moved = {name: value.to(device) for name, value in batch.items()}
            seen = datamodule.view(moved, training=False)
            found.append((index, classifier.logits(seen["image"]).double().cpu().tolist()))
    shares: list[Any] = [found]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        shares = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(shares, found)
    count, classes = len(datamodule.parts[part].records), len(datamodule.class_to_idx)
    logits = np.full((count, classes), np.nan)
    found_rows = np.zeros(count, dtype=bool)
    for share in shares:
        for index, rows in share:
            logits[index] = rows
            found_rows[index] = True  # some twice: the last batch may be filled up with its own images
    if not found_rows.all():
        raise RuntimeError(f"part {part}: {int((~found_rows).sum())} images were not predicted")
    return logits
