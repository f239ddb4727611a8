"""Runs of a leakage study: real splits of the census, made-up predictions that know whether a case was seen."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from histo_lightning.config.identity import readable_name
from histo_lightning.config.schema import Config, SplitConfig
from histo_lightning.config.tree import option
from histo_lightning.data.breakhis.names import census_names
from histo_lightning.data.breakhis.records import record_of
from histo_lightning.data.splits import build_split
from histo_lightning.data.splits.build import labelled
from histo_lightning.evaluation import make_table, write_predictions

GROUP = {"slide_kfold": "slide", "official": "slide", "image_random": "image"}
SHARED = ("14-15570", "14-18842", "14-19979")  # malignant cases with several slides
RECORDS = [
    r
    for r in map(record_of, sorted(census_names()))
    if r.magnification == 100 and r.sequence <= 12 and (r.class_name == "benign" or r.case < "14-13200" or r.case in SHARED)
]  # fmt: skip
LEAK = 1.2  # what a case in train adds to a margin


def write_leakage_run(folder: Path, name: str, fold: int, seed: int, **split: Any) -> Path:
    """A finished run as ``train`` leaves it, but for its network: the margin of an image knows whether its case was seen."""
    config = Config()
    config.split = SplitConfig(name=name, group=GROUP.get(name, "case"), fold=fold, **split)
    config.seed, config.magnification = seed, "100x"
    config.model = {**option("model", "resnet10"), "name": "resnet10"}
    settings = asdict(config.split)
    plan = SplitConfig(**settings)
    found = build_split(RECORDS, plan, magnification="100x")
    by_name = {r.image: r for r in labelled(RECORDS, plan)}
    tested = [by_name[image] for image in found.parts["test"]]
    rng = np.random.default_rng([seed, fold, len(found.parts["train"])])
    effect = {c: np.random.default_rng(int(c.split("-")[1])).normal() for c in {r.case for r in tested}}
    signal = 0.0 if plan.shuffle_labels else 0.8
    seen = set(found.cases["train"])
    margin = [
        signal + effect[r.case] * (not plan.shuffle_labels) + LEAK * (r.case in seen) + rng.normal()
        for r in tested
    ]
    logit = [m if r.class_name == "malignant" else -m for r, m in zip(tested, margin, strict=True)]
    path = folder / readable_name(config)
    table = make_table(
        "binary",
        image=[r.image for r in tested],
        path=[r.path for r in tested],
        class_name=[r.class_name for r in tested],
        subtype=[r.subtype for r in tested],
        slide=[r.slide for r in tested],
        case=[r.case for r in tested],
        magnification=[r.magnification for r in tested],
        part="test",
        logits=np.column_stack([np.zeros(len(logit)), logit]),
    )
    write_predictions(path / "predictions" / "test.csv", table)
    (path / "config.yaml").write_text(yaml.safe_dump(asdict(config)))
    (path / "split.json").write_text(json.dumps(found.as_dict()))
    (path / "status.json").write_text(json.dumps({"state": "finished", "error": None}))
    (path / "metrics.json").write_text(json.dumps({"best_epoch": 0, "test": {}}))
    return path
