"""The LightningModule: network, loss, optimizer, schedule and epoch metrics."""

import pickle
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from histo_lightning import __version__
from histo_lightning.epoch_metrics import PartMetrics, TrainingMetrics
from histo_lightning.errors import UserError
from histo_lightning.models import build_network
from histo_lightning.models.optim import build_optimizer, build_scheduler

CHECKPOINT_FORMAT = 1
Batch = dict[str, Tensor]


class Classifier(LightningModule):
    """A ResNet with a log-softmax output and the NLL loss.

    All arguments are primitives, so a checkpoint loads under ``weights_only=True``.

    Args:
        model, num_classes, head, hidden, dropout, stem, zero_init_residual: the network; see ``build_network``.
        freeze_backbone: only the head learns; ``frozen_norm`` says whether its batch norms then use batch
            statistics (``train``, as in the thesis) or running ones (``eval``).
        optimizer, scheduler: ``name`` and numbers; see ``conf/optimizer`` and ``conf/scheduler``.
        class_weights: weight of each class in the training loss; None weighs all the same.
        label_smoothing: share of the target spread over all classes, in training only.
        monitor, monitor_mode: what a plateau schedule watches.
    """

    metadata: dict[str, Any]

    def __init__(
        self,
        model: str = "resnet18",
        num_classes: int = 2,
        *,
        head: str = "linear",
        hidden: int = 512,
        dropout: float = 0.05,
        stem: str = "standard",
        zero_init_residual: bool = True,
        freeze_backbone: bool = False,
        frozen_norm: str = "train",
        optimizer: dict[str, Any] | None = None,
        scheduler: dict[str, Any] | None = None,
        class_weights: list[float] | None = None,
        label_smoothing: float = 0.0,
        monitor: str = "val/case_log_loss",
        monitor_mode: str = "min",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = build_network(
            model,
            num_classes,
            head=head,
            hidden=hidden,
            dropout=dropout,
            stem=stem,
            zero_init_residual=zero_init_residual,
        )
        self.freeze_backbone, self.frozen_norm = freeze_backbone, frozen_norm
        if freeze_backbone:
            for parameter in self.network.parameters():
                parameter.requires_grad_(False)
            for parameter in self.network.fc.parameters():
                parameter.requires_grad_(True)
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        self.label_smoothing = label_smoothing
        self.optimizer_settings = optimizer or {"name": "adamw", "lr": 1e-3}
        self.scheduler_settings = scheduler or {"name": "constant"}
        self.monitor, self.monitor_mode = monitor, monitor_mode
        self.train_metrics = TrainingMetrics()
        self.val_metrics = PartMetrics(num_classes)
        self.metadata = {}

    def logits(self, images: Tensor) -> Tensor:
        """Images, float B x 3 x H x W, normalised -> logits, float32 B x classes."""
        out: Tensor = self.network(images)
        return out.float()

    def forward(self, images: Tensor) -> Tensor:
        """Images, float B x 3 x H x W, normalised -> log probabilities, float32 B x classes."""
        return functional.log_softmax(self.logits(images), dim=1)

    def train(self, mode: bool = True) -> "Classifier":
        super().train(mode)
        if mode and self.freeze_backbone and self.frozen_norm == "eval":
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        logits = self.logits(batch["image"])
        weight = self.class_weights
        # Cross entropy of logits is the NLL of their log-softmax.
        loss = functional.cross_entropy(
            logits,
            batch["label"],
            weight=weight if isinstance(weight, Tensor) else None,
            label_smoothing=self.label_smoothing,
        )
        self.train_metrics.update(loss.detach(), logits.detach(), batch["label"])
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.val_metrics.update(self.logits(batch["image"]), batch["label"], batch["case"], batch["index"])

    def on_validation_epoch_end(self) -> None:
        """Log everything once an epoch; the only place where numbers leave the device.

        Raises:
            UserError: the loss is not finite.
        """
        values = {f"val/{name}": value for name, value in self.val_metrics.compute().items()}
        self.val_metrics.reset()
        if self.trainer.training or self.trainer.validating:
            values |= {f"train/{name}": value for name, value in self.train_metrics.compute().items()}
            self.train_metrics.reset()
        for name in ("train/loss", "val/loss"):
            if not bool(torch.isfinite(values[name])):
                raise UserError(
                    f"{name.replace('/', '_')} became {float(values[name])} in epoch {self.current_epoch}: the training "
                    "diverged; lower optimizer.lr, or set optimizer.clip_norm=1"
                )
        self.log_dict(values, sync_dist=self.trainer.world_size > 1)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm of all gradients; Lightning's own way refuses fused optimizers where nothing is scaled."""
        if gradient_clip_val and self.trainer.precision != "16-mixed":
            nn.utils.clip_grad_norm_(self.network.parameters(), gradient_clip_val)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = build_optimizer(
            self.network.parameters(), self.optimizer_settings, fused=self.trainer.precision != "16-mixed"
        )
        epochs = self.trainer.max_epochs or 1
        schedule: Any = build_scheduler(
            optimizer,
            self.scheduler_settings,
            steps_per_epoch=max(int(self.trainer.estimated_stepping_batches) // epochs, 1),
            epochs=epochs,
            monitor=self.monitor,
            mode=self.monitor_mode,
        )
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["histo_lightning"] = {
            "format": CHECKPOINT_FORMAT,
            "version": __version__,
            "output_size": int(self.hparams["num_classes"]),
            **self.metadata,
            "epoch": int(self.current_epoch),
        }

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> "Classifier":
        """A classifier with a checkpoint's weights, in evaluation mode on the CPU; ``metadata`` says the rest.

        Raises:
            UserError: no such file, not a checkpoint of ours, another format, or weights that do not fit.
        """
        checkpoint = read_checkpoint(path)
        classifier = cls(**checkpoint["hyper_parameters"])
        load_state(classifier, checkpoint["state_dict"], path)
        classifier.metadata = checkpoint["histo_lightning"]
        return classifier.eval()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint of ours safely (``weights_only=True``), on the CPU.

    Raises:
        UserError: no such file, damaged, not ours, or of another format.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"{file}: no such checkpoint; give a run's checkpoints/best.ckpt")
    try:
        checkpoint: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError, ValueError, KeyError) as error:
        raise UserError(
            f"{file}: cannot be read as a checkpoint ({str(error).splitlines()[0][:120]})"
        ) from error
    about = checkpoint.get("histo_lightning") if isinstance(checkpoint, dict) else None
    if not isinstance(about, dict) or "hyper_parameters" not in checkpoint:
        raise UserError(f"{file}: not a checkpoint of histo_lightning; plain weights go to model.weights")
    if about.get("format") != CHECKPOINT_FORMAT:
        raise UserError(
            f"{file}: its format is {about.get('format')}, this version reads {CHECKPOINT_FORMAT}; "
            f"use histo_lightning {about.get('version')}"
        )
    return dict(checkpoint)


def load_state(classifier: Classifier, state: dict[str, Any], path: str | Path) -> None:
    """Load weights strictly; raise UserError that names the first parameter that does not fit."""
    try:
        classifier.load_state_dict(state, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
        raise UserError(
            f"{path}: its weights do not fit this network ({lines[0] if lines else error}); use the same model, head and stem"
        ) from error
