"""What every process of a run does: fit one network, restore its scored weights, predict; and the folder that they share."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.trainer.states import TrainerStatus

from histo_lightning.callbacks.checkpoints import BestAndLast, Stopping
from histo_lightning.callbacks.progress import COLUMNS, History, Rows, merged
from histo_lightning.classifier import Classifier, load_state, read_checkpoint
from histo_lightning.classifier.checkpoint import link_checkpoint
from histo_lightning.classifier.hardware import resolve
from histo_lightning.classifier.module import NEAR
from histo_lightning.config.exits import EXIT_INTERRUPTED
from histo_lightning.config.schema import Config
from histo_lightning.data.datamodule import BreakHisDataModule
from histo_lightning.errors import UserError
from histo_lightning.runs import RunFolder, write_csv
from histo_lightning.training import objects
from histo_lightning.training.compiling import pays
from histo_lightning.training.cost import cost, reset_peak_memory

FOLDER = "HISTO_RUN_FOLDER"  # number and folder of the first process, with which it starts the others
RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")  # torchrun and submitit, Slurm, Lightning's launcher
PATIENCE_SECONDS = 300.0
CHECKED = 8  # validation images, of whose scored epoch the logits are kept: predicted again, to see whether they still hold


class Fitted(NamedTuple):
    """By part positions in ``parts[part].records`` and logits, facts for ``metrics.json``, and the checkpoint that predicted."""

    predictions: dict[str, Rows]
    facts: dict[str, Any]
    scored: Path


def fit_and_predict(
    config: Config, folder: Path, data: BreakHisDataModule, callbacks: Sequence[Callback] = ()
) -> Fitted:
    """Train or resume with more ``callbacks``, restore the scored weights, and predict the parts of ``data``, set up already."""
    hardware = resolve(config.trainer)
    torch.set_num_threads(hardware.threads)
    run = RunFolder(folder)
    count, batch = len(data.parts["train"].records), config.batch_size
    history = History(folder / "history.csv", config.monitor, count // batch * batch or count, config.seed)
    reset_peak_memory()
    with objects.without_hints():
        classifier = objects.build_classifier(config, data)
        loggers = objects.build_loggers(config, folder)
        last, scored = (folder / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
        callbacks = [history, *objects.build_callbacks(config, folder), *callbacks, Stopping(last)]
        trainer = objects.build_trainer(config, folder, hardware, callbacks, loggers)
        fitted = bool(run.status.get("fitted"))
        if not fitted:
            steps, asked = config.epochs * max(count // batch, 1), config.trainer.compile == "true"
            if hardware.compile and (asked or pays(config, classifier, trainer, steps, data.cache_dir)):
                classifier.network.compile()
            _fit(trainer, classifier, data, config, last)
            # Else it is there, unless no callback saved it or validation never defined it.
            if trainer.is_global_zero and (config.scored_weights == "last" or not scored.is_file()):
                link_checkpoint(last, scored)
            trainer.strategy.barrier()
        facts, trained, kept = _restored(classifier, config, last, scored)
        others = ["test"] * config.test + ["train"] * (config.train_scores == "pass")
        if trainer.is_global_zero and not fitted:  # predicted again, the same weights add nothing new
            run.update(fitted=True, test_read=int(run.status.get("test_read") or 0) + config.test)
        if usable := len(kept) == len(data.parts["val"].records):
            # Again those whose decision may hang on the precision, and as a check of the weights the first.
            close, best = NEAR * hardware.precision.endswith("mixed"), np.sort(kept, axis=1)
            near = np.flatnonzero(best[:, -1] - best[:, -2] < close)
            again = np.union1d(near, np.arange(min(CHECKED, len(kept))))
            data.parts["again"] = data.parts["val"].subset(again)
        found = _predicted(trainer, classifier, data, ["again" if usable else "val", *others])
        if usable:
            del data.parts["again"]
            new = found.pop("again")[1]
            if np.abs(new - kept[again]).max() < (close / 2 or 0.01):
                kept[again] = new
                found["val"] = np.arange(len(kept)), kept
            else:  # a callback has changed them since
                found |= _predicted(trainer, classifier, data, ["val"])
    return Fitted({"train": trained} | found, facts, scored)


def _predicted(
    trainer: Trainer, classifier: Classifier, data: BreakHisDataModule, parts: Sequence[str]
) -> dict[str, Rows]:
    data.predict_parts = tuple(parts)
    with _interruptible(trainer):
        batches: Any = trainer.predict(classifier, datamodule=data)
    loaders = batches if len(parts) > 1 else [batches]
    rows = [merged([(batch["index"], batch["logits"]) for batch in each], trainer) for each in loaders]
    return dict(zip(parts, rows, strict=True))


def _fit(trainer: Trainer, model: Classifier, data: BreakHisDataModule, config: Config, last: Path) -> None:
    if config.trainer.channels_last:
        model.to(memory_format=torch.channels_last)
    start: Path | None = last if last.is_file() else None
    if start is None and config.resume not in ("auto", "never"):
        start = Path(config.resume)
    if start is not None:
        checkpoint = read_checkpoint(start)  # its errors are clearer
        load_state(model, checkpoint["state_dict"], start)
        trained = int(checkpoint["histo_lightning"]["epoch"]) + 1
        if start != last and trained >= config.epochs:
            mend = f"set epochs above that (epochs={config.epochs})"
            raise UserError(f"resume={start}: it has {trained} epochs behind it; {mend}")
    with _interruptible(trainer):
        trainer.fit(model, datamodule=data, ckpt_path=start, weights_only=True)
    saved = any(isinstance(callback, BestAndLast) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    if not saved or not last.is_file():  # or Lightning's fast_dev_run
        trainer.save_checkpoint(last)


@contextmanager
def _interruptible(trainer: Trainer) -> Iterator[None]:
    """End the other processes where the body fails; raise KeyboardInterrupt where it was interrupted."""
    try:
        yield
    except SystemExit:  # Lightning leaves like this after Ctrl-C
        if trainer.state.status != TrainerStatus.INTERRUPTED:
            raise
    except BaseException:
        getattr(trainer.strategy.launcher, "kill", lambda _: None)(signal.SIGTERM)
        raise
    if trainer.state.status == TrainerStatus.INTERRUPTED:
        raise KeyboardInterrupt


def _restored(
    classifier: Classifier, config: Config, last: Path, scored: Path
) -> tuple[dict[str, Any], Rows, NDArray[np.float64]]:
    """From the run's checkpoints, once the weights are loaded: facts about the fit, the train set's logits in the scored epoch,
    and the validation set's, none where these are not of the scored weights as they predict.
    """
    checkpoint = read_checkpoint(last)
    history = checkpoint["callbacks"]["History"]
    if config.scored_weights == "best":
        checkpoint = read_checkpoint(scored)
    load_state(classifier, checkpoint["state_dict"], scored)
    if not rank():  # whatever became of it since the fit
        rows = [[row[name] for name in COLUMNS] for row in history["rows"]]
        write_csv(last.parents[1] / "history.csv", [COLUMNS, *rows])
    seconds = round(sum(history["seconds"]), 3)
    state = checkpoint["callbacks"]["History"]
    trained, validated = state["trained"], state.get("validated", {})
    same = validated.get("step") == checkpoint["global_step"] and config.tta == "none"
    kept = validated["logits"].numpy() if same and not config.exact_predictions else np.zeros((0, 2))
    facts = {
        "best_epoch": int(checkpoint["histo_lightning"]["epoch"]),
        "epochs": len(history["rows"]),
        "train_seconds": seconds,
        "monitor": config.monitor,
        "monitored": [None if value != value else value for value in history["monitored"]],
        "cost": cost(classifier, config.image_size, seconds),
        "train_scores": config.train_scores,
    }
    return facts, (trained["index"].numpy(), trained["logits"].numpy()), kept


def rank() -> int:
    """The number of this process among those of the run; 0 where it is the only one, or the first."""
    return next((int(os.environ[name]) for name in RANKS if os.environ.get(name, "").isdigit()), 0)


@contextmanager
def first_of_several(folder: Path) -> Iterator[None]:
    """In the first process: give the others the folder; leave no trace of them in the environment afterwards."""
    names = {FOLDER, "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} - set(os.environ)
    os.environ[FOLDER] = f"{os.getpid()} {folder.resolve()}"
    try:
        yield
    finally:
        leave_group()
        for name in names & os.environ.keys():
            del os.environ[name]


def leave_group() -> None:
    """Close the connections between the processes: one that ends with them open may end with a status that is not 0."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def folder_of_first(parent: Path, name: str) -> Path:
    """In another process: the folder of the first one, which is waited for where Lightning did not start this process."""
    first, _, folder = os.environ.get(FOLDER, "").partition(" ")

    def end_with_parent() -> None:  # else it would work on unseen, without the lock
        while os.getppid() == int(first):
            time.sleep(1.0)
        os._exit(EXIT_INTERRUPTED)

    if first:
        threading.Thread(target=end_with_parent, daemon=True).start()
        return Path(folder)
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        for path in sorted(parent.glob(f"{name}*"), reverse=True):
            run = RunFolder(path)
            if run.alive and run.status.get("state") == "running":
                return path
        time.sleep(0.5)
    raise UserError(f"{parent / name}: the first process has not begun its run; look at its messages")
