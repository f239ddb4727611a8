"""``prepare preview=true``: a contact sheet of what augmentation makes of training images."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from histo_lightning.config.schema import PrepareConfig
from histo_lightning.data.batches import PillowDataset
from histo_lightning.data.datamodule import BreakHisDataModule
from histo_lightning.report.style import TEXT_SIZE, new_grid, save_picture
from histo_lightning.training.objects import build_datamodule

EPOCHS = 6


def write_preview(config: PrepareConfig, path: Path) -> None:
    """Draw a row a subtype (or class): its first training image as it is evaluated, then as the first epochs train on it."""
    data = build_datamodule(config)
    data.setup()
    first: dict[str, int] = {}
    records = data.parts["train"].records
    for index, record in enumerate(records):
        first.setdefault(record.subtype or record.class_name, index)
    names = sorted(first)
    rows = [first[name] for name in names]
    figure, axes = new_grid(len(rows), EPOCHS + 1, 1.35, f"{config.augment.name}: {data.recipe.text()}")
    for column, epoch in enumerate((None, *range(EPOCHS))):
        title = "evaluated" if epoch is None else f"epoch {column}"
        axes[0][column].set_title(title, fontsize=TEXT_SIZE - 1)
        for row, image in enumerate(_views(data, rows, epoch)):
            axes[row][column].imshow(image)
    for row, name in enumerate(names):
        axes[row][0].set_ylabel(f"{name} {records[first[name]].case}", fontsize=TEXT_SIZE - 2)
    save_picture(figure, path.with_suffix(""))


def _views(data: BreakHisDataModule, rows: list[int], epoch: int | None) -> NDArray[np.float32]:
    """Images as the network sees them, with normalisation taken back: float32 B x H x W x 3 in [0, 1]."""
    by_pillow = data.loader("train", train=epoch is not None).dataset
    if isinstance(by_pillow, PillowDataset):
        batch = {"image": torch.stack([by_pillow[epoch or 0, row]["image"] for row in rows])}
    else:
        batch = data.parts["train"].__getitems__(rows)
    views = data.view(batch, training=epoch is not None, epoch=epoch or 0)["image"]
    images = views * data.std[:, None, None] + data.mean[:, None, None]
    return images.clamp(0, 1).permute(0, 2, 3, 1).numpy()
