"""A whole study: data and protocol, the search, the best setting on the test part once, tables, pictures, page."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

import histo_lightning
from histo_lightning.classifier.hardware import resolve
from histo_lightning.config import as_primitives
from histo_lightning.config.schema import TuneConfig
from histo_lightning.display import StepProgress
from histo_lightning.errors import UserError
from histo_lightning.report.study_page import write_study_page
from histo_lightning.report.study_pictures import draw_study
from histo_lightning.runs import read_json, write_atomic, write_json
from histo_lightning.training import check_monitors, run_training
from histo_lightning.training.fit import build_datamodule
from histo_lightning.tuning.collect import importances, rows
from histo_lightning.tuning.plan import Plan
from histo_lightning.tuning.results import OPTIMISTIC, TrialRow, best_row, summarise, write_tables
from histo_lightning.tuning.space import apply, folds, study_hash, study_name
from histo_lightning.tuning.store import Store
from histo_lightning.tuning.trial import run_config
from histo_lightning.tuning.workers import visible_gpus, work, work_together

SHOWN_SCORES = ("auroc", "balanced_accuracy", "log_loss")


def tune(config: TuneConfig, parent: Path, hydra: Mapping[str, str]) -> int:
    """Search, or go on searching, or report a study that is finished.

    Args:
        config: checked.
        parent: the folder that studies stand in.
        hydra: texts for ``.hydra/``.

    Returns:
        How many trials failed.

    Raises:
        UserError: anything the user can mend.
    """
    hardware = resolve(config.trainer)
    facts, identity = prepare(config)
    plan = Plan(_folder(config, parent), config, identity, dict(hydra))
    store = Store(plan)
    _refuse_more_after_test(plan, store)
    plan = replace(plan, failed_before=store.failed())
    write_atomic(plan.folder / "config.yaml", yaml.safe_dump(as_primitives(config), sort_keys=False))
    for name, text in hydra.items():
        write_atomic(plan.folder / ".hydra" / name, text)
    _introduce(plan, store, facts)
    if config.tune.workers > 1 and store.done() < config.tune.trials:
        work_together(plan, visible_gpus(torch.cuda.device_count()) if hardware.accelerator == "gpu" else [])
    else:
        work(plan)
    with plan.locked("final"):  # the same command in another shell waits here, and finds it done
        study = finish(plan, store, facts)
    _say(plan, study)
    return int(study["counts"]["failed"])


def prepare(config: TuneConfig) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Prepare the data once for all trials; what each fold's split is, and what identifies the study.

    Raises:
        UserError: the data or the split cannot be used, or validation cannot define what is watched.
    """
    facts, fingerprint = [], ""
    for fold in folds(config):
        own = apply(config, {"split.fold": fold})
        with StepProgress("preparing images", own.trainer.progress != "none") as progress:
            data = build_datamodule(own, progress)
            data.setup()
        if data.split is None or data.source is None:
            raise RuntimeError("setup() left the data module empty")
        check_monitors(own, data)
        fingerprint = data.fingerprint
        labels = dict(zip((r.case for r in data.parts["val"].records), data.parts["val"].labels, strict=True))
        facts.append(
            {
                "fold": fold,
                "split": data.split.kind,
                "label": data.split.label,
                "split_hash": data.split.hash,
                "source": data.source.message,
                "images": {part: len(names) for part, names in data.split.parts.items()},
                "cases": {part: len(names) for part, names in data.split.cases.items()},
                "val_cases_by_label": [
                    sum(v == label for v in labels.values()) for label in sorted(set(labels.values()))
                ],
            }
        )
    identity = {
        "settings": study_hash(config),
        "split": " ".join(str(fact["split_hash"]) for fact in facts),
        "data": fingerprint,
        "package version": histo_lightning.__version__,
    }
    return facts, identity


def _folder(config: TuneConfig, parent: Path) -> Path:
    """The study's folder; with ``resume=never`` one that is not there yet."""
    name = study_name(config)
    folder, number = parent / name, 1
    while config.resume == "never" and folder.exists():
        number += 1
        folder = parent / f"{name}-{number}"
    return folder


def _tests_read(plan: Plan) -> int:
    status = (read_json(folder / "status.json") for folder in (plan.folder / "final").glob("*"))
    return sum(int(found.get("test_read") or 0) for found in status)


