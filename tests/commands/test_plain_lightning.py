"""What a user of Lightning tries first: Classifier and BreakHisDataModule in a plain Trainer, without this package's commands."""

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
)
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.tuner import Tuner
from torch import nn

from histo_lightning import BreakHisDataModule, Classifier
from histo_lightning.errors import UserError

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory .* exists and is not empty.*"),
    pytest.mark.filterwarnings("ignore:.*Couldn't infer the batch indices.*"),
    pytest.mark.filterwarnings("ignore:.*You requested to overfit.*"),
    pytest.mark.filterwarnings("ignore:.*have no `validation_step`.*"),
]

FEW_IMAGES: dict[str, Any] = {"images_per_slide": 2, "synthetic_size": 140}


@pytest.fixture
def data(cache_dir: Path) -> BreakHisDataModule:
    return BreakHisDataModule(image_size=32, cache_dir=cache_dir / "histo_lightning", **FEW_IMAGES)


@pytest.fixture
def small() -> Classifier:
    torch.manual_seed(0)
    return Classifier("resnet10")


def trainer(tmp_path: Path, **flags: Any) -> pl.Trainer:
    silent = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return pl.Trainer(**{"default_root_dir": tmp_path, **silent, **flags})


def test_fit_with_defaults_sanity_check_included(
    tmp_path: Path, data: BreakHisDataModule, small: Classifier
) -> None:
    run = trainer(tmp_path, max_epochs=1)
    run.fit(small, data)
    assert run.num_sanity_val_steps == 2
    assert {"train/loss", "train/accuracy", "val/loss", "val/case_auroc"} <= set(run.callback_metrics)
    kept = run.checkpoint_callback.best_model_path
    again = Classifier.from_checkpoint(kept)
    assert again.metadata["seen_cases"] == data.describe()["seen_cases"]
    assert torch.equal(again.network.conv1.weight, small.network.conv1.weight)
    assert again.metadata["epoch"] == 0


def test_validate_and_test_on_a_fresh_and_on_a_trained_module(
    tmp_path: Path, data: BreakHisDataModule, small: Classifier
) -> None:
    run = trainer(tmp_path, max_epochs=1, logger=False, enable_checkpointing=False)
    fresh = run.validate(small, data, verbose=False)[0]
    assert fresh["val/loss"] == pytest.approx(math.log(2), abs=0.5)
    run.fit(small, data)
    (tested,) = run.test(small, data, verbose=False)
    assert set(tested) == {
        f"test/{name}"
        for name in ("loss", "accuracy", "balanced_accuracy", "auroc", "case_auroc", "case_log_loss")
    }


def test_predict_gives_each_image_once_with_its_name(
    tmp_path: Path, data: BreakHisDataModule, small: Classifier
) -> None:
    batches = trainer(tmp_path, logger=False).predict(small, data)
    names = [name for batch in batches for name in batch["image"]]
    logits = torch.cat([batch["logits"] for batch in batches])
    records = data.parts["test"].records
    assert len(logits) == len(names)
    assert logits.dtype == torch.float32
    assert set(names) == {record.image for record in records}
    first = dict(reversed(list(zip(names, logits, strict=True))))
    by_hand = small.eval().exact_logits(
        data.view({"image": data.parts["test"][0]["image"][None], "label": None}, training=False)["image"]
    )
    assert torch.allclose(first[records[0].image], by_hand[0], atol=1e-5)


@pytest.mark.parametrize(
    ("flags", "steps"),
    [
        ({"fast_dev_run": True}, 1),
        ({"max_epochs": 2, "overfit_batches": 2}, 4),
        ({"max_epochs": 1, "limit_train_batches": 3, "limit_val_batches": 1}, 3),
        ({"max_epochs": 1, "limit_train_batches": 4, "val_check_interval": 0.5}, 4),
        ({"max_epochs": 2, "limit_train_batches": 4, "accumulate_grad_batches": 2}, 4),
        ({"max_steps": 5, "max_epochs": 100}, 5),
        ({"max_epochs": -1, "max_steps": 14}, 14),
        ({"max_epochs": 1, "limit_val_batches": 0, "limit_train_batches": 2}, 2),
    ],
)
def test_flags_of_the_trainer(
    tmp_path: Path, data: BreakHisDataModule, small: Classifier, flags: dict[str, Any], steps: int
) -> None:
    run = trainer(tmp_path, logger=False, enable_checkpointing=False, **flags)
    run.fit(small, data)
    assert run.global_step == steps
    assert math.isfinite(run.callback_metrics["train/loss"])


