"""Fit one network in one process: trainer, callbacks, restore, predictions.

:mod:`histo_lightning.training` prepares the data and the run folder, and starts one or several of these.
"""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    RichModelSummary,
)
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.trainer.states import TrainerStatus

from histo_lightning.callbacks.checkpoints import AtomicCheckpointIO, checkpoints
from histo_lightning.callbacks.history import History
from histo_lightning.callbacks.progress import EpochBar, EpochLines
from histo_lightning.classifier import Classifier, load_state, read_checkpoint
from histo_lightning.config import MONITORS
from histo_lightning.cost import cost, reset_peak_memory
from histo_lightning.data.augment import Recipe
from histo_lightning.data.datamodule import BreakHisDataModule
from histo_lightning.data.pixels.cache import Progress
from histo_lightning.errors import UserError
from histo_lightning.hardware import Hardware, resolve
from histo_lightning.models.weights import load_weights
from histo_lightning.prediction import predict_part
from histo_lightning.runs import RunFolder
from histo_lightning.schema import Config


def build_datamodule(config: Config, progress: Progress | None = None) -> BreakHisDataModule:
    """The data module a config describes."""
    settings = asdict(config.augment)
    normalisation = settings.pop("normalisation")
    scale, ratio = settings.pop("crop_scale"), settings.pop("crop_ratio")
    recipe = Recipe(
        size=config.image_size, crop_scale=(scale[0], scale[1]), crop_ratio=(ratio[0], ratio[1]), **settings
    )
    dataset = config.dataset
    return BreakHisDataModule(
        dataset.name,
        dataset.root,
        plan=config.split,
        recipe=recipe,
        magnification=config.magnification,
        task=config.task,
        batch_size=config.batch_size,
        sampler=config.sampler,
        normalisation=normalisation,
        short_side=dataset.short_side,
        images_per_slide=dataset.images_per_slide or 4,
        image_size=dataset.image_size or 350,
        dataset_seed=dataset.seed or 0,
        download=dataset.download,
        url=dataset.url,
        seed=config.seed,
        workers=config.trainer.workers,
        cache_dir=config.cache_dir,
        progress=progress,
    )


def monitor_name(name: str) -> str:
    """``val_loss`` as Lightning and TensorBoard know it: ``val/loss``."""
    return name.replace("_", "/", 1)


def build_classifier(config: Config, data: BreakHisDataModule) -> Classifier:
    """A freshly initialised network with everything that travels in its checkpoint.

    Raises:
        UserError: ``model.weights`` cannot be used.
    """
    if data.split is None:
        raise RuntimeError("the data module is not set up")
    torch.manual_seed(config.seed)
    counts = data.class_counts
    weights = None
    if config.class_weights == "balanced":
        present = sum(count > 0 for count in counts)
        weights = [sum(counts) / (present * count) if count else 0.0 for count in counts]
    classifier = Classifier(
        config.model.name,
        len(counts),
        head=config.head.name,
        hidden=config.head.hidden or 512,
        dropout=0.05 if config.head.dropout is None else config.head.dropout,
        stem=config.model.stem,
        zero_init_residual=config.model.zero_init_residual,
        freeze_backbone=config.model.freeze_backbone,
        frozen_norm=config.model.frozen_norm,
        optimizer=asdict(config.optimizer),
        scheduler=asdict(config.scheduler),
        class_weights=weights,
        label_smoothing=config.label_smoothing,
        monitor=monitor_name(config.monitor),
        monitor_mode=MONITORS[config.monitor],
    )
    if config.model.weights:
        load_weights(classifier.network, config.model.weights, cache_dir=data.cache_dir / "weights")
    split = data.split
    height, width = data.evaluation_size
    classifier.metadata = {
        "config": asdict(config),
        "class_to_idx": data.class_to_idx,
        "input_size": [3, height, width],
        "batch_size": config.batch_size,
        "transforms": data.recipe.text(),
        "normalisation": {"mean": data.mean.tolist(), "std": data.std.tolist()},
        "split_hash": split.hash,
        "train_cases": list(split.cases["train"]),
        "val_cases": list(split.cases["val"]),
        "seen_cases": sorted({*split.cases["train"], *split.cases["val"]}),
        "seen_pixels": data.seen_pixels,
        "threshold": 0.5,
    }
    return classifier


