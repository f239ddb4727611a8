"""A sweep's folder without a sweep: real splits of the census, real tables, scores and configs, drawn logits.

Logits follow the model of the coverage test: margin = d + b_case + e, so the depths' true scores are known and equal
or apart as wanted, and the same cases are hard for every network.
"""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from histo_lightning.callbacks.progress import COLUMNS
from histo_lightning.comparison.families import plan_hash
from histo_lightning.config.identity import hashed, readable_name
from histo_lightning.config.schema import Config, DatasetConfig, SplitConfig
from histo_lightning.config.tree import option
from histo_lightning.data.breakhis.names import census_names
from histo_lightning.data.breakhis.records import Record, record_of
from histo_lightning.data.splits import Split, build_split
from histo_lightning.evaluation import Table, make_table, score_predictions, write_predictions
from histo_lightning.runs import write_json

OPTIMIZERS = {name: {**option("optimizer", name), "name": name} for name in ("sgd", "adam", "adamw")}
PARAMETERS = {"resnet18": 11_177_538, "resnet34": 21_285_698, "resnet50": 23_512_130}
DISTANCE = {"resnet18": 1.6, "resnet34": 1.75, "resnet50": 1.9}
EPOCHS = 12


@cache
def records(per_slide: int) -> tuple[Record, ...]:
    """The census with at most ``per_slide`` images of each slide and magnification."""
    found: dict[tuple[str, int], list[Record]] = {}
    for name in sorted(census_names()):
        if (record := record_of(name)) is not None:
            found.setdefault((record.slide, record.magnification), []).append(record)
    return tuple(record for members in found.values() for record in members[:per_slide])


@cache
def split_of(kind: str, magnification: str, fold: int, repeat: int, per_slide: int) -> Split:
    group = {"case_kfold": "case", "slide_kfold": "slide", "official": "slide", "image_random": "image"}[kind]
    plan = SplitConfig(name=kind, fold=fold, repeat=repeat, group=group)
    return build_split(records(per_slide), plan, magnification=magnification)


def drawn(text: str, *, shape: tuple[int, ...] | int = ()) -> Any:
    """Standard normal numbers that depend on ``text`` alone."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).normal(size=shape)


def table_of(config: Config, split: Split, part: str, per_slide: int) -> Table:
    names = set(split.parts[part])
    members = [record for record in records(per_slide) if record.image in names]
    distance = DISTANCE.get(config.model["name"], 1.6) - (0.2 if config.optimizer["name"] == "sgd" else 0.0)
    run = f"{config.model['name']} {config.optimizer['name']} {config.magnification} {config.split.fold} {config.seed} {config.split.repeat}"
    noise = dict(zip([r.image for r in members], drawn(f"{run} {part}", shape=len(members)), strict=True))
    case = {name: 1.4 * float(drawn(f"case {name}")) for name in {r.case for r in members}}
    own = {name: 0.4 * float(drawn(f"{run} {name}")) for name in case}
    shift = 0.3 * float(drawn(run))
    sign = {"benign": -1.0, "malignant": 1.0}
    margin = np.array(
        [
            sign[r.class_name] * (distance + case[r.case] + own[r.case] + 1.0 * noise[r.image]) + shift
            for r in members
        ]
    )
    return make_table(
        "binary",
        image=[r.image for r in members],
        path=[r.path for r in members],
        class_name=[r.class_name for r in members],
        subtype=[r.subtype for r in members],
        slide=[r.slide for r in members],
        case=[r.case for r in members],
        magnification=[r.magnification for r in members],
        part=part,
        logits=np.stack([-margin / 2, margin / 2], axis=1),
    )


def config_of(
    model: str = "resnet18",
    optimizer: str = "adamw",
    magnification: str = "40x",
    fold: int = 0,
    seed: int = 0,
    *,
    kind: str = "case_kfold",
    repeat: int = 0,
    **more: Any,
) -> Config:
    group = {"case_kfold": "case", "slide_kfold": "slide", "official": "slide", "image_random": "image"}[kind]
    split = SplitConfig(kind, fold=fold, repeat=repeat, group=group)
    return Config(
        model={**option("model", model), "name": model},
        optimizer=dict(OPTIMIZERS[optimizer]),
        dataset=DatasetConfig(images_per_slide=4, image_size=350, seed=0),
        split=split,
        magnification=magnification,
        seed=seed,
        epochs=EPOCHS,
        **more,
    )


def write_run(
    parent: Path,
    config: Config,
    *,
    per_slide: int = 2,
    draws: int = 0,
    name: str | None = None,
    state: str = "finished",
    error: str | None = None,
    started: str = "2026-05-02T10:00:00+00:00",
    cost: bool = True,
) -> Path:
    """A run folder as training leaves it; ``state`` other than finished leaves one without scores.

    ``draws`` of the scores' intervals; 0 leaves them null, which is fast.
    """
    folder = parent / (name or readable_name(config))
    split = split_of(
        config.split.name, config.magnification, config.split.fold, config.split.repeat, per_slide
    )
    status = {
        "state": state,
        "error": error,
        "started": started,
        "seconds": 100.0,
        "versions": {"histo_lightning": "0.1.0", "python": "3.11.9", "torch": "2.15.0", "numpy": "2.4.0"},
        "git_commit": "0" * 40,
        "test_read": int(config.test and state == "finished"),
        "config_hash": hashed(config),
        "split_hash": split.hash,
        "data_fingerprint": hashlib.sha256(f"{config.magnification} {per_slide}".encode()).hexdigest(),
        "package_version": "0.1.0",
    }
    (folder / "predictions").mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.dump(asdict(config), Dumper=_Dumper, sort_keys=False))
    (folder / "split.json").write_text(json.dumps(split.as_dict()))
    (folder / "status.json").write_text(json.dumps(status))
    if state == "finished":
        parts = ("val", "test") if config.test else ("val",)
        scores = {part: _part_of(folder, config, split, part, per_slide, draws) for part in parts}
        (folder / "history.csv").write_text(history_of(config))
        (folder / "metrics.json").write_text(json.dumps(metrics_of(config, split, scores, cost)))
    return folder


_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_PARTS: dict[tuple[Any, ...], tuple[bytes, dict[str, Any]]] = {}


def _part_of(
    folder: Path, config: Config, split: Split, part: str, per_slide: int, draws: int
) -> dict[str, Any]:
    """Write a part's predictions and return its scores; made once for each setting, since tests share them."""
    key = (hashed(replace(config, test=True, scored_weights="best")), part, per_slide, draws)
    path = folder / "predictions" / f"{part}.csv"
    if key not in _PARTS:
        table = table_of(config, split, part, per_slide)
        write_predictions(path, table)
        _PARTS[key] = path.read_bytes(), score_predictions(table, draws=draws or 100, intervals=draws > 0)
    content, scores = _PARTS[key]
    path.write_bytes(content)
    return scores


