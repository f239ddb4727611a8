"""The data module: usable by any LightningModule, fitted on train alone, honest about groups."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import LightningModule, Trainer
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision import transforms

from histo_lightning.classifier import Classifier
from histo_lightning.data import BreakHisDataModule
from histo_lightning.data.augment import IMAGENET_MEAN, Recipe
from histo_lightning.data.datamodule import resident_pixels
from histo_lightning.data.sampling import Batches, EpochOrder, ResidentLoader
from histo_lightning.data.splits import SplitConfig
from histo_lightning.errors import UserError

RECIPE = Recipe(size=32, name="d4", dihedral=True, brightness=0.1)
PILLOW = Recipe(
    size=32,
    name="thesis_pillow",
    horizontal_flip=True,
    rotation_degrees=15,
    crop_scale=(0.3, 1),
    evaluate="center",
)
RECIPES = {
    "d4": RECIPE,
    "d4_stain": Recipe(size=32, name="d4_stain", dihedral=True, stain_gain=0.2, stain_shift=0.02),
    "thesis": Recipe(size=32, name="thesis", horizontal_flip=True, rotation_degrees=15, crop_scale=(0.3, 1)),
    "none": Recipe(size=32, name="none"),
}
QUIET = {
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


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
    settings = {"recipe": RECIPE, "batch_size": 4, "cache_dir": cache} | more
    data = BreakHisDataModule("folders", str(root), plan=SplitConfig(name="folders"), **settings)
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
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", logger=False, **QUIET)
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
    assert not np.array_equal(before.pixels.shards[0], after.pixels.shards[0])
    assert torch.equal(before.mean, after.mean)
    assert torch.equal(before.std, after.std)
    poisoned.save(next((root / "train").rglob("*.png")))
    assert not torch.equal(module(root, tmp_path / "c").mean, before.mean)


def test_normalisation_is_the_mean_and_deviation_of_the_training_pixels(tmp_path: Path) -> None:
    data = module(tree(tmp_path / "t"), tmp_path / "c")
    rows = data.parts["train"].dataset.rows
    pixels = data.pixels.take(rows).reshape(-1, 3) / 255
    assert torch.allclose(data.mean, torch.tensor(pixels.mean(axis=0), dtype=torch.float32), atol=1e-6)
    assert torch.allclose(data.std, torch.tensor(pixels.std(axis=0), dtype=torch.float32), atol=1e-6)
    assert module(tmp_path / "t", tmp_path / "c", normalisation="imagenet").mean.tolist() == pytest.approx(
        IMAGENET_MEAN
    )


def test_every_image_is_evaluated_in_batches_of_one_shape(tmp_path: Path) -> None:
    data = module(tree(tmp_path / "t"), tmp_path / "c")
    for part in ("val", "test"):
        batches = [batch["index"].tolist() for batch in data.loader(part)]
        assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 8, 9]]  # the last one filled up with its own
    labels = torch.cat([batch["label"] for batch in data.test_dataloader()]).tolist()[:10]
    assert labels == [r.label for r in data.parts["test"].records]
    assert data.class_counts == [5, 5]
    assert data.evaluation_size == (37, 56)


def test_subtypes_need_names_that_say_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="task=subtype needs BreakHis names"):
        module(tree(tmp_path / "t"), tmp_path / "c", task="subtype")


@pytest.mark.parametrize("count", [1, 3, 10, 31, 32, 33, 300, 301])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_batches_cover_everything_on_any_number_of_processes(count: int, world: int) -> None:
    order = EpochOrder([], [], "sequential", 0)
    order.count = count
    shares = [
        list(Batches(order, 32 // world * world, training=False, rank=rank, world=world))
        for rank in range(world)
    ]
    assert len({len(batch) for share in shares for batch in share}) == 1
    assert {len(share) for share in shares} == {len(Batches(order, 32 // world * world, training=False))}
    seen = [index for share in shares for batch in share for index in batch]
    assert set(seen) == set(range(count))
    assert len(seen) - count < max(len(shares[0]) * world, world + 1)  # hardly an image more than one a batch
    assert max(len(batch) for batch in shares[0]) * world <= max(32, world)


def assert_same_batches(one, two) -> None:
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("augment", ["d4", "thesis_pillow"])
def test_batches_do_not_depend_on_the_number_of_workers(tmp_path: Path, augment: str) -> None:
    root = tree(tmp_path / "t")
    found = []
    for workers in (0, 1, 2):
        recipe = RECIPE if augment == "d4" else PILLOW
        data = module(root, tmp_path / "c", workers=workers, recipe=recipe)
        loader = data.train_dataloader()
        epochs = []
        for epoch in (0, 1, 2):
            loader.batch_sampler.sampler.set_epoch(epoch)
            epochs += [data.view(batch, training=True, epoch=epoch) for batch in loader]
        found.append(epochs + [data.view(batch, training=False) for batch in data.val_dataloader()])
    assert_same_batches(found[0], found[1])
    assert_same_batches(found[0], found[2])
    assert not torch.equal(found[0][0]["image"], found[0][2]["image"])


def test_batches_after_a_resume_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    root = tree(tmp_path / "t")
    data = module(root, tmp_path / "c")
    whole = fit(data, 3)
    part = Stranger()
    for epochs in (1, 3):
        trainer = Trainer(max_epochs=epochs, accelerator="cpu", logger=False, **QUIET)
        trainer.fit(
            part,
            datamodule=module(root, tmp_path / "c"),
            ckpt_path=tmp_path / "a.ckpt" if epochs == 3 else None,
        )
        trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert len(whole.seen) == len(part.seen) == 6
    for one, two in zip(whole.seen, part.seen, strict=True):
        assert one[:2] == two[:2]
        assert torch.equal(one[2], two[2])


def test_the_thesis_s_pipeline_is_torchvision_s(tmp_path: Path) -> None:
    """Evaluation against a hand-written torchvision chain; training against it under the same seed."""
    data = module(tree(tmp_path / "t"), tmp_path / "c", recipe=PILLOW)
    record = data.parts["val"].records[3]
    image = Image.open(tmp_path / "t" / record.path)
    chain = transforms.Compose([transforms.Resize(37), transforms.CenterCrop(32), transforms.ToTensor()])
    expected = (chain(image) - data.mean[:, None, None]) / data.std[:, None, None]
    batch = next(iter(data.val_dataloader()))
    assert torch.allclose(batch["image"][3], expected, atol=1e-6)
    assert torch.equal(data.view(batch, training=False)["image"], batch["image"])
    before = torch.get_rng_state()
    next(iter(data.train_dataloader()))
    assert torch.equal(torch.get_rng_state(), before)  # dropout does not depend on it


class Transfers(TorchDispatchMode):
    """Counts what would make a GPU wait: values read back, and tensors made from host numbers or lists."""

    SUSPECTS = (
        "_local_scalar_dense",
        "lift_fresh",
        "nonzero",
        "is_nonzero",
        "_unique",
        "unique_dim",
        "masked_select",
    )

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in self.SUSPECTS:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("recipe", ["d4", "d4_stain", "thesis", "none"])
def test_no_step_waits_for_the_device_or_copies_to_it(tmp_path: Path, recipe: str) -> None:
    """Run on the CPU, where the same operations would be called: a step reads nothing back and lifts nothing in."""
    data = module(tree(tmp_path / "t"), tmp_path / "c", recipe=RECIPES[recipe])
    classifier = Classifier("resnet10", 2, stem="small")
    loader = ResidentLoader(
        data.parts["train"].dataset,
        data.train_dataloader().batch_sampler,
        resident_pixels(data.pixels, torch.device("cpu")),
    )
    data.view(next(iter(loader)), training=True)  # constants are put on the device once
    steps = iter(loader)
    first = next(steps)
    with Transfers() as counted:
        for batch in (first, next(steps)):
            seen = data.view(batch, training=True, epoch=1)
            classifier.training_step(seen, 0).backward()
            classifier.validation_step(data.view(batch, training=False), 0)
    assert counted.found == []
    with Transfers() as counted:
        float(torch.ones(2).sum())
        torch.tensor([1.0])
    assert len(counted.found) == 2  # the check can fail


def test_pixels_in_device_memory_give_the_same_batches(tmp_path: Path) -> None:
    data = module(tree(tmp_path / "t"), tmp_path / "c")
    stored = resident_pixels(data.pixels, torch.device("cpu"))
    for part, train in (("train", True), ("val", False)):
        direct = data.loader(part, train=train)
        resident = ResidentLoader(data.parts[part].dataset, direct.batch_sampler, stored)
        assert len(resident) == len(direct)
        assert_same_batches(list(direct), list(resident))
