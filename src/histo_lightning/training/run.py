"""One run: data, run folder, fit, scores, pictures, report."""

import io
import logging
import multiprocessing
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback

from histo_lightning.classifier.checkpoint import keep_weights
from histo_lightning.classifier.hardware import cores, resolve
from histo_lightning.config.checks import to_config
from histo_lightning.config.exits import EXIT_INTERRUPTED
from histo_lightning.config.identity import hashed, readable_name, shortened
from histo_lightning.config.schema import Config
from histo_lightning.config.targets import import_modules
from histo_lightning.data.datamodule import BreakHisDataModule
from histo_lightning.errors import UserError
from histo_lightning.report.console import StepProgress, console
from histo_lightning.report.index import refresh_index
from histo_lightning.report.run_page import write_report
from histo_lightning.report.summaries import print_summary
from histo_lightning.report.words import labels_of
from histo_lightning.runs import choose_folder, read_bytes, read_json, versions, write_atomic, write_json
from histo_lightning.runs.manifest import damaged, read_manifest, write_manifest
from histo_lightning.training.checks import aurocs
from histo_lightning.training.fit import first_of_several, fit_and_predict, folder_of_first, leave_group, rank
from histo_lightning.training.objects import build_datamodule
from histo_lightning.training.repair import drawings_damaged, mend_checkpoints
from histo_lightning.training.results import draw_run, write_board, write_results

log = logging.getLogger("histo_lightning")


def prepare_data(config: Config) -> BreakHisDataModule:
    """The data module of a config, set up; UserError where the data set, split or cache cannot be used."""
    with StepProgress("preparing images", config.trainer.progress != "none") as progress:
        data = build_datamodule(config, progress)
        data.setup()
    data.progress = None
    return data


def identity_of(config: Config, data: BreakHisDataModule) -> dict[str, str]:
    """What makes a finished run the same experiment: config, split, pixels, version of this package."""
    assert data.split is not None
    return {
        "config_hash": hashed(config),
        "split_hash": data.split.hash,
        "data_fingerprint": data.fingerprint,
        "package_version": versions()["histo_lightning"],
    }


def run_training(
    config: Config, parent: Path | None = None, hydra: Mapping[str, str] | None = None,
    callbacks: Sequence[Callback] = (), *, pictures: bool = True, wait: bool = False,
) -> Path:  # fmt: skip
    """Do one run of a checked config, resume it, or report that it is finished; its folder below ``parent`` (``<output_dir>/runs``).

    ``hydra`` are texts for ``.hydra/``; without ``pictures`` a later :func:`draw_run` makes them; ``wait`` where it is locked.
    """
    parent = parent or Path(config.output_dir) / "runs"
    resolve(config.trainer)  # a missing GPU is reported before any work
    if config.trainer.strategy == "ddp" and rank() > 0:
        config.trainer.progress = "none"
        data = prepare_data(config)
        folder = folder_of_first(parent, readable_name(config))
        try:
            fit_and_predict(config, folder, data, callbacks)
        except KeyboardInterrupt:  # the first process says so
            raise SystemExit(EXIT_INTERRUPTED) from None
        finally:
            leave_group()
        return folder
    data = prepare_data(config)
    assert data.split is not None
    check_monitors(config, data)
    identity = identity_of(config, data)
    run = choose_folder(parent, readable_name(config), config.resume, identity)
    with run.locked(wait=wait):
        finished = run.status.get("state") == "finished" and config.resume != "never"
        if not finished:
            with run.recorded(**identity), _log_file(run.path):
                _introduce(data, config)
                write_atomic(run.path / "config.yaml", yaml.safe_dump(asdict(config), sort_keys=False))
                for name, text in (hydra or {}).items():
                    write_atomic(run.path / ".hydra" / name, text)
                write_json(run.path / "split.json", data.split.as_dict())
                mend_checkpoints(run, config.scored_weights, config.keep)
                with first_of_several(run.path):
                    fitted = fit_and_predict(config, run.path, data, callbacks)
                log.info("scored: %s, epoch %d", fitted.scored.name, fitted.facts["best_epoch"] + 1)
                write_results(config, run.path, data, fitted)
                if pictures:
                    draw_run(config, run.path, data)
                else:
                    write_board(config, run.path)
        checkpoints = run.path / "checkpoints"  # nothing goes before the run counts as finished
        if fewer := config.keep == "weights" and (checkpoints / "last.ckpt").is_file():
            keep_weights(checkpoints / "best.ckpt", stripped=not finished and config.scored_weights == "last")
        pages = run.path / "status.json", run.path / "report.html", Path(config.output_dir) / "index.html"
        times = [page.stat().st_mtime_ns if page.is_file() else 0 for page in pages]
        behind = pictures and (not finished or times != sorted(times))  # killed before its pages were written
        if redrawn := finished and (drawings_damaged(run.path) or (pictures and not pages[1].is_file())):
            draw_run(config, run.path, data)
        elif behind:
            write_report(run.path)  # again: the report shows the finished status
        if redrawn or behind or fewer or "status.json" not in read_manifest(run.path):
            write_manifest(run.path)
    shown = config.trainer.progress != "none"
    if finished and shown:
        console().print("this experiment is finished already (resume=never runs it again in a new folder)")
    if behind or redrawn:
        refresh_index(Path(config.output_dir))
    metrics = read_json(run.path / "metrics.json")
    if config.json:
        write_json(Path(config.json), metrics)
    if shown:
        labels = labels_of(metrics, str(metrics["split"]))
        print_summary(run.path, metrics, labels, float(run.status.get("seconds") or 0.0))
    elif (run.path / "report.html").is_file():
        print(f"report: {run.path / 'report.html'}")
    return run.path


