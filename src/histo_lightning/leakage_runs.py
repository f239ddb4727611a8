"""The runs of a leakage study in a sweep folder: which arm each one is, its predictions, and which are missing."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from histo_lightning.config.checks import flatten, unhashed_keys
from histo_lightning.data.breakhis.names import CLASSES, parse_name
from histo_lightning.errors import UserError
from histo_lightning.evaluation.leakage_arms import CONTRAST, Key
from histo_lightning.evaluation.table import Table
from histo_lightning.evaluation.table_csv import read_predictions
from histo_lightning.runs import read_json

KINDS = (*CONTRAST, "injection", "official")
# What the arms of one study may differ in.
DESIGN = ("split.", "seed", "magnification", "study.")


@dataclass(frozen=True)
class Arm:
    """An arm: ``case_kfold``, ``injected 0.25``, ``official clean``, ...; ``shuffled`` for the control's copy of it."""

    name: str
    shuffled: bool


@dataclass(frozen=True)
class Run:
    """One finished run."""

    name: str
    arm: Arm
    key: Key
    recipe: tuple[tuple[str, str], ...]
    split: Mapping[str, Any]
    table: Table

    @property
    def shared(self) -> list[str]:
        """Cases that train and test share."""
        cases = self.split["cases"]
        return sorted(set(cases["train"]) & set(cases["test"]))

    def train_counts(self) -> dict[str, int]:
        """Images and cases of train by true class."""
        names = [name for image in self.split["parts"]["train"] if (name := parse_name(image)) is not None]
        cases = Counter(c for c, _ in {(n.class_name, n.case) for n in names})
        images = Counter(n.class_name for n in names)
        return {
            f"{c} {what}": count[c] for what, count in (("images", images), ("cases", cases)) for c in CLASSES
        }


@dataclass
class Study:
    """All that a sweep folder holds of a study.

    Attributes:
        runs: finished, of one recipe.
        missing: ``{"run", "why"}`` of jobs that failed, did not finish, left test unread or are of another recipe.
        problems: sentences on what does not fit together.
    """

    runs: list[Run] = field(default_factory=list)
    missing: list[dict[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def arm_of(split: Mapping[str, Any]) -> Arm | None:
    """The arm of a run's ``split`` settings; None for a split that is in no arm."""
    kind = str(split.get("name"))
    if kind not in KINDS:
        return None
    name = kind
    if kind == "injection":
        name = f"injected {float(split.get('injected') or 0):g}"
    for variant in ("clean", "matched"):
        if kind == "official" and split.get(variant):
            name = f"official {variant}"
    return Arm(name, bool(split.get("shuffle_labels")))


def read_study(folder: Path) -> Study:
    """Read every run folder of a sweep that belongs to an arm; never raises for a damaged one, but says so."""
    study = Study()
    for path in sorted(p.parent for p in folder.glob("*/config.yaml")):
        _add(study, path)
    _add_jobs(study, folder)
    _keep_one_recipe(study)
    return study


def _add(study: Study, path: Path) -> None:
    try:
        config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
        settings = config["split"]
        arm = arm_of(settings)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        study.missing.append(
            {"run": path.name, "why": f"config.yaml cannot be read ({error})".splitlines()[0]}
        )
        return
    if arm is None:
        return
    status, split = read_json(path / "status.json"), read_json(path / "split.json")
    state = str(status.get("state") or "of unknown state")
    why = None
    if state != "finished":
        why = f"{state}: {status['error']}" if status.get("error") else state
    elif not config.get("test", True):
        why = "left the test part unread (test=false)"
    elif not split.get("parts") or not split.get("cases"):
        why = "split.json is missing or damaged"
    elif config.get("task", "binary") != "binary":
        why = "is an eight-class run; the study is benign against malignant"
    if why is None:
        try:
            table = read_predictions(path / "predictions" / "test.csv")
            key = int(config["seed"]), _magnification(config), int(settings["fold"])
            recipe = tuple(sorted((k, str(v)) for k, v in flatten(config) if _is_recipe(k)))
        except (UserError, KeyError, ValueError) as error:
            why = str(error)
    if why is not None:
        study.missing.append({"run": path.name, "why": why})
        return
    if any((run.arm, run.key, run.recipe) == (arm, key, recipe) for run in study.runs):
        study.missing.append({"run": path.name, "why": "stands in the folder twice; the first copy is used"})
        return
    study.runs.append(Run(path.name, arm, key, recipe, split, table))


def _magnification(config: Mapping[str, Any]) -> int:
    text = str(config["magnification"])
    return 0 if text == "all" else int(text.removesuffix("x"))


def _is_recipe(key: str) -> bool:
    return key not in unhashed_keys() and not key.startswith(DESIGN)


def _add_jobs(study: Study, folder: Path) -> None:
    """Jobs of the sweep's plan that left no run, or whose state says more than the run folder."""
    plan = read_json(folder / "sweep.json").get("jobs")
    known = {run.name for run in study.runs} | {entry["run"] for entry in study.missing}
    for job in plan if isinstance(plan, list) else []:
        name = str(job.get("run")) if isinstance(job, dict) else ""
        state = read_json(folder / "jobs" / f"{name}.json")
        if not name or name in known or state.get("state") == "finished":
            continue
        told = str(state.get("state") or "pending")
        study.missing.append(
            {"run": name, "why": f"{told}: {state['error']}" if state.get("error") else told}
        )


def _keep_one_recipe(study: Study) -> None:
    """Arms that differ in more than the split cannot be compared: the recipe with most runs is kept, the others said."""
    by_recipe: dict[tuple[tuple[str, str], ...], list[Run]] = defaultdict(list)
    for run in study.runs:
        by_recipe[run.recipe].append(run)
    if len(by_recipe) < 2:
        return
    first = max(by_recipe, key=lambda recipe: (len(by_recipe[recipe]), recipe))
    keys = sorted({key for recipe in by_recipe for key, _ in set(recipe) ^ set(first)})
    others = [run for run in study.runs if run.recipe != first]
    study.runs = by_recipe[first]
    study.missing += [{"run": run.name, "why": f"another recipe ({', '.join(keys[:5])})"} for run in others]
    study.problems.append(
        f"The folder holds {len(by_recipe)} recipes (they differ in {', '.join(keys[:5])}); only the one with most runs "
        f"({len(study.runs)}) is analysed, the other {len(others)} runs are listed as left out."
    )
