"""A cell's out-of-fold predictions: pooled where its folds belong together, refused with the reason where not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from histo_lightning.cells import K_FOLDS, Cell, Replicate, label_kind
from histo_lightning.errors import UserError
from histo_lightning.evaluation import pool, score_pooled
from histo_lightning.evaluation.levels import LEVELS, UNGROUPED, is_grouped, units
from histo_lightning.evaluation.summary import score_units
from histo_lightning.evaluation.table import Integers, Table
from histo_lightning.report.words import level_scores
from histo_lightning.run_reading import Run

Json = dict[str, Any]

SCORES = (
    "auroc",
    "balanced_accuracy",
    "accuracy",
    "sensitivity",
    "specificity",
    "f1",
    "auprc",
    "brier",
    "log_loss",
)
SLIDE_SCORE = "patient_recognition_rate"
SMALLER_IS_BETTER = ("brier", "log_loss")


@dataclass(frozen=True, slots=True, eq=False)
class OutOfFold:
    """The test parts of all folds of one replicate: rows of every fold, an image once, and the fold of each row."""

    table: Table
    fold: Integers
    runs: Sequence[Run]

    @property
    def tables(self) -> list[Table]:
        return [self.table.rows(self.fold == k) for k in np.unique(self.fold)]


@dataclass(frozen=True, slots=True, eq=False)
class PooledCell:
    """A cell with what could be pooled, by replicate, and why the others could not.

    A replicate with several runs of one fold has as many poolings; the first holds the newest runs.
    """

    cell: Cell
    pooled: Mapping[Replicate, Sequence[OutOfFold]]
    problems: Mapping[Replicate, str]
    notes: Sequence[str]


def split_score(score: str) -> tuple[str, str]:
    """``case_auroc`` as level and score.

    Raises:
        UserError: neither.
    """
    level, _, name = score.partition("_")
    allowed = (*SCORES, SLIDE_SCORE) if level == "slide" else SCORES
    if level not in LEVELS or name not in allowed:
        raise UserError(
            f"score={score}: give <level>_<score>, level image, slide or case, score {', '.join(SCORES)}; "
            f"or slide_{SLIDE_SCORE}"
        )
    return level, name


def pool_cell(cell: Cell) -> PooledCell:
    """Pool every replicate of a cell that has one finished, scored run of each fold of one partition."""
    pooled: dict[Replicate, list[OutOfFold]] = {}
    problems: dict[Replicate, str] = {}
    notes: list[str] = []
    for replicate, folds in cell.runs.items():
        where = f"{cell.arm} {cell.magnification} {replicate}"
        try:
            _refuse_incomplete(folds)
            chosen = {}
            for fold, runs in folds.items():
                chosen[fold], told = _distinct([run for run in runs if run.table is not None])
                notes += [f"{where}: fold {fold} {text}" for text in told]
            depth = max(len(runs) for runs in chosen.values())
            members = [
                [runs[min(number, len(runs) - 1)] for runs in chosen.values()] for number in range(depth)
            ]
            pooled[replicate] = [_pool(runs) for runs in members]
        except UserError as error:
            problems[replicate] = f"{where}: {error}"
    return PooledCell(cell, pooled, problems, notes)


def _distinct(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Runs of one place with different settings of the environment, the newest of each; and what was left out."""
    kept: dict[str, Run] = {}
    notes = []
    for run in runs:
        identity = str(run.status.get("config_hash") or run.folder)
        if kept.setdefault(identity, run) is not run:
            notes.append(f"stands twice with the same settings: the newest is kept, {run.folder} is left out")
    if len(kept) > 1:
        names = ", ".join(str(run.folder) for run in kept.values())
        notes.append(
            f"was run {len(kept)} times on different machines or trainers ({names}): their scores are averaged in the "
            "table, and the newest stands in the comparison"
        )
    return list(kept.values()), notes