def test_overfit_batches_are_the_same_ones_every_epoch(tmp_path: Path, data: BreakHisDataModule) -> None:
    seen: list[list[int]] = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            seen.append(batch["index"].tolist())

    run = trainer(
        tmp_path,
        logger=False,
        enable_checkpointing=False,
        overfit_batches=2,
        max_epochs=3,
        callbacks=[Watch()],
    )
    run.fit(Classifier("resnet10"), data)
    assert seen[0:2] == seen[2:4] == seen[4:6]
    assert seen[0] != seen[1]


class Rates(pl.Callback):
    """The learning rate of every step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("flags", "steps"),
    [
        ({"max_steps": 9}, 9),
        ({"max_epochs": 2, "limit_train_batches": 6, "accumulate_grad_batches": 3}, 4),
    ],
)
def test_a_schedule_spans_max_steps_and_accumulated_steps(
    tmp_path: Path, data: BreakHisDataModule, flags: dict[str, Any], steps: int
) -> None:
    watch = Rates()
    cosine = {"_target_": "histo_lightning.models.schedules.Cosine", "warmup_epochs": 0, "final_ratio": 0.0}
    module = Classifier("resnet10", scheduler=cosine, lr=0.1)
    trainer(tmp_path, logger=False, enable_checkpointing=False, callbacks=[watch], **flags).fit(module, data)
    wanted = [0.1 * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
    assert watch.rates == pytest.approx(wanted)


def test_without_an_end_the_fit_goes_on_until_a_callback_stops_it(
    tmp_path: Path, data: BreakHisDataModule
) -> None:
    stop = EarlyStopping("val/loss", patience=0, min_delta=10.0)
    run = trainer(
        tmp_path,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        callbacks=[stop],
        limit_train_batches=2,
    )
    run.fit(Classifier("resnet10"), data)
    assert run.current_epoch == 2


def test_callbacks_of_lightning(tmp_path: Path, data: BreakHisDataModule, small: Classifier) -> None:
    kept = ModelCheckpoint(tmp_path / "kept", monitor="val/case_log_loss", filename="{epoch}", save_last=True)
    run = trainer(
        tmp_path,
        max_epochs=2,
        logger=CSVLogger(tmp_path),
        log_every_n_steps=1,
        callbacks=[EarlyStopping("val/loss"), kept, LearningRateMonitor(), EMAWeightAveraging(decay=0.9)],
    )
    run.fit(small, data)
    assert Path(kept.best_model_path).is_file()
    assert (tmp_path / "kept" / "last.ckpt").is_file()
    header = (Path(run.logger.log_dir) / "metrics.csv").read_text().splitlines()[0]
    assert {"lr", "val/loss", "train/loss"} <= set(header.split(","))
    restored = Classifier.from_checkpoint(kept.best_model_path)
    assert not restored.training


def test_learning_rate_finder_and_batch_size_scaler(
    tmp_path: Path, data: BreakHisDataModule, small: Classifier
) -> None:
    run = trainer(tmp_path, max_epochs=8, logger=False, enable_checkpointing=False)
    found = Tuner(run).lr_find(small, data, num_training=40, early_stop_threshold=None)
    assert len(found.results["loss"]) >= 40
    assert small.lr == found.suggestion()
    run = trainer(tmp_path, max_epochs=1, logger=False, enable_checkpointing=False)
    size = Tuner(run).scale_batch_size(small, datamodule=data, max_trials=2, init_val=5, steps_per_trial=1)
    assert size == data.batch_size == 10


SCRIPT = """
import sys
import pytorch_lightning as pl
from histo_lightning import BreakHisDataModule, Classifier

