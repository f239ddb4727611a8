"""A whole run: data, run folder, one or several processes, scores, pictures, report."""

import logging
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from pytorch_lightning import Callback

from histo_lightning.baselines import mean_colour
from histo_lightning.config import as_primitives, flatten, hashed, readable_name
from histo_lightning.data.datamodule import BreakHisDataModule
from histo_lightning.data.records import Record
from histo_lightning.decisions import choose, mark_apparent, store_choice
from histo_lightning.display import StepProgress, console, print_summary
from histo_lightning.errors import UserError
from histo_lightning.evaluation import Table, make_table, score_predictions, write_predictions
from histo_lightning.fit import build_datamodule, fit_and_predict
from histo_lightning.hardware import resolve
from histo_lightning.processes import end, follow_parent, wait_for
from histo_lightning.report.plots import draw_plots, draw_worst
from histo_lightning.report.run_page import write_report
from histo_lightning.runs import RunFolder, choose_folder, read_json, versions, write_atomic, write_json
from histo_lightning.schema import Config

log = logging.getLogger("histo_lightning")


def prepare_data(config: Config) -> BreakHisDataModule:
    """The data module of a config, set up, with progress.

    Raises:
        UserError: the data set, the split or the cache cannot be used.
    """
    with StepProgress("preparing images", config.trainer.progress != "none") as progress:
        data = build_datamodule(config, progress)
        data.setup()
    return data


def identity_of(config: Config, data: BreakHisDataModule) -> dict[str, str]:
    """What makes a finished run the same experiment: config, split, pixels, version of this package."""
    if data.split is None:
        raise RuntimeError("setup() left the data module empty")
    return {
        "config_hash": hashed(config),
        "split_hash": data.split.hash,
        "data_fingerprint": data.fingerprint,
        "package_version": versions()["histo_lightning"],
    }


def run_training(
    config: Config,
    parent: Path,
    hydra: Mapping[str, str],
    callbacks: Sequence[Callback] = (),
    *,
    pictures: bool = True,
) -> Path:
    """Do one run, or go on with it, or report that it is finished.

    Args:
        config: checked.
        parent: the folder that run folders stand in.
        hydra: texts for the run folder's ``.hydra/``.
        callbacks: more of them for the fit, where it runs in this process; what they raise ends the run.
        pictures: False leaves plots and the report to a later :func:`draw_run`.

    Returns:
        The run folder, with everything that ``shared`` tools read in it.

    Raises:
        UserError: anything the user can mend; ``status.json`` says so where the run had started.
    """
    resolve(config.trainer)  # a missing GPU is said before any work
    shown = config.trainer.progress != "none"
    data = prepare_data(config)
    if data.split is None or data.pixels is None or data.source is None:
        raise RuntimeError("setup() left the data module empty")
    check_monitors(config, data)
    identity = identity_of(config, data)
    run = choose_folder(parent, readable_name(config), config.resume, identity)
    if run.status.get("state") == "finished":
        if pictures and not (run.path / "report.html").is_file():  # of a sweep that was killed before its end
            draw_run(run.path, data)
        _report_finished(run, config)
        return run.path
    if shown:
        _introduce(data, config)
    with run.locked(), run.recorded(**identity), _log_file(run.path):
        write_atomic(run.path / "config.yaml", yaml.safe_dump(as_primitives(config), sort_keys=False))
        for name, text in hydra.items():
            write_atomic(run.path / ".hydra" / name, text)
        write_json(run.path / "split.json", data.split.as_dict())
        log.info("%s", data.source.message)
        for note in data.split.notes:
            log.info("%s", note)
        if config.trainer.strategy == "ddp":
            _spawn(config, run.path)
        else:
            fit_and_score(config, run.path, data, callbacks)
        if pictures:
            draw_run(run.path, data)
    if pictures:
        write_report(run.path)  # again: the report shows the finished status
    metrics = read_json(run.path / "metrics.json")
    if config.json:
        write_json(Path(config.json), metrics)
    if shown:
        print_summary(run.path, metrics, data.split.label, float(run.status["seconds"]))
    return run.path