def _refuse_more_after_test(plan: Plan, store: Store) -> None:
    if _tests_read(plan) and store.done() < plan.config.tune.trials:
        raise UserError(
            f"{plan.folder}: its test part has been read, so tune.trials={plan.config.tune.trials} would choose among more "
            "settings after that look; give a new study_name (tune.final=false keeps the test part for later)"
        )


def _introduce(plan: Plan, store: Store, facts: Sequence[Mapping[str, Any]]) -> None:
    if plan.config.trainer.progress == "none":
        return
    print(facts[0]["source"])
    for fact in facts:
        label = f"; {fact['label']}" if fact["label"] else ""
        print(
            f"split {fact['split']}, fold {fact['fold']}: chosen on {fact['images']['val']} validation images of "
            f"{fact['cases']['val']} cases; test part unread while searching{label}"
        )
    if len(facts) > 1:
        print(OPTIMISTIC)
    done = store.done()
    if done:
        print(f"{done} of {plan.config.tune.trials} trials are done already")
    print(f"study: {plan.folder}", flush=True)


def finish(plan: Plan, store: Store, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Score the best setting once (where that is asked for and the search is finished), then write all results."""
    found = rows(plan, store)
    best = best_row(found, plan.minimise)
    searched = store.done() >= plan.config.tune.trials
    wanted = plan.config.tune.final and plan.config.test and searched
    final = _final(plan, best) if wanted and best is not None else None
    study = summarise(plan, found, facts, importances(plan, store), final)
    write_tables(plan.folder, found, study)
    draw_study(plan.folder, found, study)
    write_study_page(plan.folder, found, study)
    if plan.config.json:
        write_json(Path(plan.config.json), study)
    if searched and plan.config.tune.keep == "best":
        _drop_checkpoints(plan, found)
    return study


def _final(plan: Plan, best: TrialRow) -> dict[str, Any]:
    """Train the best setting again, from the same seed, and score it on the test part.

    A run with ``test=true`` is another run than the trial, with a folder of its own, so a search that is killed here goes
    on like any run. On the same machine it is the same network: ``same_training`` says whether its curve is.
    """
    runs = []
    for fold in plan.folds:
        config = run_config(plan, best.values, test=True, **{"split.fold": fold})
        folder = run_training(config, plan.folder / "final", plan.hydra)
        metrics, status = read_json(folder / "metrics.json"), read_json(folder / "status.json")
        test = metrics["test"]
        runs.append(
            {
                "run": folder.name,
                "fold": fold,
                "test_read": int(status.get("test_read") or 0),
                "same_training": _same(metrics["monitored"], best.curve) if len(plan.folds) == 1 else None,
                "test": {
                    f"{level}_{score}": (test.get(level) or {}).get(score)
                    for level in ("case", "image")
                    for score in SHOWN_SCORES
                },
            }
        )
    return {"trial": best.trial, "runs": runs}


def _same(curve: Sequence[float | None], other: Sequence[float]) -> bool:
    return [value for value in curve if value is not None] == [value for value in other if value == value]


def _drop_checkpoints(plan: Plan, found: Sequence[TrialRow]) -> None:
    """Weights of a search take gigabytes, and its tables do not need them: keep those of each depth's best trial."""
    kept = {
        best.trial
        for arm in plan.arms
        if (best := best_row([r for r in found if r.depth == arm.name], plan.minimise))
    }
    for row in found:
        if row.trial in kept:
            continue
        for run in row.runs:
            for path in (plan.folder / "trials" / run / "checkpoints").glob("*.ckpt"):
                path.unlink(missing_ok=True)


def _say(plan: Plan, study: Mapping[str, Any]) -> None:
    if plan.config.trainer.progress == "none":
        return
    counts, best, protocol = study["counts"], study["best"], study["protocol"]
    print(
        f"{study['state']}: {counts['complete']} trials completed, {counts['pruned']} pruned, {counts['failed']} failed"
    )
    for name, found in study["by_depth"].items():
        if found["best"]:
            print(
                f"best of {name}: {protocol['monitor']} {found['best']['value']:.4f}, {' '.join(found['best']['overrides'])}"
            )
            for edge in found["best"]["edges"]:
                if edge["edge"]:
                    print(f"  {edge['key']} lies at the {edge['edge']} edge of what was searched")
    if protocol["warning"]:
        print(protocol["warning"])
    if best is None:
        print("no trial was completed")
    read = protocol["test_read"]
    print(f"test part read {read} time(s)" if read else "test part: left unread")
    for name in ("report.html", "trials.csv", "study.json"):
        print(f"{name + ':':<12} {plan.folder / name}")