def _refuse_incomplete(folds: Mapping[int, Sequence[Run]]) -> None:
    """Raise with every fold that is missing, and why, or with what the split says against pooling."""
    known = [run for runs in folds.values() for run in runs if run.split]
    config = next(run.config for runs in folds.values() for run in runs)
    kind = str(config["split.name"])
    if kind == "official":
        raise UserError(
            "the official folds overlap, so they are never pooled; their mean stands in the table"
        )
    wanted = range(int(config["split.folds"])) if kind in K_FOLDS else sorted(folds)
    missing: dict[str, list[int]] = {}
    for fold in wanted:
        runs = folds.get(fold) or []
        if not any(run.finished and run.table is not None for run in runs):
            missing.setdefault(_why(runs), []).append(fold)
    if missing:
        raise UserError("; ".join(f"{_folds(absent)} missing ({why})" for why, absent in missing.items()))
    scored = [run for run in known if run.table is not None]
    for key, what in (("partition_hash", "partitions of the cases"), ("label", "labels")):
        if key == "label":
            found = {label_kind(run.label) for run in scored}
        else:
            found = {str(run.split.get(key)) for run in scored}
        if len(found) > 1:
            raise UserError(
                f"its folds come from {len(found)} different {what}, so they do not belong together"
            )
    if len({run.status.get("data_fingerprint") for run in scored}) > 1:
        raise UserError("its folds saw different images (data_fingerprint), so they do not belong together")


def _folds(absent: Sequence[int]) -> str:
    names = ", ".join(str(fold) for fold in absent)
    return f"fold {names} is" if len(absent) == 1 else f"folds {names} are"


def _why(runs: Sequence[Run]) -> str:
    if not runs:
        return "no such run"
    if any(run.finished for run in runs):
        return "its test part was left unread, test=false"
    return f"{runs[0].state}: {runs[0].error}" if runs[0].error else runs[0].state


def _pool(runs: Sequence[Run]) -> OutOfFold:
    table, fold = pool([run.table for run in runs if run.table is not None])
    everything = {image for part in runs[0].split["parts"].values() for image in part}
    if str(runs[0].config["split.name"]) in K_FOLDS and set(table.image.tolist()) != everything:
        raise UserError(
            f"its test parts hold {len(table)} of the {len(everything)} images of the split, so they do not cover it"
        )
    cases = np.unique(np.stack([table.case, fold.astype(np.str_)]), axis=1)[0]
    if is_grouped(table) and len(np.unique(cases)) < len(cases):
        label = f" ({label_kind(runs[0].label)})" if runs[0].label else ""
        raise UserError(
            f"cases stand in the test parts of several folds{label}, so its folds are never pooled; the mean over its "
            "runs stands in the table"
        )
    return OutOfFold(table, fold, runs)


def score_out_of_fold(
    found: OutOfFold, score: str, draws: int = 2000
) -> tuple[Json, dict[str, float | None]]:
    """The chosen score as ``evaluation.score_pooled`` has it, with its 95 % interval; and all others as plain values.

    Intervals of all scores would take a second a pooling; only the chosen one is made here, from the same draws.

    Returns:
        The entry of the chosen score (``value, low, high, method, ...``, ``pooled`` and ``warning`` for an AUROC), and
        ``<level>_<score>`` to value, null where undefined.
    """
    scored = {"test": score_pooled(found.tables, intervals=False)}
    values: dict[str, float | None] = {}
    for at in LEVELS:
        entries = level_scores(scored, "test", at)
        names = (*SCORES, SLIDE_SCORE) if at == "slide" else SCORES
        values |= {f"{at}_{name}": (entries.get(name) or {}).get("value") for name in names}
    level, name = split_score(score)
    entry: Json = dict(level_scores(scored, "test", level)[name])
    if entry["value"] is None or not is_grouped(found.table):
        return entry | {"reason": entry["reason"] if is_grouped(found.table) else UNGROUPED}, values
    here = units(found.table, level, fold=found.fold)
    scored_alone = score_units(here, draws=draws, names=[name])[name]
    return {key: value for key, value in entry.items() if key != "reason"} | scored_alone, values


def run_score(run: Run, part: str, score: str) -> float | None:
    """A score of one run from its ``metrics.json``; null where it was not scored."""
    level, name = split_score(score)
    value = (level_scores(run.metrics, part, level).get(name) or {}).get("value")
    return None if value is None else float(value)
