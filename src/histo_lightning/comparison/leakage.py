"""The leakage study of a sweep folder: its arms, what leaks, ``leakage.json``, ``.md``, ``.html`` and a picture."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from histo_lightning.comparison.folders import find_folders
from histo_lightning.comparison.reading import DAMAGED, FINISHED, read_runs
from histo_lightning.comparison.settings import settings_of
from histo_lightning.config import NOT_HASHED
from histo_lightning.data.names import CLASSES, parse_name
from histo_lightning.evaluation.differences.leakage import CONTRAST, OFFICIAL, contrast, injection, official
from histo_lightning.report.leakage_page import markdown_text, write_page
from histo_lightning.report.leakage_picture import draw_leakage
from histo_lightning.report.leakage_words import sentences
from histo_lightning.runs import write_atomic, write_json

Json = dict[str, Any]

KINDS = (*CONTRAST, "injection", "official")
DESIGN = ("split.", "seed", "magnification", "study.")  # what the arms of one study may differ in
# The arms that make a folder a leakage study; case_kfold alone is any sweep's default.
TELLING = ("injected", "official", "image_random", "slide_kfold")
SHOWN = ("model.name", "epochs", "scored_weights", "ema.decay", "image_size", "batch_size", "optimizer.name",
         "optimizer.lr", "augment.name", "dataset.name")  # fmt: skip
KEY = ["arm", "shuffled", "seed", "magnification", "fold"]


def write_leakage_study(sweep_folder: Path) -> Path | None:
    """Analyse the arms that a sweep folder holds and write what they show.

    Missing and failed runs are listed; what the others allow is computed.

    Returns:
        ``leakage.html`` in the folder, beside ``leakage.json``, ``leakage.md`` and the picture; None where the folder holds
        no finished run of a contrast between a leaky and another split.

    Raises:
        UserError: a file cannot be written.
    """
    if not sweep_folder.is_dir():
        return None
    runs, missing, problems = read_study(sweep_folder)
    arms = set(runs["arm"])
    if len(arms) < 2 or not any(arm.startswith(TELLING) for arm in arms):
        return None
    study = analyse(runs, missing, problems)
    write_json(sweep_folder / "leakage.json", study)
    write_atomic(sweep_folder / "leakage.md", markdown_text(study))
    draw_leakage(study, sweep_folder / "leakage")
    return write_page(study, sweep_folder)


def arm_of(split: Any) -> str | None:
    """``case_kfold``, ``injected 0.25``, ``official clean``, ... from ``split.*`` settings; None outside the study."""
    kind = str(split["split.name"])
    if kind == "injection":
        return f"injected {float(split['split.injected'] or 0):g}"
    for variant in ("matched", "clean"):
        if kind == "official" and split[f"split.{variant}"]:
            return f"official {variant}"
    return kind if kind in KINDS else None


def read_study(folder: Path) -> tuple[pd.DataFrame, list[dict[str, str]], list[str]]:
    """The finished runs of a study, of one recipe, with the columns of ``KEY``; what is missing; and problems in words."""
    runs = read_runs(find_folders([folder]))[0]
    if runs.empty:
        return runs.assign(arm=None), [], []
    known = runs["magnification"].notna()
    runs["arm"] = [arm_of(run) if ok else None for ok, (_, run) in zip(known, runs.iterrows(), strict=True)]
    runs = runs[runs["arm"].notna() | ~known].copy()
    why = runs.apply(_why_left_out, axis=1) if len(runs) else pd.Series(dtype=object)
    missing = [{"run": run, "why": text} for run, text in zip(runs["run"], why, strict=True) if text]
    runs = runs[why == ""].copy()
    runs["shuffled"] = runs["split.shuffle_labels"].map(bool)
    runs["fold"] = runs["split.fold"].map(int)
    runs["magnification"] = runs["magnification"].map(
        lambda text: 0 if text == "all" else int(str(text)[:-1])
    )
    settings = settings_of(runs)
    keys = [key for key in settings if key not in NOT_HASHED and not str(key).startswith((*DESIGN, *KEY))]
    runs["recipe"] = [tuple(map(str, row)) for row in settings[keys].itertuples(index=False)]
    twice = runs.duplicated([*KEY, "recipe"])
    missing += [
        {"run": run, "why": "is in the folder twice; the first copy is used"} for run in runs["run"][twice]
    ]
    runs = runs[~twice]
    counts = Counter(runs["recipe"])
    if len(counts) < 2:
        return runs, missing, []
    first = max(counts, key=lambda recipe: (counts[recipe], recipe))
    told = ", ".join(sorted(key for key in keys if settings.loc[runs.index, key].map(str).nunique() > 1)[:5])
    others = runs[runs["recipe"] != first]
    missing += [{"run": run, "why": f"another recipe ({told})"} for run in others["run"]]
    problem = (
        f"The folder holds {len(counts)} recipes (they differ in {told}); only the one with most runs "
        f"({counts[first]}) is analysed, the other {len(others)} runs are listed as left out."
    )
    return runs[runs["recipe"] == first], missing, [problem]


def _why_left_out(run: "pd.Series[Any]") -> str:
    if run["state"] == DAMAGED:
        return str(run["error"])
    if run["state"] != FINISHED:
        return f"{run['state']}: {run['error']}" if run["error"] else str(run["state"])
    if run["table"] is None:
        return "left the test part unread (test=false)"
    return "is an eight-class run; the study is benign against malignant" if run["task"] != "binary" else ""


def analyse(runs: pd.DataFrame, missing: list[dict[str, str]], problems: list[str]) -> Json:
    """All figures of a study, ready for JSON; ``docs/leakage.md`` says what each one is."""
    rows = _predictions(runs)
    counts = pd.DataFrame([_train_counts(split) for split in runs["split"]], index=runs.index)
    study = {
        "schema": 1,
        "level": 0.95,
        "recipe": {key: str(runs.iloc[0][key]) for key in SHOWN if key in runs},
        "seeds": sorted(set(runs["seed"].tolist())),
        "magnifications": sorted(set(runs["magnification"].tolist())),
        "runs": len(runs),
        "blocks": _blocks(rows[~rows["shuffled"]])
        | {"official": official(rows[~rows["shuffled"]], _shared(runs))},
        "control": _blocks(rows[rows["shuffled"]]),
        "doses": _doses(runs),
        "design": _design(runs, counts),
        "problems": problems + unequal(runs, counts),
        "missing": missing,
    }
    return study | {"words": sentences(study)}


def _predictions(runs: pd.DataFrame) -> pd.DataFrame:
    """A row an image of a run's test part, as ``differences.leakage`` takes it."""
    columns = {
        "image": "image",
        "slide": "slide",
        "case": "case",
        "malignant": "malignant",
        "p": "p_malignant",
    }
    return pd.concat(
        [
            pd.DataFrame({name: getattr(run["table"], column) for name, column in columns.items()}).assign(
                **run[KEY]
            )
            for _, run in runs.iterrows()
        ],
        ignore_index=True,
    )


