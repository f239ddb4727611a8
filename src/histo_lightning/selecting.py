"""``select=``: the best cell by validation, and what to score next. Never by test scores."""

import shlex
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from histo_lightning.cell_summaries import mean
from histo_lightning.cells import Cell, Design, Replicate
from histo_lightning.config.checks import nearest
from histo_lightning.errors import UserError
from histo_lightning.pooled_cells import SMALLER_IS_BETTER, run_score, split_score
from histo_lightning.run_reading import Run

Json = dict[str, Any]
Places = dict[tuple[Replicate, int], float]

BEST = "best"
OPTIMISTIC = (
    "A choice over several folds is selected on the same cases that are scored: optimistic. Every case is validated in "
    "one fold and tested in another, so the pooled test score of that choice is too good; the choices fold by fold, each "
    "scored on its own fold, are not."
)


def checked_selection(select: str, score: str, runs: Sequence[Run]) -> str:
    """The score that selects, or the name of the run that was asked for.

    Raises:
        UserError: a selection by test scores, or neither ``best``, a validation score nor a run.
    """
    if select.startswith("test"):
        raise UserError(
            f"select={select}: refused, that would be a selection made on test scores: the best of several test scores "
            "is too good by chance, and nothing is left to say by how much; select=best chooses by validation"
        )
    if select == BEST:
        return score
    names = sorted({run.name for run in runs})
    if select in names:
        return select
    wanted = select.removeprefix("val_")
    try:
        split_score(wanted)
    except UserError:
        allowed = [BEST, f"val_{score}", *names]
        raise UserError(
            f"select={select}: give best, a validation score such as val_{score}, or the name of a run"
            f"{nearest(select, allowed)}"
        ) from None
    return wanted


def select_cells(design: Design, select: str, score: str, runs: Sequence[Run]) -> Json:
    """What is best by validation, in each world and magnification; or one run, where its name was given.

    Raises:
        UserError: as ``checked_selection``.
    """
    wanted = checked_selection(select, score, runs)
    if any(run.name == wanted for run in runs):
        run = next(run for run in runs if run.name == wanted)
        return {"rule": f"the run {wanted}", "choices": [], "run": _about(run, score), "warning": None}
    choices = []
    groups: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in design.cells:
        groups[cell.world, cell.magnification].append(cell)
    for (world, magnification), cells in groups.items():
        choices.append({"world": world, "magnification": magnification} | _best(cells, wanted))
    better = "smallest" if _sign(wanted) < 0 else "largest"
    rule = f"{better} mean validation {wanted.replace('_', ' ')}, ties by name"
    several = any(len(choice.get("folds") or []) > 1 for choice in choices)
    return {
        "rule": rule,
        "score": f"val_{wanted}",
        "choices": choices,
        "run": None,
        "warning": OPTIMISTIC if several else None,
    }


def _sign(score: str) -> int:
    return -1 if split_score(score)[1] in SMALLER_IS_BETTER else 1


def _validation(cell: Cell, score: str) -> Places:
    found: Places = {}
    for replicate, folds in cell.runs.items():
        for fold, runs in folds.items():
            value = mean([run_score(run, "val", score) for run in runs if run.finished])
            if value is not None:
                found[replicate, fold] = value
    return found


def _best(cells: Sequence[Cell], score: str) -> Json:
    """The best of some cells, over the folds and replicates that all of them have."""
    values = {cell: places for cell in cells if (places := _validation(cell, score))}
    common = set.intersection(*(set(places) for places in values.values())) if values else set()
    left_out = [str(cell.arm) for cell in cells if cell not in values]
    if not common:
        return {
            "arm": None,
            "reason": "no fold and seed was validated for every candidate",
            "left_out": left_out,
        }

    def value_at(cell: Cell, places: set[tuple[Replicate, int]]) -> float:
        return sum(values[cell][place] for place in places) / len(places)

    def best_at(places: set[tuple[Replicate, int]]) -> Cell:
        return min(values, key=lambda cell: (-_sign(score) * value_at(cell, places), str(cell.arm)))

    chosen = best_at(common)
    folds = sorted({fold for _, fold in common})
    runs = [run for replicate, fold in sorted(common) for run in chosen.runs[replicate][fold] if run.finished]
    unread = next((run for run in runs if run.metrics.get("test") is None), None)
    by_fold = []
    for fold in folds:
        here = {place for place in common if place[1] == fold}
        by_fold.append({"fold": fold, "arm": str(best_at(here).arm), "value": value_at(best_at(here), here)})
    return {
        "arm": str(chosen.arm),
        "value": value_at(chosen, common),
        "candidates": {str(cell.arm): value_at(cell, common) for cell in values},
        "folds": folds,
        "replicates": sorted({str(replicate) for replicate, _ in common}),
        "by_fold": by_fold,
        "test_read": sum(run.metrics.get("test") is not None for run in runs),
        "runs": [run.name for run in runs],
        "next": _about(unread, score) if unread else None,
        "left_out": left_out,
    }


def _about(run: Run, score: str) -> Json:
    unread = run.finished and run.metrics.get("test") is None
    return {
        "run": run.name,
        "folder": None if run.folder is None else str(run.folder),
        "state": run.state,
        "value": run_score(run, "val", score) if run.finished else None,
        "test_unread": unread,
        "command": scoring_command(run) if unread else None,
    }


def scoring_command(run: Run) -> str:
    """The command that scores a run's own test part, to be copied into a shell."""
    weights = str(run.config.get("scored_weights") or "best")
    words = [
        "python",
        "-m",
        "histo_lightning.evaluate",
        f"checkpoint={run.folder}/checkpoints/{weights}.ckpt",
        "part=test",
        f"dataset={run.config.get('dataset.name')}",
    ]
    if run.config.get("dataset.root"):
        words.append(f"dataset.root={run.config['dataset.root']}")
    own = ("dataset.images_per_slide", "dataset.image_size", "dataset.seed", "dataset.short_side")
    words += [f"{key}={run.config[key]}" for key in own if run.config.get(key) is not None]
    return shlex.join(words)