def draw_missing(runs: Sequence[Path], shown: bool) -> list[str]:
    """Draw every run that has no ``report.html`` yet; a line for each that failed, since no result is lost by that."""
    missing = [run for run in runs if not (run / "report.html").is_file() or damaged(run, hashes=False)]
    problems = list[str]()
    # A forked process has imported what it needs.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    workers = max(min(cores(), len(missing)), 1)
    with StepProgress("drawing pictures", shown) as progress, ProcessPoolExecutor(workers, context) as pool:
        try:
            for problem in pool.map(_draw, missing):
                problems.append(problem)
                progress(len(problems), len(missing))
        except BrokenExecutor:  # one was killed: what it leaves is drawn here
            problems += [_draw(run) for run in missing if not (run / "report.html").is_file()]
    return list(filter(None, problems))


def _draw(run: Path) -> str:
    torch.set_num_threads(1)  # after a fork more would wait for ever
    try:
        drawings_damaged(run, hashes=False)
        config: Any = to_config(cast(DictConfig, OmegaConf.load(io.BytesIO(read_bytes(run / "config.yaml")))))
        import_modules(config.imports)
        config.trainer.progress, config.trainer.threads = "none", 1
        draw_run(config, run, prepare_data(config))
        write_manifest(run)
    except (UserError, OSError) as error:
        return f"{run}: its pictures cannot be drawn ({error})"
    return ""


def check_monitors(config: Config, data: BreakHisDataModule) -> None:
    """Raise UserError where validation cannot define what is watched."""
    for key, name in aurocs(config).items():
        if len(set(data.parts["val"].labels.tolist())) < 2:
            problem = "validation holds one class only, so it is undefined; use val_case_log_loss"
            raise UserError(f"{key}={name}: {problem}")


def _introduce(data: BreakHisDataModule, config: Config) -> None:
    """Log, and print where that is wanted, what the run reads and what its result cannot say."""
    out, split = console(), data.split
    assert data.source is not None
    assert split is not None
    images, cases = (
        ", ".join(f"{part} {len(names)}" for part, names in parts.items())
        for parts in (split.parts, split.cases)
    )
    sizes = f"split {split.kind}, fold {split.fold}: images {images}; cases {cases}"
    styles = dict.fromkeys((data.source.message, *(f"note: {note}" for note in split.notes), sizes), "")
    if split.label:
        styles[f"{split.label}: this result does not say how the network does on new cases"] = "bold red"
    if label := shortened(config):
        styles[f"{label}: no result; it is never pooled or compared"] = "bold red"
    for line, style in styles.items():
        log.info("%s", line)
        if config.trainer.progress != "none":
            out.print(line, style=style, markup=False)


@contextmanager
def _log_file(folder: Path) -> Iterator[None]:
    """Write our log, Lightning's and all warnings to ``train.log``."""
    handler = logging.FileHandler(folder / "train.log", encoding="utf-8", errors="backslashreplace")
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
