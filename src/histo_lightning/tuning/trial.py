"""One trial: train with its setting, read validation, tell the study how it went."""

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from histo_lightning.callbacks.pruning import Pruned, Pruning
from histo_lightning.classifier.hardware import cores
from histo_lightning.config.schema import Config
from histo_lightning.errors import UserError
from histo_lightning.runs import RunFolder, read_json
from histo_lightning.training import run_training
from histo_lightning.tuning.plan import Plan
from histo_lightning.tuning.space import apply
from histo_lightning.tuning.store import Claim, Store


def run_config(plan: Plan, values: Mapping[str, Any], **changes: Any) -> Config:
    """The config of a run of the study: workers share the cores, and what the command writes is not the run's."""
    threads = plan.config.trainer.threads or max(1, cores() // plan.config.tune.workers)
    own = {"json": None, "resume": "auto", "trainer.threads": threads}
    return apply(plan.config, {**values, **own, **changes})


def run_trial(plan: Plan, store: Store, claim: Claim) -> str:
    """Train a trial on each of the study's folds, without its test part, and record how it went.

    A trial that fails is recorded with its error; the others go on.

    Returns:
        What happened, in a few words.
    """
    try:
        curves = [_train(plan, claim, fold) for fold in plan.folds]
    except Pruned as pruned:
        store.prune(claim)
        return str(pruned)
    except Exception as error:  # whatever a setting leads to belongs to that setting
        said = str(error) if isinstance(error, UserError) else f"defect: {type(error).__name__}: {error}"
        store.fail(claim, " ".join(said.split())[:500])
        _let_go(error)
        return f"failed: {said}"
    value = sum(curves) / len(curves)
    store.complete(claim, value)
    return f"{plan.config.monitor} {value:.4f}"


def _train(plan: Plan, claim: Claim, fold: int) -> float:
    """The objective on one fold's validation part; with one fold the pruner sees every epoch, else every fold."""
    several = len(plan.folds) > 1
    name = f"trial_{claim.slot:04d}" + (f"_fold{fold}" if several else "")
    changes = {"test": False, "split.fold": fold, "run_name": name, "trainer.progress": "none"}
    config = run_config(plan, claim.values, **changes)
    parent = plan.folder / "trials"
    watching = [] if several else [Pruning(claim.judge, config.epochs)]
    try:
        folder = run_training(config, parent, plan.hydra, watching, pictures=False)
    except Pruned as pruned:
        _mark_pruned(parent, name, str(pruned))
        raise
    metrics = read_json(folder / "metrics.json")
    curve = [float("nan") if value is None else float(value) for value in metrics["monitored"]]
    value = plan.objective(curve)
    if value is None or value != value:
        raise UserError(f"{plan.config.monitor} was undefined in the scored epoch")
    if several:
        given_up = claim.judge_fold(value)
        if given_up and fold != plan.folds[-1]:
            raise Pruned(f"pruned after fold {fold}")
    else:
        claim.judge(curve)  # a run that was finished before a kill reports here for the first time
    return value


def _mark_pruned(parent: Path, name: str, said: str) -> None:
    """A pruned run has not failed: it could go on."""
    for folder in parent.glob(f"{name}_*"):
        run = RunFolder(folder)
        if run.status.get("state") == "failed":
            run.update(state="interrupted", error=said)


def _let_go(error: BaseException) -> None:
    """Free what a failed fit holds; a GPU that was full would fail the next trial too."""
    error.__traceback__ = None
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
