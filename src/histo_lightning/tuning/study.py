"""A whole study: data and protocol, the trials, the best setting on the test set once, tables, pictures, page."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock
from optuna.trial import FrozenTrial

from histo_lightning.callbacks.progress import Pruned, Pruning
from histo_lightning.classifier.hardware import resolve
from histo_lightning.config.identity import hashed
from histo_lightning.config.schema import TuneConfig
from histo_lightning.errors import UserError
from histo_lightning.report.pages import render_text
from histo_lightning.runs import RunFolder, read_json, write_atomic, write_json
from histo_lightning.runs.manifest import check_file, renew, reopen, write_manifest
from histo_lightning.training.checks import check_runs
from histo_lightning.training.run import check_monitors, identity_of, prepare_data, run_training
from histo_lightning.tuning import results
from histo_lightning.tuning.results import Row, best_row, trial_rows
from histo_lightning.tuning.search import Attempt, Studies
from histo_lightning.tuning.space import Plan, corners, overrides, study_name


def tune(config: TuneConfig, parent: Path, hydra: Mapping[str, str]) -> int:
    """Search, resume a search, or report a finished study below ``parent``; how many trials failed. ``hydra`` is that of :class:`Plan`."""
    resolve(config.trainer)  # a missing GPU is named before any work
    folder = parent / study_name(config)
    if config.resume == "never" and folder.exists():
        folder = next(path for n in count(2) if not (path := folder.with_name(f"{folder.name}-{n}")).exists())
    plan = Plan(folder, config, hydra)
    ends = [setting for search in plan.searches for setting in corners(search)]
    check_runs([plan.run_config(setting, plan.folds[0]) for setting in ends])
    facts, identity = prepare(plan)
    check_file(folder / "study.db")
    renew(folder)
    studies = Studies(plan, identity)
    status = [read_json(path) for path in (plan.folder / "final").glob("*/status.json")]
    if studies.done() < config.tune.trials and any(run.get("test_read") for run in status):
        problem = f"its test set has been read, so tune.trials={config.tune.trials} would choose among more settings"
        mend = "give a new study_name (tune.final=false keeps the test set for later)"
        raise UserError(f"{plan.folder}: {problem} after that look; {mend}")
    write_atomic(plan.folder / "config.yaml", yaml.safe_dump(asdict(config), sort_keys=False))
    for file, text in hydra.items():
        write_atomic(plan.folder / ".hydra" / file, text)
    say: Any = partial(print, flush=True) if config.trainer.progress != "none" else lambda *_, **__: None

    def announce(attempt: Attempt, trial: FrozenTrial) -> None:
        value = trial.state.name.lower() if trial.value is None else f"{config.monitor} {trial.value:.4f}"
        text = " ".join([*overrides(attempt.values), trial.user_attrs.get("error", "")])
        done = f"{studies.done()} of {config.tune.trials} done"
        say(f"trial {attempt.number} ({done}): {value}; {text}".rstrip())

    say(f"{facts[0]['source']}\nstudy: {plan.folder}")
    studies.work(partial(train_trial, plan), announce)
    # The same command in another shell waits here, and finds it done.
    with FileLock(plan.folder / ".final.lock"):
        study = finish(studies, facts)
    say(render_text("study.console", folder=plan.folder, study=study), end="")
    return int(study["counts"]["failed"])


def prepare(plan: Plan) -> tuple[list[Row], dict[str, str]]:
    """Prepare the data once for all trials; each fold's split, and what identifies the study. UserError where it cannot be used."""
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


def train_trial(plan: Plan, attempt: Attempt) -> float:
    """The objective of a trial, from validation alone, judged after every epoch or fold; raises Pruned, or UserError."""
    values: list[float] = []
    for fold in plan.folds:
        values.append(_train(plan, attempt, fold))
        means = [sum(values[:number]) / number for number in range(1, len(values) + 1)]
        if len(plan.folds) > 1 and attempt.judge(means) and fold != plan.folds[-1]:
            raise Pruned(f"pruned after fold {fold}")
    return means[-1]


def _train(plan: Plan, attempt: Attempt, fold: int) -> float:
    several, parent = len(plan.folds) > 1, plan.folder / "trials"
    name = plan.run_name(attempt.search, attempt.number) + (f"_fold{fold}" if several else "")
    changes = {"run_name": name, "trainer.progress": "none"}
    config = plan.run_config(attempt.values, fold, test=False, **changes)
    watching = [] if several else [Pruning(attempt.judge, config.epochs)]
    try:
        folder = run_training(config, parent, plan.hydra, watching, pictures=False)
    except Pruned as pruned:
        for path in parent.glob(f"{name}_*"):  # it has not failed: it could go on
            RunFolder(path).update(state="interrupted", error=str(pruned))
        raise
    monitored = read_json(folder / "metrics.json")["monitored"]
    curve = [float("nan") if value is None else float(value) for value in monitored]
    if not several:  # a run that was finished before a kill reports here for the first time
        attempt.judge(curve)
    return objective(plan, curve)


def objective(plan: Plan, curve: Sequence[float]) -> float:
    """A run's value: of its best epoch or (``scored_weights=last``) its last; raises UserError where it is undefined."""
    scored = curve[-1:] if plan.config.scored_weights == "last" else curve
    defined = [value for value in scored if value == value]
    if not defined:
        raise UserError(f"{plan.config.monitor} was undefined in the scored epoch")
    return min(defined) if plan.minimise else max(defined)


def finish(studies: Studies, facts: Sequence[Row]) -> Row:
    """Score the best setting once (where that is asked for and the search is finished), then write all results."""
    plan, settings, rows = studies.plan, studies.plan.config.tune, trial_rows(studies)
    best, searched = best_row(rows, plan.minimise), studies.done() >= settings.trials
    final = _final(plan, best) if best and searched and settings.final and plan.config.test else None
    study = results.summarise(studies, rows, facts, final)
    reopen(plan.folder)
    results.write_tables(plan.folder, rows, study)
    results.write_study_page(plan.folder, rows, study, results.draw_study(studies, rows))
    if plan.config.json:
        write_json(Path(plan.config.json), study)
    if searched and settings.keep == "best":  # the others' weights take gigabytes, and no table needs them
        best_runs = {run for one in study["by_depth"].values() for run in (one["best"] or {}).get("runs", [])}
        for path in (plan.folder / "trials").glob("*/checkpoints/*.ckpt"):
            if (run := path.parent.parent).name not in best_runs:
                path.unlink(missing_ok=True)
                write_manifest(run)
    write_manifest(plan.folder, leave="study.db" * any(row["state"] == "running" for row in rows))
    return study


def _final(plan: Plan, best: Row) -> Row:
    """Train the best setting again from the same seed and score it on the test set; ``same_training`` says whether its curve is the trial's."""
    runs = []
    for fold in plan.folds:
        config = plan.run_config(best["values"], fold, test=True)
        folder = run_training(config, plan.folder / "final", plan.hydra)
        metrics, read = read_json(folder / "metrics.json"), RunFolder(folder).status.get("test_read")
        curve = [value for value in metrics["monitored"] if value is not None]
        same = curve == best["curve"] if len(plan.folds) == 1 else None
        about = {"run": folder.name, "fold": fold, "test_read": int(read or 0), "same_training": same}
        runs.append(about | {"test": metrics["test"]})
    return {"trial": best["trial"], "runs": runs}
