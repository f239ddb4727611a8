"""The opponent of P18: a plain Lightning script as a careful user would write it, run as a command of its own.

ImageFolder, transforms of torchvision (v2), a worker a core that stays, bf16, channels_last, TensorBoard, the best checkpoint,
validation in every epoch and a test at the end. Nothing of this project is imported.

    python plain_lightning.py <folder with train/ val/ test/> <output folder> <size> <batch> <epochs> <model>
"""

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torchvision
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

SHORT_SIDE = 256  # of the stored images, as in this project
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Network(pl.LightningModule):
    """A network of torchvision from scratch, with AdamW and a cosine."""

    def __init__(self, model: str, epochs: int) -> None:
        super().__init__()
        self.network = torchvision.models.get_model(model, num_classes=2)
        self.epochs = epochs
        self.scores = nn.ModuleDict(
            {
                f"{part}_": nn.ModuleList([MulticlassAccuracy(2), MulticlassAUROC(2)])
                for part in ("val", "test")
            }
        )

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        images, labels = batch
        loss = nn.functional.cross_entropy(self.network(images.to(memory_format=torch.channels_last)), labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def _score(self, batch: tuple[Tensor, Tensor], part: str) -> None:
        images, labels = batch
        logits = self.network(images.to(memory_format=torch.channels_last)).float()
        self.log(f"{part}_loss", nn.functional.cross_entropy(logits, labels), prog_bar=True)
        for metric, name in zip(self.scores[f"{part}_"], ("accuracy", "auroc"), strict=True):  # type: ignore[call-overload]
            metric.update(logits.softmax(dim=1), labels)
            self.log(f"{part}_{name}", metric)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        self._score(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._score(batch, "test")

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0.05)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs)]


def main(root: Path, out: Path, size: int, batch: int, epochs: int, model: str) -> None:
    """Train, test, print."""
    tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    short = max(size, round(size * SHORT_SIDE / 224))
    crop = [v2.Resize(short), v2.RandomCrop(size), v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    train = v2.Compose([*crop, v2.ColorJitter(0.1, 0.1), *tensor])
    plain = v2.Compose([v2.Resize(short), v2.CenterCrop(size), *tensor])
    workers = len(os.sched_getaffinity(0))
    common: dict[str, Any] = {"batch_size": batch, "num_workers": workers, "persistent_workers": True}
    loaders = {
        part: DataLoader(
            ImageFolder(str(root / part), train if part == "train" else plain),
            shuffle=part == "train",
            drop_last=part == "train",
            **common,
        )
        for part in ("train", "val", "test")
    }
    pl.seed_everything(0, verbose=False)
    module = Network(model, epochs).to(memory_format=torch.channels_last)
    checkpoint = ModelCheckpoint(monitor="val_loss", mode="min", save_last=True)
    trainer = pl.Trainer(
        max_epochs=epochs,
        precision="bf16-mixed",
        logger=TensorBoardLogger(str(out)),
        callbacks=[checkpoint, LearningRateMonitor()],
        log_every_n_steps=1,
        enable_model_summary=False,
        enable_progress_bar=sys.stdout.isatty(),
    )
    trainer.fit(module, loaders["train"], loaders["val"])
    print(trainer.test(module, loaders["test"], ckpt_path="best", weights_only=True)[0])


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    root, out, size, batch, epochs, model = sys.argv[1:]
    main(Path(root), Path(out), int(size), int(batch), int(epochs), model)