data = BreakHisDataModule(image_size=32, images_per_slide=2, synthetic_size=140, cache_dir=sys.argv[1])
pl.seed_everything(0)
trainer = pl.Trainer(accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, logger=False, enable_checkpointing=False,
                     enable_progress_bar=False, enable_model_summary=False)
model = Classifier("resnet10")
trainer.fit(model, data)
(scores,) = trainer.test(model, data, verbose=False)
batches = trainer.predict(model, data)
names = [name for batch in batches for name in batch["image"]]
found = trainer.global_rank, len(set(names)), len(data.parts["test"].records), round(scores["test/loss"], 6)
sys.stdout.write(f"RANK {found}\\n")  # at once: both processes write
"""


def test_two_processes(tmp_path: Path, data: BreakHisDataModule, cache_dir: Path) -> None:
    data.setup()
    (tmp_path / "two.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "two.py", str(cache_dir / "histo_lightning")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines = sorted(re.findall(r"RANK \((\d), (\d+), (\d+), ([\d.]+)\)", done.stdout))
    assert [line[0] for line in lines] == ["0", "1"], done.stdout
    assert lines[0][3] == lines[1][3]  # the same score on both
    shares = [int(line[1]) for line in lines]
    assert sum(shares) >= int(lines[0][2])
    assert max(shares) < int(lines[0][2])


class Foreign(pl.LightningModule):
    """Somebody else's module, which knows nothing of this package."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return nn.functional.cross_entropy(self.layer(batch["image"].mean(dim=(2, 3))), batch["label"])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_foreign_module_trains_on_the_data_module(tmp_path: Path, data: BreakHisDataModule) -> None:
    module = Foreign()
    before = module.layer.weight.clone()
    trainer(tmp_path, max_epochs=1, logger=False, enable_checkpointing=False).fit(module, data)
    assert not torch.equal(before, module.layer.weight)


def test_a_batch_looks_like_its_docstring_with_and_without_a_trainer(
    tmp_path: Path, data: BreakHisDataModule
) -> None:
    data.setup()
    alone = next(iter(data.train_dataloader()))
    seen: list[Any] = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            seen.append(batch)

    trainer(
        tmp_path,
        max_epochs=1,
        limit_train_batches=1,
        logger=False,
        enable_checkpointing=False,
        callbacks=[Watch()],
    ).fit(Foreign(), data)
    for batch in (alone, seen[0]):
        assert batch["image"].dtype == torch.float32
        assert batch["image"].shape == (16, 3, 32, 32)
        assert batch["image"].is_contiguous(memory_format=torch.channels_last)
        assert {batch[name].dtype for name in ("label", "index", "case")} == {torch.int64}
    assert torch.equal(alone["image"], seen[0]["image"])


def test_loaders_given_by_hand_train_like_the_data_module(tmp_path: Path, data: BreakHisDataModule) -> None:
    data.setup()
    torch.manual_seed(0)
    one, two = Foreign(), Foreign()
    two.load_state_dict(one.state_dict())
    flags: dict[str, Any] = {"max_epochs": 2, "logger": False, "enable_checkpointing": False}
    trainer(tmp_path, **flags).fit(one, data.train_dataloader())
    trainer(tmp_path, **flags).fit(two, data)
    assert torch.equal(one.layer.weight, two.layer.weight)


def test_loaders_before_setup_say_what_to_do(data: BreakHisDataModule) -> None:
    with pytest.raises(UserError, match=r"call prepare_data\(\) and setup\(\)"):
        data.train_dataloader()


def test_the_data_module_says_what_it_is_and_keeps_primitives(data: BreakHisDataModule) -> None:
    assert "call setup()" in str(data)
    data.setup()
    assert "images: train" in str(data)

    def primitive(value: Any) -> bool:
        if isinstance(value, dict):
            return all(primitive(item) for item in value.values())
        if isinstance(value, (list, tuple)):
            return all(primitive(item) for item in value)
        return value is None or isinstance(value, (bool, int, float, str))

    assert primitive(dict(data.hparams))
    assert data.hparams["image_size"] == 32


