"""A whole study: data and protocol, the search, the best setting on the test set once, tables, pictures, page."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock
from optuna.trial import FrozenTrial

from histo_lightning.classifier.hardware import resolve
from histo_lightning.config.identity import hashed
from histo_lightning.config.schema import TuneConfig
from histo_lightning.errors import UserError
from histo_lightning.report.words import SYNTHETIC
from histo_lightning.runs import read_json, write_atomic, write_json
from histo_lightning.training.checks import check_runs
from histo_lightning.training.run import check_monitors, identity_of, prepare_data, run_training
from histo_lightning.tuning.page import draw_study, write_study_page
from histo_lightning.tuning.plan import Plan
from histo_lightning.tuning.results import Row, best_row, summarise, trial_rows, write_tables
from histo_lightning.tuning.search import Attempt, Studies
from histo_lightning.tuning.space import corners, overrides, study_name
from histo_lightning.tuning.trial import train_trial


def tune(config: TuneConfig, parent: Path, hydra: Mapping[str, str]) -> int:
    """Search, or go on searching, or report a study that is finished.

    Args:
        config: checked.
        parent: the folder of studies.
        hydra: texts for ``.hydra/``; ``overrides.yaml`` is what the configs of runs are composed from.

    Returns:
        How many trials failed.

    Raises:
        UserError: anything the user can mend.
    """
    resolve(config.trainer)  # a missing GPU is named before any work
    plan = Plan(_folder(config, parent), config, hydra)
    ends = [setting for search in plan.searches for setting in corners(search)]
    check_runs([plan.run_config(setting, plan.folds[0]) for setting in ends])
    facts, identity = prepare(plan)
    studies = Studies(plan, identity)
    status = [read_json(path) for path in (plan.folder / "final").glob("*/status.json")]
    if studies.done() < config.tune.trials and any(run.get("test_read") for run in status):
        raise UserError(
            f"{plan.folder}: its test set has been read, so tune.trials={config.tune.trials} would choose among more "
            "settings after that look; give a new study_name (tune.final=false keeps the test set for later)"
        )
    write_atomic(plan.folder / "config.yaml", yaml.safe_dump(asdict(config), sort_keys=False))
    for name, text in hydra.items():
        write_atomic(plan.folder / ".hydra" / name, text)
    visible = config.trainer.progress != "none"

    def announce(attempt: Attempt, trial: FrozenTrial) -> None:
        if visible:
            value = trial.state.name.lower() if trial.value is None else f"{config.monitor} {trial.value:.4f}"
            text = " ".join([*overrides(attempt.values), trial.user_attrs.get("error", "")])
            done = f"{studies.done()} of {config.tune.trials} done"
            print(f"trial {attempt.number} ({done}): {value}; {text}".rstrip(), flush=True)

    if visible:
        print(f"{facts[0]['source']}\nstudy: {plan.folder}", flush=True)
    studies.work(lambda attempt: train_trial(plan, attempt), announce)
    with FileLock(
        plan.folder / ".final.lock"
    ):  # the same command in another shell waits here, and finds it done
        study = finish(studies, facts)
    if visible:
        _print_study(plan.folder, study)
    return int(study["counts"]["failed"])


def _folder(config: TuneConfig, parent: Path) -> Path:
    """The study's folder; with ``resume=never`` one that is not there yet."""
    name = study_name(config)
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(parent / one for one in names if config.resume != "never" or not (parent / one).exists())


def prepare(plan: Plan) -> tuple[list[Row], dict[str, str]]:
    """Prepare the data once for all trials; what each fold's split is, and what identifies the study.

    Raises:
        UserError: the data or the split cannot be used, or validation cannot define what is watched.
    """
    facts: list[Row] = []
    identity = {"settings": hashed(replace(plan.config, test=True))}
    for fold in plan.folds:
        config = plan.run_config({}, fold, test=True)  # as a study is the same with or without the final test
        data = prepare_data(config)
        check_monitors(config, data)
        assert data.split is not None
        assert data.source is not None
        split = data.split.as_dict()
        sizes = {key: {part: len(names) for part, names in split[key].items()} for key in ("parts", "cases")}
        about = {key: split[key] for key in ("kind", "label", "hash")}
        facts.append({"fold": fold, "source": data.source.message, **about, **sizes})
        identity |= {f"{key} of fold {fold}": value for key, value in identity_of(config, data).items()}
    return facts, identity


def finish(studies: Studies, facts: Sequence[Row]) -> dict[str, Any]:
    """Score the best setting once (where that is asked for and the search is finished), then write all results."""
    plan, settings = studies.plan, studies.plan.config.tune
    rows = trial_rows(studies)
    best = best_row(rows, plan.minimise)
    searched = studies.done() >= settings.trials
    final = _final(plan, best) if best and searched and settings.final and plan.config.test else None
    study = summarise(studies, rows, facts, final)
    write_tables(plan.folder, rows, study)
    write_study_page(plan.folder, rows, study, draw_study(studies, rows))
    if plan.config.json:
        write_json(Path(plan.config.json), study)
    if searched and settings.keep == "best":  # the others' weights take gigabytes, and no table needs them
        kept = [run for depth in study["by_depth"].values() if depth["best"] for run in depth["best"]["runs"]]
        for path in (plan.folder / "trials").glob("*/checkpoints/*.ckpt"):
            if path.parent.parent.name not in kept:
                path.unlink(missing_ok=True)
    return study


def _final(plan: Plan, best: Row) -> Row:
    """Train the best setting again, from the same seed, and score it on the test set.

    A run with ``test=true`` is another run than the trial, with a folder of its own, so a search that is killed here goes
    on like any run. On the same machine it is the same network: ``same_training`` says whether its curve is.
    """
    runs = []
    for fold in plan.folds:
        config = plan.run_config(best["values"], fold, test=True)
        folder = run_training(config, plan.folder / "final", plan.hydra)
        metrics, status = read_json(folder / "metrics.json"), read_json(folder / "status.json")
        curve = [value for value in metrics["monitored"] if value is not None]
        same = curve == best["curve"] if len(plan.folds) == 1 else None
        run = {"run": folder.name, "fold": fold, "test_read": int(status.get("test_read") or 0)}
        runs.append(run | {"same_training": same, "test": metrics["test"]})
    return {"trial": best["trial"], "runs": runs}


def _print_study(folder: Path, study: Row) -> None:
    counts, protocol, read = study["counts"], study["protocol"], study["protocol"]["test_read"]
    if study["data"] == "synthetic":
        print(SYNTHETIC)
    print(
        f"{study['state']}: {', '.join(f'{counts[n]} trials {n}' for n in ('complete', 'pruned', 'failed'))}"
    )
    for depth, results in study["by_depth"].items():
        best = results["best"] or {
            "value": float("nan"),
            "overrides": ["no trial was completed"],
            "edges": [],
        }
        print(f"best of {depth}: {protocol['monitor']} {best['value']:.4f}, {' '.join(best['overrides'])}")
        for edge in best["edges"]:
            if edge["edge"]:
                print(f"  {edge['key']} lies at the {edge['edge']} edge of what was searched")
    if protocol["warning"]:
        print(protocol["warning"])
    print(f"test set read {read} time(s)" if read else "test set: left unread")
    for name in ("report.html", "trials.csv", "study.json"):
        print(f"{name + ':':<12} {folder / name}")
