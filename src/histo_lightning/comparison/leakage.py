"""The leakage study of a sweep folder: its arms, what leaks, ``leakage.json``, ``.md``, ``.html`` and a picture."""

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from histo_lightning.comparison.reading import DAMAGED, FINISHED, read_runs
from histo_lightning.comparison.settings import label_kind, settings_of, varying
from histo_lightning.data.breakhis.names import CLASSES, parse_name
from histo_lightning.data.splits.injection import Injection
from histo_lightning.data.splits.official import Official
from histo_lightning.evaluation.differences.leakage import CONTRAST, OFFICIAL, contrast, injection, official
from histo_lightning.evaluation.table import Json
from histo_lightning.report.leakage_page import sentences, write_study
from histo_lightning.runs import write_json

KINDS = (*CONTRAST, Injection.name, Official.name)
INJECTED = "injected"
DESIGN = ("split.", "seed", "magnification", "study.")  # what the arms of one study may differ in
# The arms that make a folder a leakage study; case_kfold alone is any sweep's default.
TELLING = (INJECTED, Official.name, *CONTRAST[:2])
SHOWN = ("model.name", "epochs", "scored_weights", "ema.decay", "image_size", "batch_size", "optimizer.name",
         "optimizer.lr", "augment.name", "dataset.name")  # fmt: skip
OTHER_TASK = "is an eight-class run; the study is benign against malignant"
KEY = ["arm", "shuffled", "seed", "magnification", "fold"]
COUNTS = [f"{class_name} {what}" for what in ("images", "cases") for class_name in CLASSES]


def write_leakage_study(sweep_folder: Path) -> Path | None:
    """Write ``leakage.html``, beside ``leakage.json``, ``leakage.md`` and the picture; missing and failed runs are listed.

    None where the folder holds no finished run of a contrast between a leaky and another split.
    """
    runs, missing, problems = read_study(sweep_folder)
    arms = set(runs["arm"])
    if len(arms) < 2 or not any(arm.startswith(TELLING) for arm in arms):
        return None
    study = analyse(runs, missing, problems)
    write_json(sweep_folder / "leakage.json", study)
    return write_study(study, sweep_folder)


def arm_of(run: Any) -> str | None:
    """``case_kfold``, ``injected 0.25``, ``official clean``, ... from ``split.*`` settings; None outside the study."""
    kind, (_, clean, matched) = run["split.name"], OFFICIAL
    if kind == Injection.name:
        return f"{INJECTED} {float(run['split.injected'] or 0):g}"
    if kind == Official.name:
        return matched if run["split.matched"] else clean if run["split.clean"] else kind
    return kind if kind in KINDS else None


def read_study(folder: Path) -> tuple[pd.DataFrame, list[dict[str, str]], list[str]]:
    """The runs of a study that can be analysed, with the columns of ``KEY``; the others and why not; problems in words."""
    runs, _, _ = read_runs([folder] if folder.is_dir() else [])
    settings = settings_of(runs)
    runs["arm"] = [arm_of(run) for _, run in runs.iterrows()]
    runs = runs[runs["arm"].notna() | runs["magnification"].isna()]
    missing: list[dict[str, str]] = []
    problems: list[str] = []

    def without(why: "pd.Series[str]") -> pd.DataFrame:
        missing.extend({"run": run, "why": text} for run, text in zip(runs["run"], why, strict=True) if text)
        return runs[why == ""].copy()

    why = runs["task"].map(lambda task: "" if task == "binary" else OTHER_TASK)
    why = why.mask(runs["table"].isna(), "left the test part unread (test=false)")
    errors = (runs["state"] + ": " + runs["error"]).str.removesuffix(": ").str.removeprefix(f"{DAMAGED}: ")
    runs = without(why.mask(runs["state"] != FINISHED, errors))
    runs["shuffled"], runs["fold"] = runs["split.shuffle_labels"].map(bool), runs["split.fold"].map(int)
    runs["magnification"] = [0 if text == "all" else int(text.rstrip("x")) for text in runs["magnification"]]
    keys = [key for key in varying(settings.loc[runs.index]) if not key.startswith(DESIGN)]
    runs["recipe"] = list(settings.loc[runs.index, keys].map(str).itertuples(index=False, name=None))
    twice = "is in the folder twice; the first copy is used"
    runs = without(runs.duplicated([*KEY, "recipe"]).map({True: twice, False: ""}))
    counts = Counter(runs["recipe"])
    if len(counts) > 1:
        first, names = max(counts, key=lambda recipe: (counts[recipe], recipe)), ", ".join(keys[:5])
        problems.append(
            f"The folder holds {len(counts)} recipes (they differ in {names}); only the one with most runs "
            f"({counts[first]}) is analysed, the other {len(runs) - counts[first]} runs are listed as left out."
        )
        runs = without((runs["recipe"] == first).map({True: "", False: f"another recipe ({names})"}))
    return runs, missing, problems


