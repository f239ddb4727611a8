"""What a config describes, built: the same objects that Lightning's users make by hand."""

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping, EMAWeightAveraging, LearningRateMonitor, Timer
from pytorch_lightning.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger

from factories.configs import composed
from factories.runs import restored
from histo_lightning.callbacks.checkpoints import BestAndLast
from histo_lightning.callbacks.progress import EpochProgress
from histo_lightning.classifier.hardware import Hardware
from histo_lightning.config.schema import Config
from histo_lightning.data import BreakHisDataModule
from histo_lightning.errors import UserError
from histo_lightning.training.checks import check_keys, factors
from histo_lightning.training.objects import (
    build_callbacks,
    build_datamodule,
    build_loggers,
    build_trainer,
    monitor_name,
    without_hints,
)

CPU = Hardware("cpu", "32-true", False, 1)


def test_callbacks_are_built_from_their_entries(tmp_path: Path) -> None:
    config = composed(
        "callbacks=[default,ema]",
        "callbacks.ema.decay=0.9",
        "callbacks.early_stopping.monitor=val_accuracy",
        "+callbacks.timer._target_=pytorch_lightning.callbacks.Timer",
        "callbacks.timer.duration=00:01:00:00",
        "trainer.progress=none",
    )
    built = dict(zip(config.callbacks, build_callbacks(config, tmp_path), strict=True))
    kept = built["model_checkpoint"]
    assert isinstance(kept, BestAndLast)
    assert (kept.monitor, kept.mode) == ("val/case_log_loss", "min")
    assert Path(str(kept.dirpath)) == tmp_path / "checkpoints"
    stopping = built["early_stopping"]
    assert isinstance(stopping, EarlyStopping)
    assert (stopping.monitor, stopping.mode, stopping.patience) == ("val/accuracy", "max", 60)
    assert isinstance(built["lr_monitor"], LearningRateMonitor)
    assert isinstance(built["ema"], EMAWeightAveraging)
    assert isinstance(built["timer"], Timer)
    progress = built["progress"]
    assert isinstance(progress, EpochProgress)
    assert (progress.style, progress.bar) == ("none", False)


def test_loggers_write_into_the_run_folder_unless_they_say_otherwise(tmp_path: Path) -> None:
    board, table = build_loggers(composed("logger=[tensorboard,csv]"), tmp_path)
    assert isinstance(board, TensorBoardLogger)
    assert isinstance(table, CSVLogger)
    assert (Path(board.log_dir), Path(table.log_dir)) == (tmp_path / "tensorboard", tmp_path / "csv")
    (elsewhere,) = build_loggers(composed("logger=csv", f"logger.csv.save_dir={tmp_path}/x"), tmp_path)
    assert Path(elsewhere.log_dir) == tmp_path / "x" / "csv"  # type: ignore[attr-defined]
    assert build_loggers(composed("logger=none"), tmp_path) == []


def test_a_logger_whose_package_is_missing_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from histo_lightning.training import objects

    monkeypatch.setattr(objects, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"logger=mlflow: mlflow is not installed; pip install"):
        objects.check_targets(composed("logger=mlflow"))
    assert MLFlowLogger.__name__ in objects.LOGGER_PACKAGES


def test_the_trainer_is_lightning_s_with_its_flags(tmp_path: Path) -> None:
    config = composed(
        "trainer=cpu", "epochs=3", "trainer.accumulate_grad_batches=2", "trainer.max_steps=7",
        "trainer.num_sanity_val_steps=1", "trainer.gradient_clip_val=0.5",
    )  # fmt: skip
    with restored():
        trainer = build_trainer(config, tmp_path, CPU, build_callbacks(config, tmp_path), [])
        assert (trainer.max_epochs, trainer.max_steps, trainer.accumulate_grad_batches) == (3, 7, 2)
        assert (trainer.num_sanity_val_steps, trainer.gradient_clip_val) == (1, 0.5)
        assert trainer.loggers == []
        assert torch.are_deterministic_algorithms_enabled()
        assert trainer.checkpoint_callback is not None
        bare = build_trainer(composed("callbacks=none", "trainer=cpu"), tmp_path, CPU, [], [])
        assert bare.checkpoint_callback is None
        assert bare.progress_bar_callback is None


@pytest.mark.parametrize(
    "name", ["max_epochs", "callbacks", "logger", "plugins", "default_root_dir", "max_epoch"]
)
def test_flags_that_have_keys_of_their_own_here_are_refused(name: str) -> None:
    from histo_lightning.training.objects import check_targets

    config = Config()
    config.trainer.flags = {name: 1}
    with pytest.raises(UserError, match=rf"unknown key 'trainer\.{name}'"):
        check_targets(config)


def test_the_data_module_has_the_config_s_settings() -> None:
    config = composed(
        "dataset=synthetic_large", "image_size=64", "augment=thesis", "sampler=case_balanced", "split=official",
        "split.fold=2", "trainer.workers=3", "seed=5", "magnification=200x",
    )  # fmt: skip
    data = build_datamodule(config)
    drawn = data.dataset_settings
    assert (drawn.images_per_slide, drawn.image_size, data.batch_size) == (1, 700, 32)
    assert (data.recipe.size, data.recipe.name, data.normalisation) == (64, "thesis", "imagenet")
    assert (data.split_settings.name, data.split_settings.fold) == ("official", 2)
    assert (data.sampler, data.workers, data.seed, data.magnification) == ("case_balanced", 3, 5, "200x")
    settings = build_datamodule(Config()).settings()
    assert settings == BreakHisDataModule().settings()


def test_names_of_scores() -> None:
    assert monitor_name("val_case_log_loss") == "val/case_log_loss"
    names = factors(composed("trainer.accumulate_grad_batches=2"))
    assert {"model", "optimizer", "optimizer.lr", "trainer.accumulate_grad_batches", "seed"} <= set(names)
    assert not any("flags" in name for name in names)


def test_nothing_heavy_is_needed_to_check_keys() -> None:
    config = composed()
    check_keys(config)
    with pytest.raises(UserError, match=r"batch_size=15: is shared by all devices"):
        check_keys(replace(config, batch_size=15, trainer=replace(config.trainer, devices=2, strategy="ddp")))


def test_lightning_s_hints_are_silent_and_other_warnings_are_not() -> None:
    with without_hints():
        warnings.warn("The `srun` command is available on your system but is not used.", stacklevel=1)
        with pytest.raises(UserWarning, match="something else"):
            warnings.warn("something else", UserWarning, stacklevel=1)