def _blocks(rows: pd.DataFrame) -> Json:
    injected = rows["arm"].str.startswith("injected")
    return {"contrast": contrast(rows), "injection": injection(rows[injected])}


def _shared(runs: pd.DataFrame) -> dict[int, set[str]]:
    """The cases that train and test share by fold of the authors, from runs that kept them in train."""
    shared: dict[int, set[str]] = {}
    for _, run in runs[runs["arm"].isin([OFFICIAL[0], OFFICIAL[2]])].iterrows():
        cases = run["split"]["cases"]
        shared.setdefault(run["fold"], set()).update(set(cases["train"]) & set(cases["test"]))
    return shared


def _doses(runs: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Siblings in train and in the pool by arm, means over the folds; at least one image a case makes small pools differ."""
    own = runs[runs["arm"].str.startswith("injected") & ~runs["shuffled"]]
    doses = {}
    for arm, splits in own.groupby("arm")["split"]:
        found = pd.DataFrame([split["injection"] for split in splits if split.get("injection")])
        if len(found):
            mean = {key: float(found[key].mean()) for key in ("images", "pool", "probe")}
            doses[str(arm)] = mean | {"share": mean["images"] / mean["pool"] if mean["pool"] else 0.0}
    return doses


def _train_counts(split: Json) -> dict[str, int]:
    """Images and cases of train by true class."""
    names = [name for image in split["parts"]["train"] if (name := parse_name(image)) is not None]
    images = Counter(name.class_name for name in names)
    cases = Counter(class_name for class_name, _ in {(name.class_name, name.case) for name in names})
    return {
        f"{c} {what}": count[c] for what, count in (("images", images), ("cases", cases)) for c in CLASSES
    }


def _design(runs: pd.DataFrame, counts: pd.DataFrame) -> list[Json]:
    """What each arm trained and tested on: means over its runs, counted in their ``split.json``."""
    design = []
    groups = dict(list(runs.groupby(["shuffled", "arm"])))
    for shuffled, arm in sorted(groups, key=lambda key: (key[0], KINDS.index(_kind(key[1])), key[1])):
        own = groups[shuffled, arm]
        labels = sorted({re.sub(r" \(\d+ images\)", "", label) for label in own["label"]} - {""})
        about = {"arm": arm, "shuffled": bool(shuffled), "runs": len(own), "label": ", ".join(labels)}
        means = {key: float(counts.loc[own.index, key].mean()) for key in counts}
        design.append(about | means | {"test images": float(own["table"].map(len).mean())})
    return design


def _kind(arm: str) -> str:
    first = arm.split()[0]
    return "injection" if first == "injected" else first


def unequal(runs: pd.DataFrame, counts: pd.DataFrame) -> list[str]:
    """Sentences on arms that should agree in a fold and do not: in tested images, in train cases and images by class."""
    texts = []
    kinds = runs["arm"].map(_kind)
    own = runs[kinds.isin(("injection", "official"))]
    for (kind, shuffled, magnification, fold), group in own.groupby(
        [kinds, "shuffled", "magnification", "fold"]
    ):
        where = f"{kind}{' with shuffled labels' if shuffled else ''}, fold {fold}, {magnification}X"
        if group["table"].map(lambda table: frozenset(table.image.tolist())).nunique() > 1:
            texts.append(
                f"{where}: the arms were not tested on the same images; only common ones are compared."
            )
        # True classes say nothing where labels are shuffled, and the authors' fold as it is is larger.
        sized = counts.loc[group.index[group["arm"] != "official"]]
        if shuffled:
            sized = sized.T.groupby(lambda name: name.split()[1]).sum().T[["images", "cases"]]
        told = [
            f"{key} {' or '.join(map(str, sorted(set(sized[key].tolist()))))}"
            for key in sorted(sized)
            if sized[key].nunique() > 1
        ]
        if told:
            texts.append(f"{where}: the training parts differ in size: {', '.join(told)}.")
    return texts
