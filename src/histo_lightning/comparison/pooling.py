"""Out-of-fold predictions: pooled where folds belong together, refused with the reason where not."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from histo_lightning.comparison.names import label_kind
from histo_lightning.comparison.reading import FINISHED, SHOWN_SCORES
from histo_lightning.comparison.settings import CELL, K_FOLDS, replicate_text
from histo_lightning.errors import UserError
from histo_lightning.evaluation import pool, score_pooled
from histo_lightning.evaluation.differences import Replicate
from histo_lightning.evaluation.levels import UNGROUPED, is_grouped, units
from histo_lightning.evaluation.registry import named_score
from histo_lightning.evaluation.summary import score_units
from histo_lightning.report.words import level_scores

Json = dict[str, Any]

KEY = [*CELL, "replicate"]


def pool_runs(placed: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Pool every replicate of every cell that has one finished, scored run of each fold of one partition.

    Returns:
        A row a replicate, indexed by ``KEY``: ``pooled``, the out-of-fold predictions, empty where there are none; ``runs,
        fingerprint, partition`` of the first pooling; ``problem``, why nothing is pooled. A replicate with several runs
        of one fold has as many poolings; the first holds the newest runs. And notes on runs of one fold.
    """
    rows, notes = [], []
    for key, runs in placed.groupby(KEY, sort=False):
        row: Json = dict(zip(KEY, key, strict=True)) | {"title": runs["title"].iloc[0], "pooled": []}
        where = f"{row['title']} {row['magnification']} {replicate_text(row['replicate'])}"
        scored = runs[runs["table"].notna()]
        try:
            _refuse_incomplete(runs, scored)
            chosen = []
            for fold, own in scored.groupby("fold"):
                distinct, remarks = _distinct(own)
                chosen.append(distinct.index)
                notes += [f"{where}: fold {fold} {text}" for text in remarks]
            poolings = [
                runs.loc[[index[min(n, len(index) - 1)] for index in chosen]]
                for n in range(max(map(len, chosen)))
            ]
            row["pooled"] = [_pool(members) for members in poolings]
            row |= {"runs": poolings[0]["run"].tolist(), "problem": None}
            row["fingerprint"] = poolings[0]["status"].iloc[0].get("data_fingerprint")
            row["partition"] = poolings[0]["split"].iloc[0]["partition_hash"]
        except UserError as error:
            row["problem"] = f"{where}: {error}"
        rows.append(row)
    columns = [*KEY, "title", "pooled", "runs", "fingerprint", "partition", "problem"]
    return pd.DataFrame(rows, columns=columns, dtype=object).set_index(KEY), notes


def _distinct(runs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Runs of one place with different settings of the environment, the newest of each; and what was left out."""
    pairs = zip(runs["status"], runs["folder"], strict=True)
    identity = [str(status.get("config_hash") or folder) for status, folder in pairs]
    again = pd.Series(identity, runs.index).duplicated()
    notes = [
        f"has two runs with the same settings: the newest is kept, {folder} is left out"
        for folder in runs.loc[again, "folder"]
    ]
    kept = runs[~again]
    if len(kept) > 1:
        notes.append(
            f"was run {len(kept)} times on different machines or trainers ({', '.join(map(str, kept['folder']))}): their "
            "scores are averaged in the table, and the newest is compared"
        )
    return kept, notes


def _refuse_incomplete(runs: pd.DataFrame, scored: pd.DataFrame) -> None:
    """Raise with every fold that is missing, and why, or with what the split says against pooling."""
    kind = str(runs["split.name"].iloc[0])
    if kind == "official":
        raise UserError("the official folds overlap, so they are never pooled; the table has their mean")
    wanted = range(int(runs["split.folds"].iloc[0])) if kind in K_FOLDS else sorted(set(runs["fold"]))
    missing: dict[str, list[str]] = {}
    for fold in wanted:
        if fold not in set(scored["fold"]):
            missing.setdefault(_why(runs[runs["fold"] == fold]), []).append(str(fold))
    if missing:
        names = {why: (", ".join(folds), "s" * bool(folds[1:])) for why, folds in missing.items()}
        texts = [
            f"fold{s} {folds} {'are' if s else 'is'} missing ({why})" for why, (folds, s) in names.items()
        ]
        raise UserError("; ".join(texts))
    values: dict[str, Iterable[Any]] = {
        "come from {} different partitions of the cases": (
            split.get("partition_hash") for split in scored["split"]
        ),
        "come from {} different labels": map(label_kind, scored["label"]),
        "saw {} sets of different images (data_fingerprint)": (
            s.get("data_fingerprint") for s in scored["status"]
        ),
    }
    for text, found in values.items():
        if (count := len(set(found))) > 1:
            raise UserError(f"its folds {text.format(count)}, so they do not belong together")


def _why(runs: pd.DataFrame) -> str:
    if runs.empty:
        return "no such run"
    if FINISHED in set(runs["state"]):
        return "its test part was left unread, test=false"
    return f"{runs['state'].iloc[0]}: {runs['error'].iloc[0]}".removesuffix(": ")


def _pool(runs: pd.DataFrame) -> Replicate:
    table, fold = pool(runs["table"].tolist())
    first = runs.iloc[0]
    everything = {image for part in first["split"]["parts"].values() for image in part}
    if str(first["split.name"]) in K_FOLDS and set(table.image.tolist()) != everything:
        raise UserError(
            f"its test parts hold {len(table)} of the {len(everything)} images of the split, so they do not cover it"
        )
    cases = set(zip(table.case.tolist(), fold.tolist(), strict=True))
    if is_grouped(table) and len({case for case, _ in cases}) < len(cases):
        label = f" ({label_kind(first['label'])})" if first["label"] else ""
        raise UserError(
            f"cases are in the test parts of several folds{label}, so its folds are never pooled; the table has the "
            "mean over its runs"
        )
    return Replicate(table, fold)


def score_out_of_fold(
    replicate: Replicate, score: str, draws: int = 2000
) -> tuple[Json, dict[str, float | None]]:
    """The chosen score as ``evaluation.score_pooled`` has it, with its 95 % interval; and all others as plain values.

    Intervals of all scores would take a second a pooling; only the chosen one is made here, from the same draws.

    Returns:
        The entry of the chosen score (``value, low, high, method, ...``, ``pooled`` and ``warning`` for an AUROC), and
        ``<level>_<score>`` to value, null where undefined.
    """
    table, fold = replicate
    scored = {"test": score_pooled([table.rows(fold == k) for k in np.unique(fold)], intervals=False)}

    def entry_of(name: str) -> Json:
        level, _, own = name.partition("_")
        return dict(level_scores(scored, "test", level).get(own) or {})

    values = {name: entry_of(name).get("value") for name in SHOWN_SCORES}
    entry, wanted = entry_of(score), named_score(score)
    if entry["value"] is None or not is_grouped(table):
        return entry | {"reason": entry["reason"] if is_grouped(table) else UNGROUPED}, values
    here = units(table, wanted.level, fold=fold)
    alone = score_units(here, draws=draws, names=[wanted.score])[wanted.score]
    interval = {key: value for key, value in alone.items() if key != "value"}
    return {key: value for key, value in entry.items() if key != "reason"} | interval, values