def check_monitors(config: Config, data: BreakHisDataModule) -> None:
    """Raise UserError where validation cannot define what is watched."""
    present = len(set(data.parts["val"].labels))
    for key, name in (
        ("monitor", config.monitor),
        ("early_stopping.monitor", config.early_stopping.monitor or config.monitor),
    ):
        if name.endswith("auroc") and present < 2:
            raise UserError(
                f"{key}={name}: validation holds one class only, so it is undefined; use val_case_log_loss"
            )


def _report_finished(run: RunFolder, config: Config) -> None:
    metrics = read_json(run.path / "metrics.json")
    if config.json:
        write_json(Path(config.json), metrics)
    if config.trainer.progress != "none":
        console().print("this experiment is finished already (resume=never runs it again in a new folder)")
        label = str(read_json(run.path / "split.json").get("label", ""))
        print_summary(run.path, metrics, label, float(run.status.get("seconds") or 0.0))


def _introduce(data: BreakHisDataModule, config: Config) -> None:
    out = console()
    if data.source is None or data.split is None:
        return
    out.print(data.source.message, markup=False)
    for note in data.split.notes:
        out.print(f"note: {note}", markup=False)
    sizes = ", ".join(f"{part} {len(names)}" for part, names in data.split.parts.items())
    cases = ", ".join(f"{part} {len(names)}" for part, names in data.split.cases.items())
    out.print(f"split {data.split.kind}, fold {data.split.fold}: images {sizes}; cases {cases}", markup=False)
    if data.split.label:
        out.print(
            f"[bold red]{data.split.label}[/]: this result does not say how the network does on new cases"
        )


