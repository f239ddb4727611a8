"""The data module: usable by any LightningModule, fitted on train alone, honest about groups."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import LightningModule, Trainer

from histo_lightning.data import BreakHisDataModule
from histo_lightning.data.augment import IMAGENET_MEAN, Recipe
from histo_lightning.data.splits import SplitPlan
from histo_lightning.errors import UserError

RECIPE = Recipe(size=32, name="d4", dihedral=True, brightness=0.1)


def tree(root: Path, seed: int = 0) -> Path:
    generator = np.random.default_rng(seed)
    for part in ("train", "val", "test"):
        for class_name in ("benign", "malignant"):
            folder = root / part / class_name
            folder.mkdir(parents=True)
            for i in range(5):
                Image.fromarray(generator.integers(0, 256, (46, 70, 3), dtype=np.uint8)).save(
                    folder / f"{part}{class_name}{i}.png"
                )
    return root


def module(root: Path, cache: Path, **more) -> BreakHisDataModule:
    data = BreakHisDataModule(
        "folders",
        str(root),
        plan=SplitPlan(kind="folders"),
        recipe=RECIPE,
        batch_size=4,
        cache_dir=cache,
        **more,
    )
    data.setup()
    return data


class Stranger(LightningModule):
    """Somebody else's network; keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.seen: list[tuple[int, tuple[int, ...], torch.Tensor]] = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, tuple(batch["index"].tolist()), batch["image"].clone()))
        return torch.nn.functional.cross_entropy(self.layer(batch["image"].mean(dim=(2, 3))), batch["label"])

    def validation_step(self, batch, batch_idx):
        assert batch["image"].shape[1:] == (3, 37, 56)  # the whole field at 8/7 of the training size

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(data: BreakHisDataModule, epochs: int) -> Stranger:
    stranger = Stranger()
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(stranger, datamodule=data)
    return stranger


def test_any_lightning_module_can_use_it(tmp_path: Path) -> None:
    one = fit(module(tree(tmp_path / "t"), tmp_path / "c"), 3)
    assert [len(one.seen), one.seen[0][2].shape] == [6, (4, 3, 32, 32)]
    orders = [tuple(i for epoch, index, _ in one.seen if epoch == e for i in index) for e in range(3)]
    assert len(set(orders)) == 3
    again = fit(module(tmp_path / "t", tmp_path / "c"), 3)
    assert all(torch.equal(a[2], b[2]) for a, b in zip(one.seen, again.seen, strict=True))
    other = fit(module(tmp_path / "t", tmp_path / "c", seed=1), 1)
    assert other.seen[0][1] != one.seen[0][1]


def test_what_is_fitted_does_not_see_the_test_images(tmp_path: Path) -> None:
    root = tree(tmp_path / "t")
    before = module(root, tmp_path / "c")
    poisoned = Image.fromarray(np.full((46, 70, 3), 255, dtype=np.uint8))
    for part in ("test", "val"):
        for path in (root / part).rglob("*.png"):
            poisoned.save(path)
    after = module(root, tmp_path / "c")
    assert not np.array_equal(before.pixels.array, after.pixels.array)
    assert torch.equal(before.mean, after.mean)
    assert torch.equal(before.std, after.std)
    poisoned.save(next((root / "train").rglob("*.png")))
    assert not torch.equal(module(root, tmp_path / "c").mean, before.mean)


def test_normalisation_is_the_mean_and_deviation_of_the_training_pixels(tmp_path: Path) -> None:
    data = module(tree(tmp_path / "t"), tmp_path / "c")
    rows = data.parts["train"].dataset.rows
    pixels = data.pixels.array[rows].reshape(-1, 3) / 255
    assert torch.allclose(data.mean, torch.tensor(pixels.mean(axis=0), dtype=torch.float32), atol=1e-6)
    assert torch.allclose(data.std, torch.tensor(pixels.std(axis=0), dtype=torch.float32), atol=1e-6)
    assert module(tmp_path / "t", tmp_path / "c", normalisation="imagenet").mean.tolist() == pytest.approx(
        IMAGENET_MEAN
    )


def test_every_image_is_evaluated_once(tmp_path: Path) -> None:
    data = module(tree(tmp_path / "t"), tmp_path / "c")
    for part in ("val", "test"):
        indices = [i for batch in data.loader(part) for i in batch["index"].tolist()]
        assert indices == list(range(10))
    labels = torch.cat([batch["label"] for batch in data.test_dataloader()]).tolist()
    assert labels == [r.label for r in data.parts["test"].records]
    assert data.class_counts == [5, 5]
    assert data.evaluation_size == (37, 56)


def test_subtypes_need_names_that_say_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="task=subtype needs BreakHis names"):
        module(tree(tmp_path / "t"), tmp_path / "c", task="subtype")
