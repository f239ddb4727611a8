"""The end of a leakage study: from the run folders of a sweep to ``leakage.json``, ``.md``, ``.html`` and a picture.

Reads tables only; no model, no image, no torch.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from histo_lightning.evaluation.leakage_arms import Runs, contrast, injection, official
from histo_lightning.leakage_runs import KINDS, Arm, Run, Study, read_study
from histo_lightning.report.figures.leakage import draw_leakage
from histo_lightning.report.leakage_page import markdown_text, write_page
from histo_lightning.report.leakage_words import sentences
from histo_lightning.runs import write_atomic, write_json

# The arms that make a folder a leakage study; case_kfold alone is any sweep's default.
TELLING = ("injected", "official", "image_random", "slide_kfold")
SHOWN = ("model.name", "epochs", "scored_weights", "ema.decay", "image_size", "batch_size", "optimizer.name",
         "optimizer.lr", "augment.name", "dataset.name")  # fmt: skip


def write_leakage_study(sweep_folder: Path) -> Path | None:
    """Analyse the arms that a sweep folder holds and write what they show.

    Missing and failed runs are listed; what the others allow is computed.

    Returns:
        ``leakage.html`` in the folder, beside ``leakage.json``, ``leakage.md`` and ``leakage.png`` and ``.svg``; None where
        the folder holds no finished run of a contrast between a leaky and another split.

    Raises:
        UserError: a file cannot be written.
    """
    study = read_study(sweep_folder)
    if not is_leakage_study(study):
        return None
    found = analyse(study)
    write_json(sweep_folder / "leakage.json", found)
    write_atomic(sweep_folder / "leakage.md", markdown_text(found))
    draw_leakage(found, sweep_folder / "leakage")
    return write_page(found, sweep_folder)


def is_leakage_study(study: Study) -> bool:
    """Whether two arms stand beside each other, one of them leaky by design."""
    names = {run.arm for run in study.runs}
    return len(names) > 1 and any(arm.name.startswith(TELLING) for arm in names)


def analyse(study: Study) -> dict[str, Any]:
    """All figures of a study, ready for JSON; ``docs/leakage.md`` says what each one is."""
    arms: dict[Arm, dict[Any, Any]] = defaultdict(dict)
    for run in study.runs:
        arms[run.arm][run.key] = run.table
    blocks, control = (_blocks(study, arms, shuffled) for shuffled in (False, True))
    recipe = dict(study.runs[0].recipe)
    found = {
        "schema": 1,
        "level": 0.95,
        "recipe": {key: recipe[key] for key in SHOWN if key in recipe},
        "seeds": sorted({run.key[0] for run in study.runs}),
        "magnifications": sorted({run.key[1] for run in study.runs}),
        "runs": len(study.runs),
        "blocks": blocks,
        "control": control,
        "doses": _doses(study.runs),
        "design": _design(study.runs),
        "problems": study.problems + unequal(study.runs),
        "missing": study.missing,
    }
    return found | {"words": sentences(found)}


def _blocks(study: Study, arms: Mapping[Arm, Runs], shuffled: bool) -> dict[str, Any]:
    here = {arm.name: runs for arm, runs in arms.items() if arm.shuffled == shuffled}
    injected = {name: runs for name, runs in here.items() if name.startswith("injected")}
    blocks: dict[str, Any] = {"contrast": contrast(here), "injection": injection(injected)}
    if not shuffled:
        # The shared cases of a fold, from runs that kept them in train.
        shared: dict[int, list[str]] = {}
        for run in study.runs:
            if run.arm.name in ("official", "official matched"):
                shared[run.key[2]] = sorted({*shared.get(run.key[2], ()), *run.shared})
        blocks["official"] = official(here, shared)
    return blocks


def _doses(runs: list[Run]) -> dict[str, dict[str, float]]:
    """Siblings in train and in the pool by arm, means over the folds; at least one image a case makes small pools differ."""
    by_arm: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    for run in runs:
        if run.arm.name.startswith("injected") and not run.arm.shuffled and run.split.get("injection"):
            by_arm[run.arm.name].append(run.split["injection"])
    doses = {}
    for name, found in sorted(by_arm.items()):
        images, pool, probe = (float(np.mean([f[key] for f in found])) for key in ("images", "pool", "probe"))
        doses[name] = {
            "images": images,
            "pool": pool,
            "probe": probe,
            "share": images / pool if pool else 0.0,
        }
    return doses


def _design(runs: list[Run]) -> list[dict[str, Any]]:
    """What each arm trained and tested on: means over its runs, counted in their ``split.json``."""
    by_arm: dict[Arm, list[Run]] = defaultdict(list)
    for run in runs:
        by_arm[run.arm].append(run)
    rows = []
    for arm in sorted(by_arm, key=lambda a: (a.shuffled, KINDS.index(_kind(a)), a.name)):
        members = by_arm[arm]
        counts = [run.train_counts() for run in members]
        rows.append(
            {"arm": arm.name, "shuffled": arm.shuffled, "runs": len(members), "label": _labels(members)}
            | {key: float(np.mean([c[key] for c in counts])) for key in counts[0]}
            | {"test images": float(np.mean([len(run.table) for run in members]))}
        )
    return rows


def _kind(arm: Arm) -> str:
    first = arm.name.split()[0]
    return "injection" if first == "injected" else first


def _labels(members: list[Run]) -> str:
    found = sorted({re.sub(r" \(\d+ images\)", "", str(run.split.get("label") or "")) for run in members})
    return ", ".join(label for label in found if label)


def unequal(runs: list[Run]) -> list[str]:
    """Sentences on arms that should agree in a fold and do not: in tested images, in train cases and images by class."""
    groups: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        kind = _kind(run.arm)
        if kind in ("injection", "official"):
            groups[kind, run.arm.shuffled, *run.key[1:]].append(run)
    found = []
    for (kind, shuffled, magnification, fold), members in sorted(groups.items()):
        where = f"{kind}{' with shuffled labels' if shuffled else ''}, fold {fold}, {magnification}X"
        if len({frozenset(run.table.image.tolist()) for run in members}) > 1:
            found.append(
                f"{where}: the arms were not tested on the same images; only common ones are compared."
            )
        # True classes say nothing where labels are shuffled, and the authors' fold as it is is larger.
        sized = [run for run in members if run.arm.name != "official"]
        counts = [run.train_counts() for run in sized]
        if shuffled:
            counts = [
                {w: sum(v for k, v in c.items() if k.endswith(w)) for w in ("images", "cases")}
                for c in counts
            ]
        different = sorted({key for c in counts for key in c if c[key] != counts[0][key]})
        if different:
            told = ", ".join(
                f"{key} {' or '.join(map(str, sorted({c[key] for c in counts})))}" for key in different
            )
            found.append(f"{where}: the training parts differ in size: {told}.")
    return found
