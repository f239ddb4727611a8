"""What TensorBoard shows of a fit beside its curves: layout, graph, augmented images, heat maps, histograms."""

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid

from histo_lightning.errors import UserError
from histo_lightning.models.gradcam import attribution, scaled_heat

# The first charts of the tab Custom Scalars.
LAYOUT = {
    "Overview": {
        "loss": ["Multiline", ["train/loss", "val/loss"]],
        "AUROC by case, validation": ["Multiline", ["val/case_auroc"]],
        "learning rate": ["Multiline", ["lr.*"]],
        "accuracy": ["Multiline", ["train/accuracy", "val/accuracy", "val/balanced_accuracy"]],
    }
}
SHOWN = 16  # augmented images in the grid
HEAT = torch.tensor([1.0, 0.35, 0.0])[:, None, None]  # its colour
STRENGTH = 0.55
_graphs: dict[Any, Any] = {}  # by network: torch keeps each trace, megabytes, until the process ends


@dataclass(eq=False)
class Dashboard(Callback):
    """Writes to every TensorBoard logger of the Trainer, on the first process; without one it does nothing.

    Args:
        graph, images: once, the network's graph, and a grid of augmented training images.
        gradcam, gradcam_times: validation images (0 for none) whose heat maps are drawn in how many epochs at most.
        histograms: weights and gradients of every epoch (slow, and large files).
    """

    graph: bool = True
    images: bool = True
    gradcam: int = 4
    gradcam_times: int = 3
    histograms: bool = False
    _explained: tuple[Tensor, Tensor] | None = field(default=None, init=False)  # images and labels
    _step: int = field(default=0, init=False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Layout and graph at the start; after a resume what an ended process wrote beyond its checkpoint is taken back."""
        for writer in _writers(trainer):
            if trainer.global_step:
                start = Event(step=trainer.global_step, session_log=SessionLog(status=SessionLog.START))
                file = writer._get_file_writer()  # type: ignore[no-untyped-call]  # torch ships no types
                file.event_writer.add_event(start)  # torch's purge_step, for a writer that is there
            else:
                writer.add_custom_scalars(LAYOUT)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Of several batches that make one step, only the first.
        if trainer.global_step or trainer.current_epoch or batch_idx or not isinstance(batch, Mapping):
            return
        for writer in _writers(trainer):
            if self.images:
                grid = make_grid(_colours(batch["image"][:SHOWN], trainer), nrow=4)
                writer.add_image("train/augmented", grid, 0)
            if self.graph:
                _add_graph(writer, pl_module, batch["image"][:1])

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        step, self._step = self._step, trainer.global_step
        if step == self._step or not isinstance(outputs, Mapping):  # gradients are still accumulated
            return
        for logger in trainer.loggers:
            every = getattr(logger, "every_n_steps", None)  # Lightning's DummyLogger has any name
            if isinstance(every, int) and every > 0 and trainer.global_step % every == 0:
                logger.log_metrics({"train/step_loss": float(outputs["loss"])}, trainer.global_step - 1)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if self.histograms and trainer.is_last_batch:
            for writer in _writers(trainer):
                for name, parameter in pl_module.named_parameters():
                    writer.add_histogram(f"weights/{name}", parameter, trainer.global_step)
                    if parameter.grad is not None:
                        writer.add_histogram(f"gradients/{name}", parameter.grad, trainer.global_step)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Keep the first validation images of each class."""
        if self._explained is not None or batch_idx or trainer.sanity_checking:
            return
        if self.gradcam and isinstance(batch, Mapping) and _writers(trainer):
            order = torch.argsort(_rank_in_class(batch["label"]), stable=True)[: self.gradcam]
            with torch.inference_mode(False):  # they get gradients later
                self._explained = batch["image"][order].clone(), batch["label"][order].clone()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network, due = getattr(pl_module, "network", None), not trainer.sanity_checking and self._due(trainer)
        if self._explained is None or not due or not isinstance(network, nn.Module):
            return
        images, labels = self._explained
        with torch.inference_mode(False), torch.autocast(pl_module.device.type, enabled=False):
            try:
                maps = attribution(network, images.float(), labels)
            except UserError:  # a network without a map of features
                self._explained, self.gradcam = None, 0
                return
            share = STRENGTH * torch.from_numpy(scaled_heat(maps, *images.shape[2:]))[:, None].nan_to_num()
        fields = _colours(images, trainer)
        grid = make_grid(torch.cat([fields, fields * (1 - share) + HEAT * share]), nrow=len(fields))
        for writer in _writers(trainer):
            writer.add_image("val/gradcam", grid, trainer.global_step)

    def _due(self, trainer: Trainer) -> bool:
        """Whether an epoch is one of ``gradcam_times``, evenly spread over all of them, the last included."""
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs or 0
        if epochs <= 0:  # without an end: 1, 2, 4, 8, ...
            return epoch.bit_count() == 1
        return epoch * self.gradcam_times % epochs < self.gradcam_times


def _writers(trainer: Trainer) -> list[SummaryWriter]:
    loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    return [logger.experiment for logger in loggers] if trainer.is_global_zero else []


def _rank_in_class(labels: Tensor) -> Tensor:
    """For each label how many equal ones are before it: sorted by it, classes take turns."""
    return torch.stack([(labels[:i] == label).sum() for i, label in enumerate(labels)])


def _colours(images: Tensor, trainer: Trainer) -> Tensor:
    """Normalised images, float B x 3 x H x W, as colours in [0, 1] on the CPU."""
    data, images = getattr(trainer, "datamodule", None), images.detach().float().cpu()
    mean, std = getattr(data, "mean", None), getattr(data, "std", None)
    if isinstance(mean, Tensor) and isinstance(std, Tensor):
        return (images * std[:, None, None] + mean[:, None, None]).clamp(0, 1)
    return (images - images.amin()) / (images.amax() - images.amin()).clamp(min=1e-6)


def _add_graph(writer: SummaryWriter, module: LightningModule, image: Tensor) -> None:
    """The graph of the network; one that cannot be traced is left out."""
    network = getattr(module, "network", None)
    if not isinstance(network, nn.Module):
        return
    described = str(module.hparams.get("model")), repr(network), image.shape
    try:
        if described not in _graphs:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch's tracer, about itself
                # Of a copy: frozen batch norms have a mode of their own. Traced here, for torch would trace three times.
                network, image = copy.deepcopy(network).eval(), image.detach().float()
                from torch.utils.tensorboard._pytorch_graph import graph  # torch's own: not there, no graph

                _graphs[described] = graph(torch.jit.trace(network, image, check_trace=False), image)  # type: ignore[no-untyped-call]
        writer._get_file_writer().add_graph(_graphs[described])  # type: ignore[no-untyped-call]
    except Exception as error:  # tracing runs a network of anybody's: none of its errors may end a fit
        writer.add_text("graph", f"it cannot be traced: {type(error).__name__}", 0)
