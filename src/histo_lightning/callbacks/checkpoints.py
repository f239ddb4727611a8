"""``best.ckpt`` and ``last.ckpt``, nothing else, in a folder that may be moved; the last also where a signal ends a fit."""

import signal
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any, cast

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn

from histo_lightning.classifier import Classifier
from histo_lightning.classifier.checkpoint import link_checkpoint
from histo_lightning.config.exits import signals_held
from histo_lightning.data.batches import Loader


class BestAndLast(ModelCheckpoint):
    """Saves the best epoch by ``monitor`` (the first of equals), and after it the last, at every epoch's end.

    Without ``save_best`` ``best.ckpt`` is the epoch before the last: what is left where the last one is damaged.
    """

    def __init__(
        self, dirpath: str | None = None, monitor: str = "val/loss", mode: str = "min", save_best: bool = True
    ) -> None:
        self.save_best = save_best
        # Without the version counter, which would name the file of a reused folder best-v1.ckpt.
        plain: Any = {"auto_insert_metric_name": False, "enable_version_counter": False}
        super().__init__(dirpath, "best", monitor, mode=mode, save_on_train_epoch_end=True, **plain)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]  # a property made by a function
            return
        best, last = (Path(str(self.dirpath)) / f"{name}.ckpt" for name in ("best", "last"))
        if self.save_best and self.monitor in trainer.callback_metrics:  # not where validation was left out
            super().on_train_epoch_end(trainer, pl_module)
        elif not self.save_best and trainer.is_global_zero and last.is_file():
            link_checkpoint(last, best)
        trainer.save_checkpoint(last)  # Lightning's save_last=True would write only when the best changes

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the best score over, and look for its file in this folder, wherever it was written."""
        for name in ("best_model_score", "kth_value", "current_score"):
            setattr(self, name, state_dict[name])
        for score in state_dict["best_k_models"].values():
            self.best_model_path = self.kth_best_model_path = str(Path(str(self.dirpath)) / "best.ckpt")
            self.best_k_models = {self.best_model_path: score}


class Stopping(Callback):
    """Holds signals back during a fit. After one to any of its processes a checkpoint with each process's generators and counts
    is written to ``path``, then the signal has its effect, KeyboardInterrupt at the least.

    That is after the optimizer's next step, or between two batches of a validation, which begins anew after a resume.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._held, self._arrived = path, ExitStack(), list[int]()
        self._shares = list[dict[str, Any]]()  # of each process

    def state_dict(self) -> dict[str, Any]:
        return {"shares": self._shares} if self._shares else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._shares = list(state_dict["shares"])

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Lightning's own handler of SIGTERM talks to processes that may be waiting for something else. It ignores SIGINT
        # after Ctrl-C, until it restores these.
        connector, handlers = trainer._signal_connector, {signal.SIGINT: signal.getsignal(signal.SIGINT)}
        connector.register_signal_handlers = lambda: connector._original_handlers.update(handlers)  # type: ignore

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._arrived = self._held.enter_context(signals_held())
        shares, self._shares = self._shares, []
        if not shares:
            return
        loop, loader = trainer.fit_loop.epoch_loop, cast(Loader, trainer.train_dataloader)
        loop.val_loop.batch_progress.total.reset_on_restart()
        if (done := loop.batch_progress.current.ready) < trainer.num_training_batches:
            loader.batch_sampler.start = done  # Lightning would begin from the first batch
        own, count = shares[trainer.global_rank % len(shares)], trainer.world_size
        torch.set_rng_state(own["generator"])
        if "cuda" in own and pl_module.device.type == "cuda":
            torch.cuda.set_rng_state(own["cuda"], pl_module.device)
        totals, seen = own["totals"], own.get("seen", [])
        if len(shares) != count:
            totals = sum(each["totals"] for each in shares) / count
            seen = [*chain(*(each.get("seen", []) for each in shares))]
        cast(Classifier, pl_module).train_metrics.restore(totals, seen)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
        assert fetcher is not None
        # Lightning would leave out the validation after this batch, or the rest of the epoch's end.
        ends = loop._num_ready_batches_reached() or loop._should_check_val_fx(fetcher)
        if not ends and not loop._should_accumulate() and self._wanted(trainer):
            self._stop(trainer, pl_module)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking or not self._wanted(trainer):
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # a property made by a function
            if isinstance(callback, WeightAveraging):  # validated are its weights
                callback.on_validation_epoch_end(trainer, pl_module)
        progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
        before = progress.total.completed - progress.current.completed
        progress.reset_on_run()
        # How Lightning knows a validation that was left, here in its first batch.
        left = {"ready": before + 1, "started": before + 1, "processed": before, "completed": before}
        progress.total.load_state_dict(left)
        self._stop(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end(self._wanted(trainer))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._end(False)

    def _wanted(self, trainer: Trainer) -> bool:  # in any process
        return trainer.strategy.reduce_boolean_decision(bool(self._arrived), all=False)

    def _stop(self, trainer: Trainer, module: LightningModule) -> None:
        metrics = cast(Classifier, module).train_metrics
        seen = [(index.cpu(), logits.cpu()) for index, logits in metrics.seen]
        share = {"generator": torch.get_rng_state(), "totals": metrics.totals.cpu(), "seen": seen}
        if module.device.type == "cuda":
            share["cuda"] = torch.cuda.get_rng_state(module.device)
        self._shares = [share] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(self._shares, share)
        trainer.save_checkpoint(self.path)
        self._end(True)

    def _end(self, interrupt: bool) -> None:
        self._held.close()
        if interrupt:
            raise KeyboardInterrupt
