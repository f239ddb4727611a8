"""``select=``: what is best by validation, and what to score next. Never by test scores."""

import shlex
from collections.abc import Sequence
from typing import Any

import pandas as pd

from histo_lightning.comparison.reading import FINISHED
from histo_lightning.comparison.settings import replicate_text
from histo_lightning.config.checks import nearest
from histo_lightning.errors import UserError
from histo_lightning.evaluation.registry import named_score, score_names
from histo_lightning.evaluation.table import Json

BEST = "best"
OPTIMISTIC = (
    "A choice over several folds is selected on the same cases that are scored: optimistic. Every case is validated in "
    "one fold and tested in another, so the pooled test score of that choice is too good; the choices fold by fold, each "
    "scored on its own fold, are not."
)


def checked_selection(select: str, score: str, runs: Sequence[str]) -> str:
    """The score that selects, or the name of a run, one of ``runs``; UserError for test scores and any other text."""
    if select.startswith("test"):
        raise UserError(
            f"select={select}: refused, that would be a selection made on test scores: the best of several test scores "
            "is too good by chance, and nothing is left to say by how much; select=best chooses by validation"
        )
    wanted = score if select == BEST else select if select in runs else select.removeprefix("val_")
    if wanted not in (*score_names(), *runs):
        near = nearest(select, [BEST, f"val_{score}", *sorted(set(runs))])
        allowed = f"give best, a validation score such as val_{score}, or the name of a run"
        raise UserError(f"select={select}: {allowed}{near}")
    return wanted


def select_cells(described: pd.DataFrame, runs: pd.DataFrame, select: str, score: str) -> Json:
    """What is best by validation, in each protocol and magnification; or one run, where its name was given."""
    wanted = checked_selection(select, score, runs["run"].tolist())
    for _, run in runs[runs["run"] == wanted].iterrows():
        return {"rule": f"the run {wanted}", "choices": [], "run": _next(run, score), "warning": None}
    choices: list[Json] = [
        {"world": protocol, "magnification": magnification} | _best(cells, wanted, score)
        for (protocol, magnification), cells in described.groupby(["protocol", "magnification"], sort=False)
    ]
    better = "smallest" if named_score(wanted)[1].lower_is_better else "largest"
    several = any(len(choice.get("folds", ())) > 1 for choice in choices)
    return {
        "rule": f"{better} mean validation {wanted.replace('_', ' ')}, ties by name",
        "score": f"val_{wanted}",
        "choices": choices,
        "run": None,
        "warning": OPTIMISTIC if several else None,
    }


def _best(runs: pd.DataFrame, wanted: str, score: str) -> Json:
    """The best level and setting of some runs, over the folds and replicates that all of them have."""
    finished = runs[runs["state"] == FINISHED]
    values = finished.groupby(["title", "replicate", "fold"])[f"val_{wanted}"].mean().unstack("title")
    values = values.dropna(axis=1, how="all")
    titles = runs["title"].unique().tolist()
    left_out = [title for title in titles if title not in values]
    common = values.dropna().sort_index(axis=1)  # ties by name
    if common.empty:
        why = "no fold and seed was validated for every candidate"
        return {"arm": None, "reason": why, "left_out": left_out}
    sign = -1 if named_score(wanted)[1].lower_is_better else 1
    means: dict[Any, float] = {title: common[title].mean() for title in common}
    by_fold = common.groupby("fold").mean()
    chosen = max(means, key=lambda title: sign * means[title])
    own = finished[finished["title"] == chosen].set_index(["replicate", "fold"])
    own = own[own.index.isin(common.index)]
    unread, best = own[own["table"].isna()], (sign * by_fold).idxmax(axis=1)
    folds = by_fold.index.tolist()
    choice: Json = {"arm": chosen, "value": means[chosen]}
    choice["candidates"] = {title: means[title] for title in titles if title in means}
    choice["folds"] = folds
    choice["replicates"] = sorted({replicate_text(replicate) for replicate, _ in common.index})
    arms = zip(folds, best.tolist(), strict=True)
    choice["by_fold"] = [{"fold": f, "arm": arm, "value": float(by_fold.loc[f, arm])} for f, arm in arms]
    choice |= {"test_read": len(own) - len(unread), "runs": own["run"].tolist()}
    return choice | {"next": _next(unread.iloc[0], score) if len(unread) else None, "left_out": left_out}


def _next(run: "pd.Series[Any]", score: str) -> Json:
    """A run, and the command that scores its own test part, to be copied into a shell."""
    finished = run["state"] == FINISHED
    unread = finished and run["table"] is None
    weights = f"{run['folder']}/checkpoints/best.ckpt"
    words = ["python", "-m", "histo_lightning.evaluate", f"checkpoint={weights}", "part=test"]
    words += [f"dataset={run['dataset.name']}"]
    for name in ("root", "images_per_slide", "image_size", "seed", "short_side"):
        value = run.get(f"dataset.{name}")
        words += [f"dataset.{name}={value}"] if pd.notna(value) and value != "" else []
    return {
        "run": run["run"],
        "folder": run["folder"] and str(run["folder"]),
        "state": run["state"],
        "value": run[f"val_{score}"] if finished and pd.notna(run[f"val_{score}"]) else None,
        "test_unread": unread,
        "command": shlex.join(words) if unread else None,
    }