@contextmanager
def _log_file(folder: Path) -> Iterator[None]:
    """Write our log and Lightning's to ``train.log`` while a run goes on."""
    handler = logging.FileHandler(folder / "train.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in ("histo_lightning", "pytorch_lightning", "py.warnings")]
    log.setLevel(logging.INFO)
    log.propagate = False
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    except BaseException as error:
        log.error("stopped: %s", error, exc_info=error)
        raise
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()


def fit_and_score(
    config: Config, folder: Path, data: BreakHisDataModule, callbacks: Sequence[Callback] = ()
) -> None:
    """Train in this process, then (on the first process) write predictions, scores, pictures and dashboards."""
    first = int(os.environ.get("LOCAL_RANK", "0")) == 0
    wanted = config.trainer.progress
    bar = (
        None
        if wanted == "none" or not first
        else wanted == "bar" or (wanted == "auto" and sys.stdout.isatty())
    )
    logits, facts = fit_and_predict(config, folder, data, bar=bar, callbacks=callbacks)
    if first:
        write_results(config, folder, data, logits, facts)


def write_results(
    config: Config,
    folder: Path,
    data: BreakHisDataModule,
    logits: Mapping[str, NDArray[np.float64]],
    facts: Mapping[str, Any],
) -> None:
    """Predictions, ``metrics.json``, plots and TensorBoard's HParams of a fitted run."""
    metrics: dict[str, Any] = {
        "schema": 1,
        **facts,
        "split": data.split.as_dict()["label"] if data.split else "",
    }
    tables = {
        part: _table(config.task, part, data.parts[part].records, values) for part, values in logits.items()
    }
    chosen = choose(tables["val"], config.target_sensitivity)
    store_choice(folder / "checkpoints" / f"{config.scored_weights}.ckpt", chosen)
    scores: dict[str, Any] = {"val": None, "test": None, "train": None}
    for part, table in tables.items():
        if part != "train":
            write_predictions(folder / "predictions" / f"{part}.csv", table)
        scores[part] = score_predictions(
            table, threshold=chosen.threshold if part != "train" else None, intervals=part != "train"
        )
    mark_apparent(scores["val"])
    metrics |= chosen.as_dict(tables.get("test"))
    if config.task == "binary":
        metrics["baselines"] = {"mean_colour": mean_colour(data, tables)}
    write_json(folder / "metrics.json", metrics | scores)
    _write_dashboard(config, folder, data, scores)


def draw_run(folder: Path, data: BreakHisDataModule) -> None:
    """Pictures and ``report.html`` of a finished run."""
    draw_plots(folder)
    draw_worst(folder, _reader(data))
    write_report(folder)


def _reader(data: BreakHisDataModule) -> Callable[[str], NDArray[np.uint8] | None]:
    """Stored pixels by the ``path`` of a record; None for a path that is not in the split."""
    if data.pixels is None:
        raise RuntimeError("the data module is not set up")
    pixels = data.pixels
    rows = {
        record.path: int(row)
        for part in data.parts.values()
        for record, row in zip(part.records, part.dataset.rows, strict=True)
    }
    return lambda path: pixels.take(np.array([rows[path]]))[0] if path in rows else None


def _table(task: str, part: str, records: Sequence[Record], logits: NDArray[np.float64]) -> Table:
    return make_table(
        task,
        image=[record.image for record in records],
        path=[record.path for record in records],
        class_name=[record.class_name for record in records],
        subtype=[record.subtype for record in records],
        slide=[record.slide for record in records],
        case=[record.case for record in records],
        magnification=[record.magnification for record in records],
        part=part,
        logits=logits,
    )


def _write_dashboard(
    config: Config, folder: Path, data: BreakHisDataModule, scores: Mapping[str, Any]
) -> None:
    """HParams with final validation scores (same keys in every run), and test scores under a tag of their own."""
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    chosen = {
        key: _hparam(value)
        for key, value in flatten(as_primitives(config))
        if key not in ("json", "run_name")
    }
    names = ("accuracy", "balanced_accuracy", "auroc", "log_loss")
    with SummaryWriter(str(folder / "tensorboard")) as writer:
        final = {
            f"hparams/val_{level}_{name}": _value(scores["val"], level, name)
            for level in ("image", "case")
            for name in names
        }
        for summary in hparams(chosen, final):  # type: ignore[no-untyped-call]  # torch ships it without types
            writer._get_file_writer().add_summary(summary)
        for tag, value in final.items():
            writer.add_scalar(tag, value, 0)
        if scores.get("test"):
            for level in ("image", "case"):
                for name in names:
                    writer.add_scalar(f"test/{level}_{name}", _value(scores["test"], level, name), 0)


def _hparam(value: Any) -> bool | int | float | str:
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _value(part: Mapping[str, Any], level: str, name: str) -> float:
    score = (part.get(level) or {}).get(name) or {}
    return float("nan") if score.get("value") is None else float(score["value"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _child(rank: int, config: Config, folder: Path, port: int, answers: Any) -> None:
    """One process of several: Lightning finds its place in the environment."""
    follow_parent()
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        WORLD_SIZE=str(config.trainer.devices),
        LOCAL_WORLD_SIZE=str(config.trainer.devices),
        NODE_RANK="0",
        GROUP_RANK="0",
        RANK=str(rank),
        LOCAL_RANK=str(rank),
    )
    try:
        data = build_datamodule(config)
        data.setup()
        fit_and_score(config, folder, data)
        torch.distributed.barrier()  # the first process still writes; ending before it would break its connections
        torch.distributed.destroy_process_group()
    except UserError as error:
        answers.put(str(error))
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(75) from None


def _spawn(config: Config, folder: Path) -> None:
    """Run ``trainer.devices`` processes and wait; when one fails the others are ended."""
    context = multiprocessing.get_context("spawn")
    answers: Any = context.SimpleQueue()
    port = _free_port()
    children = [
        context.Process(target=_child, args=(rank, config, folder, port, answers), name=f"rank {rank}")
        for rank in range(config.trainer.devices)
    ]
    try:
        for child in children:
            child.start()
        wait_for(children)
    finally:
        end(children)
    codes = [child.exitcode for child in children]
    if not answers.empty():
        raise UserError(answers.get())
    if 75 in codes:
        raise KeyboardInterrupt
    if any(codes):
        raise RuntimeError(f"the processes ended with exit codes {codes}; the first message above says why")
