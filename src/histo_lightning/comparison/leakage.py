"""The leakage study of a sweep folder: its arms, what leaks, ``leakage.json``, ``.md``, ``.html`` and a picture."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from histo_lightning.comparison.folders import find_folders
from histo_lightning.comparison.reading import DAMAGED, FINISHED, read_runs
from histo_lightning.comparison.settings import settings_of
from histo_lightning.config.checks import unhashed_keys
from histo_lightning.data.breakhis.names import CLASSES, parse_name
from histo_lightning.evaluation.differences.leakage import CONTRAST, OFFICIAL, contrast, injection, official
from histo_lightning.report.figures.leakage import draw_leakage
from histo_lightning.report.leakage_page import markdown_text, write_page
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
COUNTS = [f"{class_name} {what}" for what in ("images", "cases") for class_name in CLASSES]


def write_leakage_study(sweep_folder: Path) -> Path | None:
    """Analyse the arms that a sweep folder holds and write what they show.

    Missing and failed runs are listed; what the others allow is computed.

    Returns:
        ``leakage.html`` in the folder, beside ``leakage.json``, ``leakage.md`` and the picture; None where the folder holds
        no finished run of a contrast between a leaky and another split.

    Raises:
        UserError: a file cannot be written.
    """
    runs, missing, problems = read_study(sweep_folder)
    arms = set(runs["arm"])
    if len(arms) < 2 or not any(arm.startswith(TELLING) for arm in arms):
        return None
    study = analyse(runs, missing, problems)
    write_json(sweep_folder / "leakage.json", study)
    write_atomic(sweep_folder / "leakage.md", markdown_text(study))
    draw_leakage(study, sweep_folder / "leakage")
    return write_page(study, sweep_folder)


def arm_of(run: Any) -> str | None:
    """``case_kfold``, ``injected 0.25``, ``official clean``, ... from ``split.*`` settings; None outside the study."""
    kind = run["split.name"]
    if kind == "injection":
        return f"injected {float(run['split.injected'] or 0):g}"
    names = [
        f"official {name}" for name in ("matched", "clean") if kind == "official" and run[f"split.{name}"]
    ]
    return names[0] if names else kind if kind in KINDS else None


def read_study(folder: Path) -> tuple[pd.DataFrame, list[dict[str, str]], list[str]]:
    """The runs of a study that can be analysed, with the columns of ``KEY``; the others and why not; problems in words."""
    runs = read_runs(find_folders([folder] if folder.is_dir() else []))[0]
    runs["arm"] = [arm_of(run) for _, run in runs.iterrows()]
    runs = runs[runs["arm"].notna() | runs["magnification"].isna()]
    why = [_why_left_out(run) for _, run in runs.iterrows()]
    missing = [{"run": run, "why": text} for run, text in zip(runs["run"], why, strict=True) if text]
    runs = runs.loc[[not text for text in why]].copy()
    runs["shuffled"], runs["fold"] = runs["split.shuffle_labels"].map(bool), runs["split.fold"].map(int)
    runs["magnification"] = [0 if text == "all" else int(text.rstrip("x")) for text in runs["magnification"]]
    settings = settings_of(runs).map(str)
    keys = [
        key for key in settings if key not in (*unhashed_keys(), *KEY) and not str(key).startswith(DESIGN)
    ]
    runs["recipe"] = list(settings[keys].itertuples(index=False, name=None))
    twice = runs.duplicated([*KEY, "recipe"])
    again = "is in the folder twice; the first copy is used"
    missing += [{"run": run, "why": again} for run in runs.loc[twice, "run"]]
    runs = runs[~twice]
    counts = Counter(runs["recipe"])
    if len(counts) < 2:
        return runs, missing, []
    first = max(counts, key=lambda recipe: (counts[recipe], recipe))
    differing = settings.loc[runs.index, keys].nunique() > 1
    differing_keys = ", ".join(sorted(differing.index[differing])[:5])
    others = runs[runs["recipe"] != first]
    missing += [{"run": run, "why": f"another recipe ({differing_keys})"} for run in others["run"]]
    problem = (
        f"The folder holds {len(counts)} recipes (they differ in {differing_keys}); only the one with most runs "
        f"({counts[first]}) is analysed, the other {len(others)} runs are listed as left out."
    )
    return runs[runs["recipe"] == first], missing, [problem]


def _why_left_out(run: "pd.Series[Any]") -> str:
    if run["state"] == DAMAGED:
        return str(run["error"])
    if run["state"] != FINISHED:
        return f"{run['state']}: {run['error']}".removesuffix(": ")
    if run["table"] is None:
        return "left the test part unread (test=false)"
    return "is an eight-class run; the study is benign against malignant" if run["task"] != "binary" else ""


def analyse(runs: pd.DataFrame, missing: list[dict[str, str]], problems: list[str]) -> Json:
    """All figures of a study, ready for JSON; ``docs/leakage.md`` says what each one is.

    Args:
        runs, missing, problems: of ``read_study``.
    """
    counts = pd.DataFrame([_train_counts(split) for split in runs["split"]], runs.index)
    runs = runs.assign(**counts, tested=[len(table) for table in runs["table"]])
    rows = pd.concat([_predictions(run) for _, run in runs.iterrows()], ignore_index=True)
    blocks, control = (
        {"contrast": contrast(own), "injection": injection(own[own["arm"].str.startswith("injected")])}
        for own in (rows[~rows["shuffled"]], rows[rows["shuffled"]])
    )
    # The shared cases of a fold, from runs that kept them in train.
    shared: dict[int, set[str]] = {}
    for _, run in runs[runs["arm"].isin([OFFICIAL[0], OFFICIAL[2]])].iterrows():
        cases = run["split"]["cases"]
        shared.setdefault(run["fold"], set()).update(set(cases["train"]) & set(cases["test"]))
    study = {
        "schema": 1,
        "level": 0.95,
        "recipe": {key: str(runs[key].iloc[0]) for key in SHOWN if key in runs},
        "seeds": sorted(set(runs["seed"].tolist())),
        "magnifications": sorted(set(runs["magnification"].tolist())),
        "runs": len(runs),
        "blocks": blocks | {"official": official(rows[~rows["shuffled"]], shared)},
        "control": control,
        "doses": _doses(runs),
        "design": _design(runs),
        "problems": problems + unequal(runs),
        "missing": missing,
    }
    return study | {"words": sentences(study)}


def _predictions(run: "pd.Series[Any]") -> pd.DataFrame:
    """A run's test set as ``differences.leakage`` takes it."""
    columns = {name: getattr(run["table"], name) for name in ("image", "slide", "case", "malignant")}
    return pd.DataFrame(columns | {"p": run["table"].p_malignant}).assign(**run[KEY])


