"""The cells of a comparison (level, setting, magnification): pooled out-of-fold predictions, scores, costs, curves."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pandas as pd

from histo_lightning.comparison.reading import COSTS, FINISHED, SHOWN_SCORES
from histo_lightning.comparison.settings import CELL, K_FOLDS, label_kind, replicate_text
from histo_lightning.data.splits.official import Official
from histo_lightning.errors import UserError
from histo_lightning.evaluation import pool
from histo_lightning.evaluation.differences import Replicate
from histo_lightning.evaluation.levels import LEVELS, UNGROUPED, Units, is_grouped, units
from histo_lightning.evaluation.registry import named_score
from histo_lightning.evaluation.scores import SMALLEST_P, confusion
from histo_lightning.evaluation.summary import score_units
from histo_lightning.evaluation.table import Json, malignant_share, softmax
from histo_lightning.report.figures.curves import GRID, roc_points

KEY = [*CELL, "replicate"]
NAMES = {"protocol": "world", "title": "arm", "level": "level", "setting": "stratum",
         "magnification": "magnification"}  # fmt: skip
"""Columns of a described run: what the record calls them."""


def pool_runs(described: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """A row a replicate of a cell, pooled where it has a finished, scored run of each fold of one partition; and notes.

    ``pooled``: the out-of-fold predictions, several where a fold was run several times, the newest first;
    ``runs, fingerprint, partition`` are those of the first; ``problem``: why nothing is pooled.
    """
    rows, notes = [], []
    for key, runs in described.groupby(KEY, sort=False):
        title = runs["title"].iloc[0]
        row: Json = dict(zip(KEY, key, strict=True)) | {"title": title, "pooled": []}
        where = f"{title} {runs['magnification'].iloc[0]} {replicate_text(row['replicate'])}"
        try:
            scored = runs[runs["table"].notna()]
            _refuse_incomplete(runs, scored)
            folds = []
            for fold, own in scored.groupby("fold"):
                # Runs with different settings of the environment, the newest of each.
                again = own["status"].str.get("config_hash").fillna(own["folder"].map(str)).duplicated()
                text = f"{where}: fold {fold} has two runs with the same settings: the newest is kept"
                notes += [f"{text}, {folder} is left out" for folder in own.loc[again, "folder"]]
                folds.append(own[~again])
                if (times := len(folds[-1])) > 1:
                    folders = ", ".join(map(str, folds[-1]["folder"]))
                    notes.append(
                        f"{where}: fold {fold} was run {times} times on different machines or trainers ({folders}): "
                        "their scores are averaged in the table, and the newest is compared"
                    )
            count = max(map(len, folds))
            poolings = [pd.DataFrame([own.iloc[min(n, len(own) - 1)] for own in folds]) for n in range(count)]
            newest = poolings[0]
            row |= {
                "pooled": [_pool(members) for members in poolings],
                "runs": newest["run"].tolist(),
                "fingerprint": newest["status"].iloc[0].get("data_fingerprint"),
                "partition": newest["split"].iloc[0]["partition_hash"],
                "problem": None,
            }
        except UserError as error:
            row["problem"] = f"{where}: {error}"
        rows.append(row)
    columns = [*KEY, "title", "pooled", "runs", "fingerprint", "partition", "problem"]
    return pd.DataFrame(rows, columns=columns, dtype=object), notes


def _refuse_incomplete(runs: pd.DataFrame, scored: pd.DataFrame) -> None:
    """Raise with every fold that is missing, and why, or with what the split says against pooling."""
    kind = str(runs["split.name"].iloc[0])
    if kind == Official.name:
        raise UserError("the official folds overlap, so they are never pooled; the table has their mean")
    folds = range(int(runs["split.folds"].iloc[0])) if kind in K_FOLDS else sorted(set(runs["fold"]))
    missing: dict[str, list[str]] = {}
    for fold in sorted(set(folds) - set(scored["fold"])):
        own = runs.loc[runs["fold"] == fold, ["state", "error"]].to_numpy().tolist()
        why = ": ".join(filter(None, own[0])) if own else "no such run"
        if FINISHED in [state for state, _ in own]:
            why = "its test part was left unread, test=false"
        missing.setdefault(why, []).append(str(fold))
    if missing:
        texts = [
            f"{'folds' if own[1:] else 'fold'} {', '.join(own)} {'are' if own[1:] else 'is'} missing ({why})"
            for why, own in missing.items()
        ]
        raise UserError("; ".join(texts))
    values = {
        "come from {} different partitions of the cases": scored["split"].str.get("partition_hash"),
        "come from {} different labels": scored["label"].map(label_kind),
        "saw {} sets of different images (data_fingerprint)": scored["status"].str.get("data_fingerprint"),
    }
    for text, own in values.items():
        if (count := own.nunique(dropna=False)) > 1:
            raise UserError(f"its folds {text.format(count)}, so they do not belong together")


def _pool(runs: pd.DataFrame) -> Replicate:
    table, fold = pool(runs["table"].tolist())
    first = runs.iloc[0]
    images = {image for part in first["split"]["parts"].values() for image in part}
    if str(first["split.name"]) in K_FOLDS and set(table.image.tolist()) != images:
        held = f"{len(table)} of the {len(images)} images of the split"
        raise UserError(f"its test parts hold {held}, so they do not cover it")
    if is_grouped(table) and pd.Series(fold).groupby(table.case).nunique().max() > 1:
        label = f" ({label_kind(first['label'])})" if first["label"] else ""
        raise UserError(
            f"cases are in the test parts of several folds{label}, so its folds are never pooled; the table has the "
            "mean over its runs"
        )
    return Replicate(table, fold)


def score_out_of_fold(replicate: Replicate, score: str) -> tuple[Json, dict[str, float | None]]:
    """The chosen score as ``evaluation.score_pooled`` has it, with its 95 % interval, and the values of ``SHOWN_SCORES``."""
    table, fold = replicate
    (wanted_level, wanted), grouped = named_score(score), is_grouped(table)
    entry: Json = {"value": None, "reason": UNGROUPED}
    values: dict[str, float | None] = {}
    for level in LEVELS if grouped else LEVELS[:1]:
        own = units(table, level, fold=fold)
        names = [name.removeprefix(f"{level}_") for name in SHOWN_SCORES if name.startswith(f"{level}_")]
        values |= {f"{level}_{name}": one["value"] for name, one in score_units(own, names=names).items()}
        if level == wanted_level:
            entry = score_units(own, draws=2000, names=[wanted.name], pooled=True)[wanted.name]
    return entry, {name: values.get(name) for name in SHOWN_SCORES}


def mean(values: Iterable[Any], *, of_all: bool = False) -> float | None:
    """Mean of the values that are there, None without one; ``of_all``: None unless every value is there."""
    each = [value for value in values if of_all or pd.notna(value)]
    return fmean(map(float, each)) if each and all(map(pd.notna, each)) else None


def summarise(runs: pd.DataFrame, pools: pd.DataFrame, score: str) -> Json:
    """Everything that the tables and pictures say about a cell, from its rows.

    ``low, high`` are means over the replicates: a little too wide, since the mean of several trainings varies less.
    """
    replicates = []
    for _, row in pools.iterrows():
        folds = int(runs.loc[runs["replicate"] == row["replicate"], "fold"].nunique())
        about = {"replicate": replicate_text(row["replicate"]), "folds": folds, "problem": row["problem"]}
        # Means over the poolings of a replicate.
        poolings = [score_out_of_fold(pooled, score) for pooled in row["pooled"]]
        first = poolings[0][0] if poolings else {}
        about |= {key: first.get(key) for key in ("method", "warning", "reason", "cases")}
        for key in ("value", "low", "high", "pooled"):
            about[key] = mean(entry.get(key) for entry, _ in poolings)
        scores = {name: mean(values[name] for _, values in poolings) for name in SHOWN_SCORES if poolings}
        replicates.append(about | {"scores": scores})
    pooled = [one for one in replicates if one["value"] is not None]
    finished = runs[runs["state"] == FINISHED]
    own = finished[f"test_{score}"]
    scored = finished[own.notna()]
    by_seed = [one["value"] for one in pooled]
    by_fold = own.groupby(finished["fold"]).mean().dropna()
    known_folds = runs["split.folds"].iloc[0]
    return {key: runs[name].iloc[0] for name, key in NAMES.items()} | {
        "label": next((label for label in runs["label"] if label), ""),
        "found": len(runs),
        "finished": len(finished),
        "test_read": sum(int(status.get("test_read") or 0) for status in runs["status"]),
        "value": mean(by_seed),
        "low": mean((one["low"] for one in pooled), of_all=True),
        "high": mean((one["high"] for one in pooled), of_all=True),
        "method": next((one["method"] for one in pooled), None),
        "reason": next((one["reason"] for one in replicates if one.get("reason")), None),
        "pooled_pairs": mean(one["pooled"] for one in pooled),
        "ensemble": _ensemble(pools[pools["problem"].isna()], score),
        "seed_sd": stdev(by_seed) if len(by_seed) > 1 else None,
        "fold_sd": stdev(by_fold) if len(by_fold) > 1 else None,
        "replicates": replicates,
        "mean_of_runs": mean(own),
        "runs_low": mean(scored[f"test_{score}_low"], of_all=True),
        "runs_high": mean(scored[f"test_{score}_high"], of_all=True),
        "folds": int(known_folds) if pd.notna(known_folds) else None,
        "scored_runs": len(scored),
        "val": mean(finished[f"val_{score}"]),
        "scores": {key: mean(one["scores"][key] for one in pooled) for key in sorted(SHOWN_SCORES) if pooled},
        "train_loss": mean(finished["train_loss"].str[-1]),
        "train_accuracy": mean(finished["train_image_accuracy"]),
        **{name: mean(finished[name]) for name in COSTS},
        "problems": [problem for problem in pools["problem"] if problem],
    }


def _ensemble(pools: pd.DataFrame, score: str) -> Json | None:
    """The score of the networks of all seeds together: their mean probability for each image, none of which had seen its case.

    None of a single training, and where repeats of the split give the networks of an image other training cases.
    """
    replicates = [pooled[0] for pooled in pools["pooled"]]
    if len(replicates) < 2 or pools["partition"].nunique() > 1:
        return None
    order = [np.argsort(one.table.image) for one in replicates]
    table, fold = replicates[0].table.rows(order[0]), replicates[0].fold[order[0]]
    each = [softmax(one.table.logits[rows]) for one, rows in zip(replicates, order, strict=True)]
    p = np.mean(each, axis=0)
    together = replace(table, logits=np.log(np.maximum(p, SMALLEST_P)), p_malignant=malignant_share(p))
    entry, _ = score_out_of_fold(Replicate(replace(together, predicted=p.argmax(axis=1)), fold), score)
    shown = {key: entry.get(key) for key in ("value", "low", "high", "method")}
    return {"trainings": len(replicates)} | shown


def decisions_of(pools: pd.DataFrame) -> list[Json]:
    """What the networks of each pooled cell decided on test, by image and (where known) by case: see ``mean_roc``."""
    records = []
    for _, cell in pools[pools["problem"].isna()].groupby(CELL, sort=False):
        replicates = [pooled[0] for pooled in cell["pooled"]]
        record = {key: cell[name].iloc[0] for name, key in NAMES.items()} | {"trainings": len(replicates)}
        for level in ("image", "case") if all(is_grouped(one.table) for one in replicates) else ("image",):
            each = [units(one.table, level, fold=one.fold) for one in replicates]
            counts = np.sum([confusion(own.truth, own.decision, 2) for own in each], axis=0)
            folds = [own.chosen(own.fold == k) for own in each for k in np.unique(own.fold)]
            record[level] = {"confusion": counts.tolist(), "roc": mean_roc(folds)}
        records.append(record)
    return records


def mean_roc(folds: Sequence[Units]) -> Json | None:
    """The folds' ROC ``curves`` (false, true positive rates) and their vertical average at ``GRID``, None without one.

    Fawcett 2006, section 7. Folds hold different networks, so probabilities are compared within a fold only. Each fold weighs
    as many pairs of a benign and a malignant unit as it has: the average's area is the AUROC of ``score_pooled``.
    """
    pairs = [int(fold.truth.sum()) * (len(fold) - int(fold.truth.sum())) for fold in folds]
    if not any(pairs):
        return None
    curves = [roc_points(fold.truth, fold.p) for fold, count in zip(folds, pairs, strict=True) if count]
    heights = [np.interp(GRID, *curve) for curve in curves]
    average = np.average(heights, axis=0, weights=[count for count in pairs if count])
    return {"curves": [[false.tolist(), true.tolist()] for false, true in curves], "mean": average.tolist()}