def analyse(runs: pd.DataFrame, missing: list[dict[str, str]], problems: list[str]) -> Json:
    """All figures of a study, of what ``read_study`` returns, ready for JSON; ``docs/leakage.md`` says what each one is."""
    sizes = []  # of train by true class
    for split in runs["split"]:
        names = [name for image in split["parts"]["train"] if (name := parse_name(image)) is not None]
        images = Counter(f"{name.class_name} images" for name in names)
        cases = Counter(f"{kind} cases" for kind, _ in {(name.class_name, name.case) for name in names})
        sizes.append([(images | cases)[key] for key in COUNTS])
    counts = pd.DataFrame(sizes, runs.index, COUNTS)
    runs = runs.assign(**counts, **{"test images": runs["table"].map(len)})
    tables = []
    for _, run in runs.iterrows():
        columns = {name: getattr(run["table"], name) for name in ("image", "slide", "case", "malignant")}
        tables.append(pd.DataFrame(columns | {"p": run["table"].p_malignant}).assign(**run[KEY]))
    rows = pd.concat(tables, ignore_index=True)
    true, shuffled = rows[~rows["shuffled"]], rows[rows["shuffled"]]
    blocks, control = (
        {"contrast": contrast(own), "injection": injection(own[own["arm"].str.startswith(INJECTED)])}
        for own in (true, shuffled)
    )
    # The shared cases of a fold, from runs that kept them in train.
    shared: dict[int, set[str]] = {}
    for fold, split in runs.loc[runs["arm"].isin([OFFICIAL[0], OFFICIAL[2]]), ["fold", "split"]].to_numpy():
        shared.setdefault(fold, set()).update(set(split["cases"]["train"]) & set(split["cases"]["test"]))
    recipe = {key: str(runs[key].iloc[0]) for key in SHOWN if key in runs}
    study: dict[str, Any] = {"schema": 1, "level": 0.95, "recipe": recipe}
    study |= {f"{key}s": sorted(set(runs[key].tolist())) for key in ("seed", "magnification")}
    study |= {"runs": len(runs), "blocks": blocks | {"official": official(true, shared)}, "control": control}
    study |= {"doses": _doses(runs), "design": _design(runs)}
    study |= {"problems": problems + unequal(runs), "missing": missing}
    return study | {"words": sentences(study)}


def _doses(runs: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Siblings in train and in the pool by arm, means over the folds; at least one image a case makes small pools differ."""
    doses = {}
    for arm, own in runs[~runs["shuffled"]].groupby("arm"):
        injected = [split["injection"] for split in own["split"] if split.get("injection")]
        if injected:
            dose = pd.DataFrame(injected)[["images", "pool", "probe"]].mean().to_dict()
            doses[str(arm)] = dose | {"share": dose["images"] / dose["pool"] if dose["pool"] else 0.0}
    return doses


def _design(runs: pd.DataFrame) -> list[Json]:
    """What each arm trained and tested on: means over its runs, counted in their ``split.json``."""
    design = []
    for (shuffled, arm), own in runs.groupby(["shuffled", "arm"]):
        labels = {"; ".join(map(label_kind, label.split("; "))) for label in own["label"]} - {""}
        about = {"arm": arm, "shuffled": bool(shuffled), "runs": len(own), "label": ", ".join(sorted(labels))}
        design.append(about | {key: float(own[key].mean()) for key in (*COUNTS, "test images")})
    return sorted(design, key=lambda row: (row["shuffled"], KINDS.index(_kind(row["arm"])), row["arm"]))


def _kind(arm: str) -> str:
    return arm.split()[0].replace(INJECTED, Injection.name)


def unequal(runs: pd.DataFrame) -> list[str]:
    """Sentences on arms that should agree in a fold and do not: in tested images, in train cases and images by class."""
    texts = []
    images = [" ".join(sorted(table.image.tolist())) for table in runs["table"]]
    runs = runs.assign(kind=runs["arm"].map(_kind), images=images)
    own = runs[runs["kind"].isin([Injection.name, Official.name])]
    for (kind, shuffled, magnification, fold), group in own.groupby(["kind", *KEY[1:2], *KEY[3:]]):
        where = f"{kind}{' with shuffled labels' if shuffled else ''}, fold {fold}, {magnification}X"
        if group["images"].nunique() > 1:
            different = "the arms were not tested on the same images; only common ones are compared"
            texts.append(f"{where}: {different}.")
        # True classes say nothing where labels are shuffled, and the authors' fold as it is is larger.
        sizes = group.loc[group["arm"] != Official.name, COUNTS]
        if shuffled:
            sizes = pd.DataFrame({what: sizes.filter(like=what).sum(axis=1) for what in ("cases", "images")})
        values = {key: sorted(set(sizes[key].tolist())) for key in sorted(map(str, sizes))}
        unlike = [f"{key} {' or '.join(map(str, each))}" for key, each in values.items() if each[1:]]
        if unlike:
            texts.append(f"{where}: the training parts differ in size: {', '.join(unlike)}.")
    return texts
