"""``select=``: what is best by validation, and what to score next. Never by test scores."""

import shlex
from collections.abc import Sequence
from typing import Any

import pandas as pd

from histo_lightning.comparison.reading import FINISHED
from histo_lightning.comparison.settings import replicate_text
from histo_lightning.config.checks import nearest
from histo_lightning.errors import UserError
from histo_lightning.evaluation.named_scores import named_score, score_names

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
        near = nearest(select, [BEST, f"val_{score}", *sorted(set(runs))])
        allowed = f"give best, a validation score such as val_{score}, or the name of a run"
        raise UserError(f"select={select}: {allowed}{near}")
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
        dict(zip(("world", "magnification"), place, strict=True)) | _best(cells, wanted, score)
        for place, cells in placed.groupby(["protocol", "magnification"], sort=False)
    ]
    better = "smallest" if named_score(wanted).lower_is_better else "largest"
    return {
        "rule": f"{better} mean validation {wanted.replace('_', ' ')}, ties by name",
        "score": f"val_{wanted}",
        "choices": choices,
        "run": None,
        "warning": OPTIMISTIC if any(len(choice.get("folds") or ()) > 1 for choice in choices) else None,
    }


def _best(runs: pd.DataFrame, wanted: str, score: str) -> Json:
    """The best level and setting of some runs, over the folds and replicates that all of them have."""
    finished = runs[runs["state"] == FINISHED]
    values = finished.groupby(["title", "replicate", "fold"])[f"val_{wanted}"].mean().unstack("title")
    values = values.dropna(axis=1, how="all")
    left_out = [title for title in runs["title"].unique() if title not in values]
    common = values.dropna().sort_index(axis=1)  # ties by name
    if common.empty:
        reason = "no fold and seed was validated for every candidate"
        return {"arm": None, "reason": reason, "left_out": left_out}
    best = "idxmin" if named_score(wanted).lower_is_better else "idxmax"
    chosen = str(getattr(common.mean(), best)())
    own = finished[finished["title"] == chosen].set_index(["replicate", "fold"])
    own = own[own.index.isin(common.index)]
    unread = own[own["table"].isna()]
    by_fold = common.groupby("fold").mean()
    titles = [title for title in runs["title"].unique() if title in common]
    return {
        "arm": chosen,
        "value": float(common[chosen].mean()),
        "candidates": {title: float(common[title].mean()) for title in titles},
        "folds": by_fold.index.tolist(),
        "replicates": sorted({replicate_text(replicate) for replicate, _ in common.index}),
        "by_fold": [
            {"fold": fold, "arm": arm, "value": float(by_fold.loc[fold, arm])}
            for fold, arm in getattr(by_fold, best)(axis=1).items()
        ],
        "test_read": len(own) - len(unread),
        "runs": own["run"].tolist(),
        "next": _next(unread.iloc[0], score) if len(unread) else None,
        "left_out": left_out,
    }


def _next(run: "pd.Series[Any]", score: str) -> Json:
    finished = run["state"] == FINISHED
    unread = finished and run["table"] is None
    return {
        "run": run["run"],
        "folder": run["folder"] and str(run["folder"]),
        "state": run["state"],
        "value": run[f"val_{score}"] if finished and pd.notna(run[f"val_{score}"]) else None,
        "test_unread": unread,
        "command": scoring_command(run) if unread else None,
    }


def scoring_command(run: "pd.Series[Any]") -> str:
    """The command that scores a run's own test part, to be copied into a shell."""
    keys = ("root", "images_per_slide", "image_size", "seed", "short_side")
    given = {key: run.get(f"dataset.{key}") for key in keys}
    return shlex.join([
        "python", "-m", "histo_lightning.evaluate",
        f"checkpoint={run['folder']}/checkpoints/{run['scored_weights'] or 'best'}.ckpt", "part=test",
        f"dataset={run['dataset.name']}",
        *(f"dataset.{key}={value}" for key, value in given.items() if pd.notna(value) and value != ""),
    ])  # fmt: skip
