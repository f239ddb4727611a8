"""P12: what crosses between host and GPU while an epoch runs."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from histo_lightning.classifier.hardware import resolve
from histo_lightning.config.schema import Config
from histo_lightning.training.objects import build_classifier, build_datamodule, without_hints

from .defaults import default_trainer
from .measure import Row, judged, unmeasured

TITLES = {
    "P12 copies": "GPU: host-to-device copies between the first and the last step of an epoch",
    "P12 syncs": "GPU: synchronisations between the first and the last step of an epoch",
}


class _Traffic(Callback):
    """Profiles from the second training step of the second epoch to its last: warm, and outside logging."""

    def __init__(self) -> None:
        self.profile: Any = None
        self.copies, self.syncs = 0, 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.current_epoch == 1 and batch_idx == 1:
            torch.cuda.synchronize()
            kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
            self.profile = torch.profiler.profile(activities=kinds)
            self.profile.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.profile is not None and batch_idx == int(trainer.num_training_batches) - 1:
            self.profile.stop()
            names = [event.name for event in self.profile.events()]
            self.copies = sum("Memcpy HtoD" in name for name in names)
            # Stopping the profiler synchronises once itself.
            self.syncs = max(
                sum(name in ("cudaStreamSynchronize", "cudaDeviceSynchronize") for name in names) - 1, 0
            )
            self.profile = None


def traffic_rows(config: Config) -> list[Row]:
    """P12 on a GPU, with the profiler; without one both rows are unmeasured."""
    if not torch.cuda.is_available():
        why = "no GPU on this machine; tests count the operations that would do it, on the CPU"
        return [unmeasured(id, title, "<= 0", why) for id, title in TITLES.items()]
    config = replace(config, epochs=2, image_size=224)
    with without_hints(), tempfile.TemporaryDirectory(prefix="histo-benchmark-") as temporary:
        data = build_datamodule(config)
        data.setup()
        classifier = build_classifier(config, data).to(memory_format=torch.channels_last)
        hardware = resolve(config.trainer)
        if hardware.compile:
            classifier.network.compile()
        traffic = _Traffic()
        trainer = default_trainer(config, Path(temporary), hardware, 1, [traffic])
        trainer.fit(classifier, datamodule=data)
    why = f"torch.profiler over an epoch, batch {config.batch_size}"
    return [
        judged("P12 copies", TITLES["P12 copies"], "<= 0", [traffic.copies], why),
        judged("P12 syncs", TITLES["P12 syncs"], "<= 0", [traffic.syncs], why),
    ]
