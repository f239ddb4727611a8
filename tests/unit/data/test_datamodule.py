"""The data module: usable by any LightningModule, fitted on train alone, the same with any loader."""

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
from histo_lightning.data.augment import IMAGENET_MEAN, STEPS, augmentation_step, check_steps
from histo_lightning.data.batches import Loader
from histo_lightning.errors import UserError

D4 = {"name": "d4", "dihedral": True, "brightness": 0.1}
PILLOW = {
    "name": "thesis_pillow",
    "horizontal_flip": True,
    "rotation_degrees": 15,
    "crop_scale": (0.3, 1),
    "evaluate": "center",
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
    settings = {"image_size": 32, "augment": D4, "batch_size": 4, "cache_dir": cache} | more
    data = BreakHisDataModule("folders", str(root), **settings)
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
    rows = data.parts["train"].rows
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
    assert labels == [int(r.class_name == "malignant") for r in data.parts["test"].records]
    assert data.class_counts == [5, 5]
    assert data.evaluation_size == (37, 56)


def test_subtypes_need_names_that_say_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="task=subtype needs BreakHis names"):
        module(tree(tmp_path / "t"), tmp_path / "c", task="subtype")


def assert_same_batches(one, two) -> None:
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("augment", ["d4", "thesis_pillow"])
def test_batches_do_not_depend_on_the_number_of_workers(tmp_path: Path, augment: str) -> None:
    root = tree(tmp_path / "t")
    found = []
    for workers in (0, 1, 2):
        keys = D4 if augment == "d4" else PILLOW
        data = module(root, tmp_path / "c", workers=workers, augment=keys)
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
    data = module(tree(tmp_path / "t"), tmp_path / "c", augment=PILLOW)
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
    data = module(tree(tmp_path / "t"), tmp_path / "c", augment=recipe)
    classifier = Classifier({"_target_": "histo_lightning.models.resnet.resnet10", "stem": "small"})
    loader = Loader(
        data.parts["train"],
        data.train_dataloader().batch_sampler,
        stored=data.parts["train"].stored_on(torch.device("cpu")),
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
    stored = data.parts["train"].stored_on(torch.device("cpu"))
    for part, train in (("train", True), ("val", False)):
        direct = data.loader(part, train=train)
        resident = Loader(data.parts[part], direct.batch_sampler, stored=stored)
        assert len(resident) == len(direct)
        seen = [data.view(batch, training=train) for batch in resident]
        assert_same_batches(list(direct), seen)


# --- an augmentation step of one's own ---


@pytest.fixture
def darken():
    """A step registered as a user's module does it; gone afterwards."""

    @augmentation_step("darken")
    def step(images: torch.Tensor, numbers: torch.Tensor, *, low: float = 0.5, twice: bool = False):
        share = low + (1 - low) * numbers[:, :1, None, None]
        return images.float() * (share**2 if twice else share)

    yield step
    del STEPS["darken"]


def test_a_step_of_one_s_own_changes_training_images_alone(tmp_path: Path, darken) -> None:
    root = tree(tmp_path / "t")
    keys = {"name": "d4", "steps": {"darken": {"low": 0.25}}}
    plain = module(root, tmp_path / "c", augment={"name": "d4"})
    mine = module(root, tmp_path / "c", augment=keys)
    one, two = (next(iter(data.train_dataloader()))["image"] for data in (plain, mine))
    values = [data * plain.std[:, None, None] + plain.mean[:, None, None] for data in (one, two)]
    shares = [float(b.sum() / a.sum()) for a, b in zip(*values, strict=True)]
    assert all(0.25 <= share <= 1 for share in shares)
    assert len({round(share, 4) for share in shares}) == len(shares)
    again = next(iter(module(root, tmp_path / "c", augment=keys).train_dataloader()))["image"]
    assert torch.equal(two, again)
    assert_same_batches(list(plain.val_dataloader()), list(mine.val_dataloader()))
    assert "darken {'low': 0.25}" in mine.recipe.text()


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({"darkn": {}}, r"augment.steps.darkn: no such step; allowed are darken; did you mean 'darken'"),
        ({"darken": {"lw": 1}}, r"augment.steps.darken.lw: step has no such argument; did you mean 'low'"),
        ({"darken": {"low": "x"}}, r"augment.steps.darken.low=x: is of another type; allowed is a number"),
        ({"darken": 3}, r"augment.steps.darken=3: give its arguments"),
    ],
)
def test_what_is_no_step_or_no_argument_of_it_is_refused(darken, steps, message: str) -> None:
    check_steps({"darken": {"low": 1, "twice": True}, "other": None})
    with pytest.raises(UserError, match=message):
        BreakHisDataModule(augment={"name": "d4", "steps": steps})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"augment": {"nme": "d4"}}, "augment: 'nme' is no key of it; allowed are"),
        ({"augment": "d5"}, "augment=d5: no such option; allowed are d4"),
        ({"dataset": "breakhiss"}, "dataset=breakhiss: no such option"),
        ({"magnification": "45x"}, "magnification=45x: allowed are 40x"),
        ({"sampler": "cases"}, "sampler=cases: allowed are shuffle, case_balanced"),
        ({"normalisation": "zero"}, "normalisation=zero: allowed are train, imagenet"),
        ({"task": "grade"}, "task=grade: allowed are binary, subtype"),
    ],
)
def test_wrong_settings_are_refused_when_constructed(settings, message: str) -> None:
    with pytest.raises(UserError, match=message):
        BreakHisDataModule(**settings)


def test_stored_pixels_must_be_as_large_as_what_is_cut_from_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset.short_side=20: smaller than image_size=32; leave it null"):
        module(tree(tmp_path / "t"), tmp_path / "c", short_side=20)
