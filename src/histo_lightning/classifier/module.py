"""The LightningModule: network, loss, epoch metrics and checkpoint metadata."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from histo_lightning.classifier.checkpoint import CHECKPOINT_FORMAT, load_state, read_checkpoint
from histo_lightning.classifier.contents import checked_hyper_parameters
from histo_lightning.classifier.metrics import EvaluationMetrics, TrainingMetrics
from histo_lightning.classifier.optimizers import build_optimizer, build_scheduler, check_optimization
from histo_lightning.config.checks import from_stranger
from histo_lightning.config.schema import HyperParameters
from histo_lightning.config.targets import import_modules
from histo_lightning.config.tree import option
from histo_lightning.errors import UserError
from histo_lightning.models import build_network
from histo_lightning.models.networks import head_of
from histo_lightning.runs.version import __version__

Batch = dict[str, Tensor]
NEAR = 0.2  # of two logits: twice what bfloat16 was seen to change their difference by (docs/decisions.md)


class Classifier(LightningModule):
    """A network with log-softmax output and NLL loss for any Trainer, from primitives alone; UserError for what cannot work.

    Args:
        model, optimizer, scheduler: the name of an option in ``conf/``, or ``{"_target_": ..., **arguments}``.
        head, hidden, dropout: ``linear`` or ``mlp``; see ``build_head``.
        freeze_backbone: only the head learns; ``frozen_norm`` says whether its batch norms then use batch
            statistics (``train``, as in the thesis) or running ones (``eval``).
        lr: learning rate; None is that of ``optimizer``.
        class_weights: weight of each class in the training loss; None weighs all the same.
        label_smoothing: share of the target spread over all classes, in training only.
        tta: ``d4``: tested and predicted is the mean probability over an image's eight orientations; ``none``.
        exact_predictions: tested and predicted in float32 whatever the Trainer's precision. Else only images whose two
            best logits are closer than ``NEAR`` are, so that no decision depends on the precision.
        monitor, monitor_mode: what a schedule that waits for improvement watches.
    """

    class_weights: Tensor | None

    def __init__(
        self, model: str | dict[str, Any] = "resnet18", num_classes: int = 2, *, head: str = "linear",
        hidden: int = 512, dropout: float = 0.05, freeze_backbone: bool = False, frozen_norm: str = "train",
        optimizer: str | dict[str, Any] = "adamw", scheduler: str | dict[str, Any] = "cosine", lr: float | None = None,
        class_weights: list[float] | None = None, label_smoothing: float = 0.0, tta: str = "none",
        exact_predictions: bool = False, monitor: str = "val/case_log_loss", monitor_mode: str = "min",
    ) -> None:  # fmt: skip
        super().__init__()
        self.save_hyperparameters(logger=False)
        from_stranger(HyperParameters, self.hparams)
        self.optimizer_settings, self.scheduler_settings = (
            option(group, given) if isinstance(given, str) else dict(given)
            for group, given in (("optimizer", optimizer), ("scheduler", scheduler))
        )
        if lr is not None:
            self.optimizer_settings["lr"] = lr
        weights = [1.0] * num_classes if class_weights is None else class_weights
        if len(weights) != num_classes or not all(0 <= weight < math.inf for weight in weights):
            needed = f"give {num_classes} numbers that are not negative"
            raise UserError(f"class_weights={class_weights}: {needed}")
        check_optimization(self.optimizer_settings, self.scheduler_settings)
        self.network = build_network(model, num_classes, head=head, hidden=hidden, dropout=dropout)
        self.freeze_backbone, self.frozen_norm = freeze_backbone, frozen_norm
        if freeze_backbone:
            self.network.requires_grad_(False)
            head_of(self.network).requires_grad_(True)
        loss_weights = None if class_weights is None else torch.tensor(weights, dtype=torch.float32)
        self.register_buffer("class_weights", loss_weights, persistent=False)
        self.label_smoothing, self.tta, self.exact_predictions = label_smoothing, tta, exact_predictions
        self.monitor, self.monitor_mode = monitor, monitor_mode
        self.train_metrics = TrainingMetrics()
        self.val_metrics = EvaluationMetrics(num_classes)
        self.test_metrics = EvaluationMetrics(num_classes)
        self.metadata: dict[str, Any] = {}
        self.asked = False  # a schedule, at this epoch's end
        self.train()  # Lightning keeps the modes that it finds: a frozen batch norm must be in its own by now

    @property
    def lr(self) -> float:
        """The learning rate that the optimizer starts with; Lightning's LR finder sets it."""
        return float(self.optimizer_settings["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        self.optimizer_settings["lr"] = float(value)

    def logits(self, images: Tensor) -> Tensor:
        """Images, float B x 3 x H x W, normalised -> logits, float32 B x classes."""
        return cast(Tensor, self.network(images)).float()

    def exact_logits(self, images: Tensor) -> Tensor:
        """Logits in float32 arithmetic, whatever the Trainer's precision."""
        with torch.autocast(images.device.type, enabled=False):
            return self.logits(images.float())

    def scored_logits(self, images: Tensor) -> Tensor:
        """Logits that are scored, float32 B x classes; see ``exact_predictions``, and ``tta`` for the log of a mean probability."""
        exact, fast = self.exact_logits, self.logits
        if self.tta == "d4":
            exact, fast = partial(self.averaged, exact), partial(self.averaged, fast)
        if self.exact_predictions or not torch.is_autocast_enabled(images.device.type):
            return exact(images)
        logits = fast(images)
        best, second = logits.topk(2, dim=1).values.unbind(1)
        near = (best - second < NEAR).nonzero()[:, 0]
        if len(near):
            logits[near] = exact(images[near])
        return logits

    def averaged(self, logits_of: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """The log of the mean probability over an image's eight orientations, whose softmax is that mean."""
        turned = [torch.rot90(images, quarters, (2, 3)) for quarters in range(4)]
        views = [view for each in turned for view in (each, each.flip(3))]
        mean = torch.stack([logits_of(view).softmax(dim=1) for view in views]).mean(dim=0)
        return mean.clamp_min(torch.finfo(mean.dtype).tiny).log()

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
        logits, labels = self.logits(batch["image"]), batch["label"]
        options: Any = {"weight": self.class_weights, "label_smoothing": self.label_smoothing}
        loss = functional.cross_entropy(logits, labels, **options)  # the NLL of the logits' log-softmax
        self.train_metrics.update(loss.detach(), logits.detach(), labels, batch.get("index"))
        return loss

    def on_train_epoch_end(self) -> None:
        self._log("train", self.train_metrics)  # once an epoch, where numbers leave the device anyway
        # Lightning asks a schedule that waits for improvement when the epoch's checkpoint is written, which then lacks it.
        self.asked = False  # in the first epoch after a resume Lightning does not ask
        self.trainer.fit_loop.epoch_loop.update_lr_schedulers("epoch", update_plateau_schedulers=True)
        self.asked = True

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if metric is None or not self.asked:
            super().lr_scheduler_step(scheduler, metric)
        else:
            self.asked = False
            self.trainer.fit_loop.epoch_loop.scheduler_progress.increment_by(-1)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.val_metrics.update(self.logits(batch["image"]), batch["label"], batch["case"], batch["index"])

    def on_validation_epoch_end(self) -> None:
        self._log("val", self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        logits = self.scored_logits(batch["image"])
        self.test_metrics.update(logits, batch["label"], batch["case"], batch["index"])

    def on_test_epoch_end(self) -> None:
        self._log("test", self.test_metrics)

    def _log(self, part: str, metrics: TrainingMetrics | EvaluationMetrics) -> None:
        """Log an epoch's scores and start anew. Raises UserError: the loss is not finite."""
        values = {f"{part}/{name}": value for name, value in metrics.compute().items()}
        metrics.reset()
        loss = float(values[f"{part}/loss"])
        if self.trainer.sanity_checking:
            return
        if not math.isfinite(loss):
            problem = f"{part}_loss became {loss} in epoch {self.current_epoch + 1}: the training diverged"
            raise UserError(f"{problem}; lower optimizer.lr, or set trainer.gradient_clip_val=1")
        if self.trainer.state.fn != TrainerFn.FITTING:
            self.log_dict(values, sync_dist=self.trainer.world_size > 1)  # the same on every process already
        else:  # what self.log does in .4 ms a value, as LearningRateMonitor does it
            self.trainer.callback_metrics.update(values)
            self.trainer.logged_metrics.update(values)
            numbers = {"epoch": self.current_epoch} | {name: float(value) for name, value in values.items()}
            for logger in self.loggers:
                logger.log_metrics(numbers, step=self.global_step - 1)
                logger.save()

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """``logits``, float32 B x classes; ``index``, int64 B, positions in the data set; ``image``, names, where it has ``names``."""
        predictions: dict[str, Any] = {"logits": self.scored_logits(batch["image"]), "index": batch["index"]}
        loaders = self.trainer.predict_dataloaders
        loader = loaders[dataloader_idx] if isinstance(loaders, (list, tuple)) else loaders
        names = getattr(getattr(loader, "dataset", None), "names", None)
        if names is not None:
            predictions["image"] = [names[i] for i in batch["index"].tolist()]
        return predictions

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip by the norm of all gradients; Lightning's own way refuses fused optimizers where nothing is scaled."""
        by_norm = gradient_clip_algorithm in (None, "norm")
        if gradient_clip_val and by_norm and self.trainer.precision != "16-mixed":
            nn.utils.clip_grad_norm_(self.network.parameters(), gradient_clip_val)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        fused = self.trainer.precision != "16-mixed"
        optimizer = build_optimizer(self.network.parameters(), self.optimizer_settings, fused=fused)
        total = self.trainer.estimated_stepping_batches  # loads the training data; the next line counts them
        batches = self.trainer.num_training_batches
        per_epoch = 1 if math.isinf(batches) else math.ceil(batches / self.trainer.accumulate_grad_batches)
        steps, watched = (total, max(per_epoch, 1)), (self.monitor, self.monitor_mode)
        schedule: Any = build_scheduler(optimizer, self.scheduler_settings, *steps, *watched)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trainer = self._trainer
        # A plain Trainer's data module of ours knows its part; other data do not.
        describe = getattr(getattr(trainer, "datamodule", None), "describe", dict)
        checkpoint["histo_lightning"] = {
            "format": CHECKPOINT_FORMAT,
            "version": __version__,
            "output_size": int(self.hparams["num_classes"]),
            **(self.metadata or describe()),
            # After a fit Lightning counts one further.
            "epoch": max(self.current_epoch - (trainer is not None and trainer.state.finished), 0),
        }

    @classmethod
    def from_checkpoint(cls, path: str | Path, imports: tuple[str, ...] | list[str] = ()) -> "Classifier":
        """A classifier in evaluation mode on the CPU, with the weights and ``metadata`` of a run's or a plain Trainer's checkpoint.

        ``imports`` are modules that define its network. UserError where it is not there, not ours, or does not fit.
        """
        checkpoint = read_checkpoint(path)
        import_modules(imports)
        try:
            classifier = cls(**checked_hyper_parameters(checkpoint))
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        except Exception as error:  # whatever classes of torch make of a stranger's arguments
            reason = f"{type(error).__name__}: {error}"[:200]
            raise UserError(f"{path}: its hyper-parameters do not fit this version ({reason})") from error
        load_state(classifier, checkpoint["state_dict"], path)
        classifier.metadata = checkpoint["histo_lightning"]
        return classifier.eval()