def metrics_of(config: Config, split: Split, scores: Mapping[str, Any], cost: bool) -> dict[str, Any]:
    parameters = PARAMETERS.get(config.model["name"], 10_000_000)
    seconds = parameters / 2e5 * (1 + 0.1 * abs(float(drawn(readable_name(config)))))
    metrics: dict[str, Any] = {
        "schema": 1,
        "best_epoch": EPOCHS - 1,
        "epochs": EPOCHS,
        "train_seconds": seconds,
        "monitor": config.monitor,
        "split": split.label,
    }
    if cost:
        metrics["cost"] = {
            "parameters": parameters,
            "trainable_parameters": parameters,
            "flops": 9 * parameters,
            "train_seconds": seconds,
            "peak_memory_bytes": 512 * 2**20,
            "device": "cpu",
        }
    return metrics | {"val": None, "test": None, "train": None} | dict(scores)


def history_of(config: Config) -> str:
    lines = [",".join(COLUMNS)]
    depth = DISTANCE.get(config.model["name"], 1.6)
    for epoch in range(EPOCHS):
        fall = float(np.exp(-epoch * depth / 6))
        noise = 0.02 * float(drawn(f"{readable_name(config)} {epoch}"))
        cells = [
            epoch,
            1e-3 * fall,
            0.15 + 0.5 * fall + noise / 2,
            0.97 - 0.3 * fall,
            0.4 + 0.25 * fall + noise,
        ]
        lines.append(",".join(str(cell) for cell in [*cells, 0.86 - 0.2 * fall, 0.8, 0.9, 0.88, 412.5]))
    return "\n".join(lines) + "\n"


def write_sweep(
    folder: Path,
    *,
    models: Sequence[str] = ("resnet18", "resnet34"),
    optimizers: Sequence[str] = ("adamw",),
    magnifications: Sequence[str] = ("40x",),
    folds: Sequence[int] = range(5),
    seeds: Sequence[int] = (0,),
    factor: str = "model",
    created: str = "2026-05-02T09:00:00+00:00",
    **options: Any,
) -> Path:
    """A sweep folder whose jobs have all finished."""
    jobs = []
    for place in itertools.product(models, optimizers, magnifications, folds, seeds):
        config = config_of(*place)
        overrides = [
            f"{key}={value}"
            for key, value in zip(
                ("model", "optimizer", "magnification", "split.fold", "seed"), place, strict=True
            )
        ]
        run = write_run(folder, config, **options)
        write_json(folder / "jobs" / f"{run.name}.json", {"config": asdict(config), "hydra": {}})
        jobs.append({"run": run.name, "overrides": overrides})
    levels = {"model": models, "optimizer": optimizers}[factor]
    write_plan(folder, jobs, {"factor": factor, "reference": levels[0], "levels": list(levels)}, created)
    return folder


def write_plan(
    folder: Path, jobs: Sequence[Mapping[str, Any]], comparison: Mapping[str, Any], created: str
) -> None:
    plan = {
        "schema": 1,
        "overrides": sorted({text for job in jobs for text in job["overrides"]}),
        "jobs": list(jobs),
        "comparison": {"score": "case_auroc"} | dict(comparison),
    }
    write_json(folder / "sweep.json", plan | {"hash": plan_hash(plan), "created": created})


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def by_case(table: Table) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Truth and mean probability of each case, by hand."""
    cases = sorted(set(table.case.tolist()))
    members = [table.case == case for case in cases]
    return np.array([table.malignant[m][0] for m in members]), np.array(
        [table.p_malignant[m].mean() for m in members]
    )
