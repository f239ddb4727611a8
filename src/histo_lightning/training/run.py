"""A whole run: data, run folder, fit, scores, pictures, report."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from pytorch_lightning import Callback

from histo_lightning.classifier.hardware import resolve
from histo_lightning.config.identity import as_primitives, hashed, readable_name, shortened
from histo_lightning.config.schema import Config
from histo_lightning.data.datamodule import BreakHisDataModule
from histo_lightning.errors import UserError
from histo_lightning.report.console import StepProgress, console
from histo_lightning.report.index import refresh_index
from histo_lightning.report.run_page import write_report
from histo_lightning.report.summaries import print_summary
from histo_lightning.runs import RunFolder, choose_folder, read_json, versions, write_atomic, write_json
from histo_lightning.training.fit import fit_and_predict
from histo_lightning.training.objects import build_datamodule
from histo_lightning.training.processes import first_of_several, folder_of_first, leave_group, rank
from histo_lightning.training.results import draw_run, labels_of, write_board, write_results

log = logging.getLogger("histo_lightning")


def prepare_data(config: Config) -> BreakHisDataModule:
    """The data module of a config, set up, with progress.

    Raises:
        UserError: the data set, the split or the cache cannot be used.
    """
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
    config: Config,
    parent: Path | None = None,
    hydra: Mapping[str, str] | None = None,
    callbacks: Sequence[Callback] = (),
    *,
    pictures: bool = True,
    wait: bool = False,
) -> Path:
    """Do one run, or go on with it, or report that it is finished.

    Args:
        config: checked.
        parent: the folder for run folders; None is ``<output_dir>/runs``.
        hydra: texts for the run folder's ``.hydra/``.
        callbacks: more of them for the fit; what they raise ends the run.
        pictures: False leaves plots and the report to a later :func:`draw_run`.
        wait: for another process that works in the folder, instead of refusing.

    Returns:
        The run folder.

    Raises:
        UserError: anything the user can mend; ``status.json`` says so where the run had started.
    """
    parent = Path(config.output_dir) / "runs" if parent is None else parent
    resolve(config.trainer)  # a missing GPU is said before any work
    if config.trainer.strategy == "ddp" and rank() > 0:
        config.trainer.progress = "none"
        data = prepare_data(config)
        folder = folder_of_first(parent, readable_name(config))
        try:
            fit_and_predict(config, folder, data, callbacks)
        finally:
            leave_group()
        return folder
    data = prepare_data(config)
    check_monitors(config, data)
    identity = identity_of(config, data)
    run = choose_folder(parent, readable_name(config), config.resume, identity)
    with run.locked(wait=wait):
        if run.status.get("state") == "finished" and config.resume != "never":
            if (
                pictures and not (run.path / "report.html").is_file()
            ):  # of a sweep that was killed before its end
                draw_run(config, run.path, data)
            _report_finished(run, config)
            return run.path
        _do(config, run, data, identity, hydra or {}, callbacks, pictures=pictures)
    if pictures:
        write_report(run.path)  # again: the report shows the finished status
        refresh_index(Path(config.output_dir))
    _say(run, config)
    return run.path


def _do(
    config: Config,
    run: RunFolder,
    data: BreakHisDataModule,
    identity: Mapping[str, str],
    hydra: Mapping[str, str],
    callbacks: Sequence[Callback],
    *,
    pictures: bool,
) -> None:
    """The run itself, in its locked folder."""
    assert data.split is not None
    assert data.source is not None
    if config.trainer.progress != "none":
        _introduce(data, config)
    with run.recorded(**identity), _log_file(run.path):
        write_atomic(run.path / "config.yaml", yaml.safe_dump(as_primitives(config), sort_keys=False))
        for name, text in hydra.items():
            write_atomic(run.path / ".hydra" / name, text)
        write_json(run.path / "split.json", data.split.as_dict())
        log.info("%s", data.source.message)
        for note in data.split.notes:
            log.info("%s", note)
        with first_of_several(run.path):
            fitted = fit_and_predict(config, run.path, data, callbacks)
        log.info("scored: %s, epoch %d", fitted.scored.name, fitted.facts["best_epoch"] + 1)
        write_results(config, run.path, data, fitted)
        if pictures:
            draw_run(config, run.path, data)
        else:
            write_board(config, run.path)


def check_monitors(config: Config, data: BreakHisDataModule) -> None:
    """Raise UserError where validation cannot define what is watched."""
    present = len(set(data.parts["val"].labels))
    watched = {"monitor": config.monitor} | {
        f"callbacks.{name}.monitor": str(entry.get("monitor") or "")
        for name, entry in config.callbacks.items()
    }
    for key, name in watched.items():
        if name.endswith("auroc") and present < 2:
            raise UserError(
                f"{key}={name}: validation holds one class only, so it is undefined; use val_case_log_loss"
            )


def _report_finished(run: RunFolder, config: Config) -> None:
    if config.trainer.progress != "none":
        console().print("this experiment is finished already (resume=never runs it again in a new folder)")
    _say(run, config)


def _say(run: RunFolder, config: Config) -> None:
    """Write the scores where ``json`` says, and print them; without progress, only where the report is."""
    metrics = read_json(run.path / "metrics.json")
    if config.json:
        write_json(Path(config.json), metrics)
    if config.trainer.progress == "none":
        if (run.path / "report.html").is_file():
            print(f"report: {run.path / 'report.html'}")
        return
    labels = labels_of(config, str(read_json(run.path / "split.json").get("label", "")))
    print_summary(run.path, metrics, labels, float(run.status.get("seconds") or 0.0))


def _introduce(data: BreakHisDataModule, config: Config) -> None:
    out = console()
    assert data.source is not None
    assert data.split is not None
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
    if label := shortened(config):
        out.print(f"[bold red]{label}[/]: no result; it is never pooled or compared")


@contextmanager
def _log_file(folder: Path) -> Iterator[None]:
    """Write our log, Lightning's and all warnings to ``train.log`` while a run goes on."""
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
