"""``prepare preview=true``: a contact sheet of what augmentation makes of training images."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from histo_lightning.config.schema import PrepareConfig
from histo_lightning.data.datamodule import BreakHisDataModule
from histo_lightning.data.parts import PillowDataset
from histo_lightning.report.style import TEXT_SIZE, new_grid, save_picture
from histo_lightning.training.objects import build_datamodule

EPOCHS = 6


def write_preview(config: PrepareConfig, path: Path) -> None:
    """Draw a row a subtype (or class): the image as it is evaluated, then as the first epochs train on it.

    Raises:
        UserError: the data set cannot be set up, or the file not be written.
    """
    data = build_datamodule(config)
    data.setup()
    rows = chosen_rows(data)
    figure, axes = new_grid(len(rows), EPOCHS + 1, 1.35, f"{config.augment.name}: {data.recipe.text()}")
    sheets = [_seen(data, rows, None), *(_seen(data, rows, epoch) for epoch in range(EPOCHS))]
    for column, sheet in enumerate(sheets):
        for row, index in enumerate(rows):
            panel = axes[row][column]
            panel.imshow(sheet[row])
            record = data.parts["train"].records[index]
            if column == 0:
                panel.set_ylabel(
                    f"{record.subtype or record.class_name} {record.case}", fontsize=TEXT_SIZE - 2
                )
            if row == 0:
                title = "evaluated" if column == 0 else f"epoch {column}"
                panel.set_title(title, fontsize=TEXT_SIZE - 1)
    save_picture(figure, path.with_suffix(""))


def chosen_rows(data: BreakHisDataModule) -> list[int]:
    """The first training image of each subtype, or of each class where names do not say the subtype."""
    first: dict[str, int] = {}
    for index, record in enumerate(data.parts["train"].records):
        first.setdefault(record.subtype or record.class_name, index)
    return [first[kind] for kind in sorted(first)]


def _seen(data: BreakHisDataModule, rows: list[int], epoch: int | None) -> list[NDArray[np.float32]]:
    """Images as the network sees them, with normalisation taken back: float32 H x W x 3 in [0, 1]."""
    by_pillow = data.loader("train", train=epoch is not None).dataset
    if isinstance(by_pillow, PillowDataset):
        batch = {"image": torch.stack([by_pillow[epoch or 0, row]["image"] for row in rows])}
    else:
        batch = data.parts["train"].__getitems__(rows)
    seen = data.view(batch, training=epoch is not None, epoch=epoch or 0)["image"]
    images = seen * data.std[:, None, None] + data.mean[:, None, None]
    return list(images.clamp(0, 1).permute(0, 2, 3, 1).numpy())