def _doses(runs: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Siblings in train and in the pool by arm, means over the folds; at least one image a case makes small pools differ."""
    doses = {}
    for arm, splits in runs[runs["arm"].str.startswith("injected") & ~runs["shuffled"]].groupby("arm")[
        "split"
    ]:
        found = pd.DataFrame([split["injection"] for split in splits if split.get("injection")])
        if len(found):
            images, pool, probe = (float(found[key].mean()) for key in ("images", "pool", "probe"))
            share = images / pool if pool else 0.0
            doses[str(arm)] = {"images": images, "pool": pool, "probe": probe, "share": share}
    return doses


def _train_counts(split: Json) -> dict[str, int]:
    """``COUNTS``: images and cases of train by true class."""
    names = [name for image in split["parts"]["train"] if (name := parse_name(image)) is not None]
    found = Counter(f"{name.class_name} images" for name in names)
    found.update(f"{class_name} cases" for class_name, _ in {(name.class_name, name.case) for name in names})
    return {key: found[key] for key in COUNTS}


def _design(runs: pd.DataFrame) -> list[Json]:
    """What each arm trained and tested on: means over its runs, counted in their ``split.json``."""
    design = []
    for _, own in runs.groupby(["shuffled", "arm"]):
        labels = sorted({re.sub(r" \(\d+ images\)", "", label) for label in own["label"]} - {""})
        about = {"arm": own["arm"].iloc[0], "shuffled": bool(own["shuffled"].iloc[0]), "runs": len(own)}
        means = {key: float(own[key].mean()) for key in COUNTS} | {"test images": float(own["tested"].mean())}
        design.append(about | {"label": ", ".join(labels)} | means)
    return sorted(design, key=lambda row: (row["shuffled"], KINDS.index(_kind(row["arm"])), row["arm"]))


def _kind(arm: str) -> str:
    return arm.split()[0].replace("injected", "injection")


def unequal(runs: pd.DataFrame) -> list[str]:
    """Sentences on arms that should agree in a fold and do not: in tested images, in train cases and images by class."""
    texts = []
    images = [" ".join(sorted(table.image.tolist())) for table in runs["table"]]
    runs = runs.assign(kind=runs["arm"].map(_kind), images=images)
    own = runs[runs["kind"].isin(["injection", "official"])]
    for (kind, shuffled, magnification, fold), group in own.groupby(["kind", *KEY[1:2], *KEY[3:]]):
        where = f"{kind}{' with shuffled labels' if shuffled else ''}, fold {fold}, {magnification}X"
        if group["images"].nunique() > 1:
            texts.append(
                f"{where}: the arms were not tested on the same images; only common ones are compared."
            )
        # True classes say nothing where labels are shuffled, and the authors' fold as it is is larger.
        sized = group.loc[group["arm"] != "official", COUNTS]
        if shuffled:
            sized = pd.DataFrame({what: sized.filter(like=what).sum(axis=1) for what in ("cases", "images")})
        values = {str(key): sorted(set(sized[key].tolist())) for key in sized}
        unlike = [
            f"{key} {' or '.join(map(str, found))}" for key, found in sorted(values.items()) if found[1:]
        ]
        if unlike:
            texts.append(f"{where}: the training parts differ in size: {', '.join(unlike)}.")
    return texts