def test_defaults_are_those_of_the_config_files() -> None:
    from hydra import compose, initialize_config_dir

    from histo_lightning.config.tree import conf_dir

    for name in ("synthetic", "breakhis", "folders"):
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            composed = compose("train", overrides=[f"dataset={name}"])
        data = BreakHisDataModule(name, "/nowhere")
        assert (data.recipe.size, data.batch_size) == (composed.image_size, composed.batch_size)
        assert data.split_settings.name == composed.split.name
        assert data.recipe.brightness == composed.augment.brightness


def test_fold_and_augment_mean_what_the_keys_mean(cache_dir: Path) -> None:
    cache = cache_dir / "histo_lightning"
    one = BreakHisDataModule(image_size=32, fold=1, augment="none", cache_dir=cache, **FEW_IMAGES)
    one.setup()
    assert one.split is not None
    assert one.split.fold == 1
    assert one.evaluation_size == (32, 32)
    batch = next(iter(one.val_dataloader()))
    assert batch["image"].shape[2:] == (32, 32)
    field = BreakHisDataModule(
        image_size=32, augment={"name": "none", "evaluate": "field"}, cache_dir=cache, **FEW_IMAGES
    )
    field.setup()
    assert next(iter(field.val_dataloader()))["image"].shape[2:] == field.evaluation_size != (32, 32)
    assert BreakHisDataModule(split="official").split_settings.fold == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "resnet19"}, "did you mean"),
        ({"num_classes": 1}, "from 2 to"),
        ({"optimizer": {"_target_": "os.system", "command": "true"}}, "is no Optimizer"),
        ({"optimizer": {"_target_": "torch.optim.SGD", "lr": -1.0}}, "refuses its arguments"),
        ({"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1, "betas": [0.9, 0.99]}}, "no such argument"),
        ({"optimizer": "adamx"}, "allowed are"),
        ({"scheduler": {"_target_": "torch.optim.SGD", "lr": 1.0}}, "is no LRScheduler"),
        ({"class_weights": [1.0]}, "give 2 numbers"),
        ({"label_smoothing": 1.5}, "from 0 to 0.999"),
        ({"head": "deep"}, "allowed are linear, mlp"),
        ({"monitor": "val/los"}, "allowed are"),
        ({"model": {"_target_": "torch.hub.load", "repo_or_dir": "x"}}, "is not a network of"),
        (
            {"model": {"_target_": "torchvision.models.resnet.load_state_dict_from_url", "url": "x"}},
            "no 'load_state",
        ),
    ],
)
def test_wrong_settings_are_refused_when_constructed(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Classifier(**settings)


def test_a_torchvision_network(tmp_path: Path, data: BreakHisDataModule) -> None:
    module = Classifier(
        {"_target_": "torchvision.models.squeezenet1_1"}, optimizer="sgd", freeze_backbone=True
    )
    assert {name.split(".")[0] for name, p in module.network.named_parameters() if p.requires_grad} == {
        "classifier"
    }
    run = trainer(
        tmp_path, max_epochs=1, limit_train_batches=2, logger=False, callbacks=[ModelCheckpoint(tmp_path)]
    )
    run.fit(module, data)
    again = Classifier.from_checkpoint(run.checkpoint_callback.best_model_path)
    image = torch.zeros(1, 3, 64, 64)
    assert torch.equal(again(image), module.cpu().eval()(image))


def test_every_default_of_the_dataclasses_runs(
    tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from histo_lightning.config.schema import Config, DatasetConfig
    from histo_lightning.training.run import run_training

    config = replace(
        Config(), output_dir=str(tmp_path), cache_dir=str(cache_dir / "histo_lightning"), epochs=1
    )
    # The only other changes: one epoch at 112 pixels takes a minute, and so does drawing the images.
    config.image_size, config.dataset = 32, DatasetConfig(images_per_slide=2, image_size=140)
    monkeypatch.setattr(
        "histo_lightning.classifier.hardware.cores", lambda: 1
    )  # another test runs beside this one
    folder = run_training(config)
    assert np.isfinite(float((folder / "history.csv").read_text().splitlines()[1].split(",")[2]))
    assert (folder / "checkpoints" / "best.ckpt").is_file()
