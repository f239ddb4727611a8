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

Json = dict[str, Any]

BEST = "best"
OPTIMISTIC = (
    "A choice over several folds is selected on the same cases that are scored: optimistic. Every case is validated in "
    "one fold and tested in another, so the pooled test score of that choice is too good; the choices fold by fold, each "
    "scored on its own fold, are not."
)


def checked_selection(select: str, score: str, runs: Sequence[str]) -> str:
    """The score that selects, or the name of the run that was asked for, one of ``runs``.

    Raises:
        UserError: a selection by test scores, or neither ``best``, a validation score nor a run.
    """
    if select.startswith("test"):
        raise UserError(
            f"select={select}: refused, that would be a selection made on test scores: the best of several test scores "
            "is too good by chance, and nothing is left to say by how much; select=best chooses by validation"
        )
    wanted = score if select == BEST else select if select in runs else select.removeprefix("val_")
    if wanted not in (*score_names(), *runs):
        allowed = [BEST, f"val_{score}", *sorted(set(runs))]
        raise UserError(
            f"select={select}: give best, a validation score such as val_{score}, or the name of a run"
            f"{nearest(select, allowed)}"
        )
    return wanted


def select_cells(placed: pd.DataFrame, runs: pd.DataFrame, select: str, score: str) -> Json:
    """What is best by validation, in each protocol and magnification; or one run, where its name was given.

    Raises:
        UserError: as ``checked_selection``.
    """
    wanted = checked_selection(select, score, runs["run"].tolist())
    for _, run in runs[runs["run"] == wanted].iterrows():
        return {"rule": f"the run {wanted}", "choices": [], "run": _next(run, score), "warning": None}
    choices = [
        {"world": cells["protocol"].iloc[0], "magnification": cells["magnification"].iloc[0]}
        | _best(cells, wanted, score)
        for _, cells in placed.groupby(["protocol", "magnification"], sort=False)
    ]
    better = "smallest" if named_score(wanted).lower_is_better else "largest"
    return {
        "rule": f"{better} mean validation {wanted.replace('_', ' ')}, ties by name",
        "score": f"val_{wanted}",
        "choices": choices,
        "run": None,
        "warning": OPTIMISTIC if any(len(choice.get("folds", ())) > 1 for choice in choices) else None,
    }


def _best(runs: pd.DataFrame, wanted: str, score: str) -> Json:
    """The best level and setting of some runs, over the folds and replicates that all of them have."""
    finished = runs[runs["state"] == FINISHED]
    values = finished.groupby(["title", "replicate", "fold"])[f"val_{wanted}"].mean().unstack("title")
    titles = [title for title in runs["title"].unique() if title in values and values[title].notna().any()]
    left_out = [title for title in runs["title"].unique() if title not in titles]
    common = values[titles].dropna()
    if common.empty:
        reason = "no fold and seed was validated for every candidate"
        return {"arm": None, "reason": reason, "left_out": left_out}
    sign = 1 if named_score(wanted).lower_is_better else -1
    ranked = common[sorted(titles)]  # ties by name

    def best(means: "pd.Series[float]") -> str:
        return str((sign * means).idxmin())

    chosen = best(ranked.mean())
    places = set(common.index)
    own = finished[finished["title"] == chosen]
    own = own[[place in places for place in zip(own["replicate"], own["fold"], strict=True)]]
    unread = [run for _, run in own.iterrows() if run["table"] is None]
    by_fold = {int(str(fold)): means for fold, means in ranked.groupby("fold").mean().iterrows()}
    return {
        "arm": chosen,
        "value": float(common[chosen].mean()),
        "candidates": {title: float(common[title].mean()) for title in titles},
        "folds": list(by_fold),
        "replicates": sorted({replicate_text(replicate) for replicate, _ in places}),
        "by_fold": [
            {"fold": fold, "arm": best(means), "value": float(means[best(means)])}
            for fold, means in by_fold.items()
        ],
        "test_read": len(own) - len(unread),
        "runs": own["run"].tolist(),
        "next": _next(unread[0], score) if unread else None,
        "left_out": left_out,
    }


def _next(run: "pd.Series[Any]", score: str) -> Json:
    unread = run["state"] == FINISHED and run["table"] is None
    value = run[f"val_{score}"] if run["state"] == FINISHED else None
    return {
        "run": run["run"],
        "folder": run["folder"] and str(run["folder"]),
        "state": run["state"],
        "value": value if pd.notna(value) else None,
        "test_unread": unread,
        "command": scoring_command(run) if unread else None,
    }


def scoring_command(run: "pd.Series[Any]") -> str:
    """The command that scores a run's own test part, to be copied into a shell."""
    words = ["python", "-m", "histo_lightning.evaluate"]
    words += [f"checkpoint={run['folder']}/checkpoints/{run['scored_weights'] or 'best'}.ckpt", "part=test"]
    words += [f"dataset={run['dataset.name']}"]
    words += [f"dataset.root={run['dataset.root']}"] if run["dataset.root"] else []
    keys = ("dataset.images_per_slide", "dataset.image_size", "dataset.seed", "dataset.short_side")
    return shlex.join([*words, *(f"{key}={run[key]}" for key in keys if pd.notna(run.get(key)))])