def watchers(config: Config, history: History, bar: bool | None) -> list[Callback]:
    """The callbacks of a fit, without those that write checkpoints."""
    found: list[Callback] = [history, LearningRateMonitor(logging_interval="epoch")]
    if config.ema.decay is not None:
        found.append(EMAWeightAveraging(decay=config.ema.decay))
    if config.early_stopping.patience is not None:
        watched = config.early_stopping.monitor or config.monitor
        found.append(
            EarlyStopping(
                monitor_name(watched),
                mode=MONITORS[watched],
                patience=config.early_stopping.patience,
                min_delta=config.early_stopping.min_delta,
                check_on_train_epoch_end=True,
                verbose=False,
            )
        )
    if bar is not None:
        found.append(EpochBar() if bar else EpochLines())
        found.append(RichModelSummary(max_depth=1))
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what Lightning says about choices that are meant here."""
    with warnings.catch_warnings():
        for text in (
            ".*does not have many workers.*",  # batches come from memory; workers do not help
            ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run
            ".*The number of training batches .* is smaller than the logging interval.*",  # nothing is logged per step
            ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",  # Lightning 2.6 on current torch
            ".*is not supported by the model summary.*",  # it then counts parameters at 32 bits, which they have
        ):
            warnings.filterwarnings("ignore", message=text)
        yield


def fit_and_predict(
    config: Config,
    folder: Path,
    data: BreakHisDataModule,
    *,
    bar: bool | None,
    callbacks: Sequence[Callback] = (),
) -> tuple[dict[str, NDArray[np.float64]], dict[str, Any]]:
    """Train (or go on training), restore the scored weights, and predict train, validation and test once each.

    Args:
        folder: the run folder; Lightning's files go there.
        data: set up already.
        bar: a progress bar, lines, or (None) nothing.
        callbacks: more than the ones that every run has.

    Returns:
        Logits by part (float64, images x classes; no ``test`` where ``test=false``) and facts about the fit:
        ``best_epoch``, ``epochs``, ``train_seconds``, ``monitor``, ``monitored``.

    Raises:
        UserError: the loss diverged, a checkpoint does not fit, the disk is full.
    """
    hardware = resolve(config.trainer)
    torch.set_num_threads(hardware.threads)
    run = RunFolder(folder)
    reset_peak_memory()
    with quiet():
        classifier = build_classifier(config, data)
        count, batch = len(data.parts["train"].records), config.batch_size
        history = History(
            folder / "history.csv", config.monitor, count // batch * batch or count, config.seed
        )
        saving = checkpoints(folder / "checkpoints", monitor_name(config.monitor), MONITORS[config.monitor])
        watching = [*watchers(config, history, bar), *callbacks]
        trainer = build_trainer(config, folder, hardware, [*watching, *saving])
        if not run.status.get("fitted"):
            _fit(trainer, classifier, data, config, folder, hardware)
        elif hardware.accelerator == "gpu":
            classifier.to(f"cuda:{config.trainer.gpu or 0}")
        facts = _restore(classifier, config, folder, trainer)
        facts["cost"] = cost(classifier, config.image_size, facts["train_seconds"])
        if trainer.is_global_zero:
            run.update(fitted=True)
        data.trainer = trainer
        logits = {part: predict_part(classifier, data, part) for part in ("train", "val")}
        if config.test:
            if trainer.is_global_zero:
                run.update(test_read=int(run.status.get("test_read") or 0) + 1)
            logits["test"] = predict_part(classifier, data, "test")
    return logits, facts


def build_trainer(config: Config, folder: Path, hardware: Hardware, callbacks: list[Callback]) -> Trainer:
    """Lightning's trainer with our defaults; its files go to ``folder``."""
    logger = TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)
    if hardware.accelerator == "gpu" and config.trainer.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic matrix products need it
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    return Trainer(
        accelerator=hardware.accelerator,
        devices=config.trainer.devices if config.trainer.gpu is None else [config.trainer.gpu],
        strategy="ddp" if config.trainer.strategy == "ddp" else "auto",
        precision=hardware.precision,  # type: ignore[arg-type]  # checked against CHOICES
        max_epochs=config.epochs,
        callbacks=callbacks,
        logger=logger,
        plugins=[AtomicCheckpointIO()],
        deterministic=config.trainer.deterministic,
        gradient_clip_val=config.optimizer.clip_norm,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # our batches are shared out already
        sync_batchnorm=config.trainer.strategy == "ddp" and hardware.accelerator == "gpu",
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=any(isinstance(callback, EpochBar) for callback in callbacks),
        enable_model_summary=any(isinstance(callback, RichModelSummary) for callback in callbacks),
        log_every_n_steps=10**9,
    )


def _fit(
    trainer: Trainer,
    classifier: Classifier,
    data: BreakHisDataModule,
    config: Config,
    folder: Path,
    hardware: Hardware,
) -> None:
    if config.trainer.channels_last:
        classifier.to(memory_format=torch.channels_last)
    if hardware.compile:
        classifier.network.compile()
    last = folder / "checkpoints" / "last.ckpt"
    start: Path | None = last if last.is_file() else None
    if start is None and config.resume not in ("auto", "never"):
        start = Path(config.resume)
    if start is not None:
        checkpoint = read_checkpoint(start)  # says clearly what is wrong with it
        load_state(classifier, checkpoint["state_dict"], start)
        done = int(checkpoint["histo_lightning"]["epoch"]) + 1
        if start != last and done >= config.epochs:
            raise UserError(
                f"resume={start}: it has {done} epochs behind it; set epochs above that (epochs={config.epochs})"
            )
    try:
        trainer.fit(classifier, datamodule=data, ckpt_path=start, weights_only=True)
    except SystemExit:  # Lightning leaves like this after Ctrl-C
        if trainer.state.status == TrainerStatus.INTERRUPTED:
            raise KeyboardInterrupt from None
        raise
    if trainer.state.status == TrainerStatus.INTERRUPTED:
        raise KeyboardInterrupt


def _restore(classifier: Classifier, config: Config, folder: Path, trainer: Trainer) -> dict[str, Any]:
    """Load the scored weights; what the run's checkpoints say about the fit."""
    last = read_checkpoint(folder / "checkpoints" / "last.ckpt")
    scored = folder / "checkpoints" / f"{config.scored_weights}.ckpt"
    if not scored.is_file():
        raise UserError(
            f"{scored}: is missing, {config.monitor} was never defined on validation; choose another monitor"
        )
    checkpoint = read_checkpoint(scored)
    load_state(classifier, checkpoint["state_dict"], scored)
    history = next(state for name, state in last["callbacks"].items() if name.startswith("History"))
    return {
        "best_epoch": int(checkpoint["histo_lightning"]["epoch"]),
        "epochs": len(history["rows"]),
        "train_seconds": round(sum(history["seconds"]), 3),
        "monitor": config.monitor,
        "monitored": [None if value != value else value for value in history["monitored"]],
    }
