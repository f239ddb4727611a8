"""Tables of a comparison as rows of plain text: the page and ``results.md`` show the same ones."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from histo_lightning.report.results_words import (
    POOLED,
    RUNS,
    basis_of,
    basis_value,
    between,
    p_text,
    quantity,
    score_title,
    signed,
    size,
)
from histo_lightning.report.words import fixed

Json = Mapping[str, Any]
NOTHING = "\N{EN DASH}"
OTHER_SCORES = (
    "case_auroc",
    "case_balanced_accuracy",
    "case_sensitivity",
    "case_specificity",
    "slide_patient_recognition_rate",
    "image_auroc",
    "image_balanced_accuracy",
    "image_accuracy",
    "image_log_loss",
)


class TextTable(NamedTuple):
    """A table of plain text; the first column is a heading. ``notes`` stand below it."""

    head: list[str]
    rows: list[list[str]]
    notes: list[str]


def number(value: float | None, decimals: int = 3) -> str:
    return NOTHING if value is None else fixed(value, decimals)


def magnifications_of(cells: Sequence[Json]) -> list[str]:
    names = {str(cell["magnification"]) for cell in cells}
    return sorted(names, key=lambda name: (len(name), name))


def arms_of(cells: Sequence[Json]) -> list[str]:
    return list(dict.fromkeys(str(cell["arm"]) for cell in cells))


def main_table(cells: Sequence[Json], score: str) -> TextTable:
    """Arm x magnification: the score with its interval, and how many seeds and runs it rests on."""
    basis = basis_of(cells)
    names = magnifications_of(cells)
    at = {(cell["arm"], cell["magnification"]): cell for cell in cells}
    notes: list[str] = []
    counts = {_seeds(cell) for cell in cells if cell["value"] is not None}
    rows = []
    for arm in arms_of(cells):
        row = [arm]
        for name in names:
            cell = at.get((arm, name))
            text = "not run" if cell is None else _cell_text(cell, basis.key, notes, len(counts) > 1)
            row.append(text)
        rows.append(row)
    return TextTable([score_title(score), *names], rows, notes)


def _cell_text(cell: Json, key: str, notes: list[str], with_seeds: bool) -> str:
    value = cell[key]
    problems = list(cell["problems"])
    marks = "".join(_mark(problem, notes) for problem in problems)
    if value is None:
        other = cell[RUNS.key]
        if other is None:
            why = _mark(str(cell["reason"]), notes) if cell["reason"] else ""
            return f"{NOTHING}{why}{marks}"
        told = f"mean of {cell['scored_runs']} runs, not pooled"
        return f"({fixed(other)}){_mark(told, notes)}{marks}"
    if key != POOLED.key:
        return f"{fixed(value)}{marks}"
    rests = f"; {_seeds(cell)}" if with_seeds else ""
    if cell["low"] is None:
        return f"{fixed(value)} (no interval{_mark(str(cell['reason']), notes)}{rests}){marks}"
    return f"{fixed(value)} ({fixed(cell['low'], 2)} to {fixed(cell['high'], 2)}{rests}){marks}"


def _seeds(cell: Json) -> str:
    count = sum(one["value"] is not None for one in cell["replicates"])
    return f"{count} seed" if count == 1 else f"{count} seeds"


def _mark(text: str, notes: list[str]) -> str:
    if text not in notes:
        notes.append(text)
    return f" [{notes.index(text) + 1}]"


def fit_table(cells: Sequence[Json]) -> TextTable:
    """What each arm cost and how far its training loss fell, means over its runs."""
    head = [
        "arm",
        "parameters",
        "FLOPs, forward",
        "seconds, a run",
        "peak memory, bytes",
        "train loss reached",
        "train accuracy",
    ]
    rows = []
    for arm in arms_of(cells):
        own = [cell for cell in cells if cell["arm"] == arm]
        costs = [quantity(_mean(own, name)) for name in ("parameters", "flops")]
        seconds = _mean(own, "train_seconds")
        costs.append(NOTHING if seconds is None else f"{seconds:.1f}")
        costs.append(quantity(_mean(own, "peak_memory_bytes")))
        rows.append([arm, *costs, number(_mean(own, "train_loss")), number(_mean(own, "train_accuracy"))])
    return TextTable(
        head,
        rows,
        [
            "An arm whose training loss is still high was not trained to its end: its score is no result on the factor."
        ],
    )


def _mean(cells: Sequence[Json], name: str) -> float | None:
    known = [float(cell[name]) for cell in cells if cell[name] is not None]
    return sum(known) / len(known) if known else None


def spread_table(cells: Sequence[Json], score: str) -> TextTable:
    """Per cell: pairs within folds beside all pairs (AUROC), validation beside test, spreads, runs and test reads."""
    auroc = score.endswith("_auroc")
    head = ["cell", "pooled"]
    head += ["all pairs"] if auroc else []
    head += ["mean of runs", "validation", "seed sd", "fold sd", "finished", "test read"]
    rows = []
    notes: list[str] = []
    for cell in cells:
        row = [f"{cell['arm']} {cell['magnification']}", number(cell["value"])]
        if auroc:
            warned = [one["warning"] for one in cell["replicates"] if one["warning"]]
            row.append(number(cell["pooled_pairs"]) + (" !" if warned else ""))
            if warned and not notes:
                notes.append(
                    "! in at least one seed, pairs within folds and all pairs differ by more than 0.01: the folds' models differ in scale; "
                    "trust the pairs within folds"
                )
        row += [
            number(cell["mean_of_runs"]),
            number(cell["val"]),
            number(cell["seed_sd"]),
            number(cell["fold_sd"]),
        ]
        rows.append([*row, f"{cell['finished']} of {cell['found']}", str(cell["test_read"])])
    return TextTable(head, rows, notes)


def other_scores_table(cells: Sequence[Json]) -> TextTable:
    """The pooled main scores of every cell, without intervals."""
    head = ["cell", *(score_title(name) for name in OTHER_SCORES)]
    rows = [
        [
            f"{cell['arm']} {cell['magnification']}",
            *(number(cell["scores"].get(name)) for name in OTHER_SCORES),
        ]
        for cell in cells
        if cell["value"] is not None
    ]
    return TextTable(head, rows, [])


def pair_table(family: Json) -> TextTable:
    """The differences of a family with their intervals and what they rest on."""
    comparison = family["comparison"]
    score = str(comparison["score"])
    simultaneous = any(pair["simultaneous_low"] is not None for pair in comparison["pairs"])
    adjusted = "p_holm_families" if "p_holm_families" in comparison["pairs"][0] else "p_holm"
    head = ["difference", "estimate"]
    head += ["simultaneous 95 %"] if simultaneous else []
    head += ["95 % by itself", "SE", "SE, cases", "SE, training", "df", "p", "p, Holm", "detectable from"]
    rows = []
    for pair in comparison["pairs"]:
        row = [f"{pair['arm']} \N{MINUS SIGN} {pair['reference']}", signed(pair["difference"], score)]
        if simultaneous:
            row.append(between(pair["simultaneous_low"], pair["simultaneous_high"], score))
        row.append(between(pair["low"], pair["high"], score))
        row += [size(pair[name], score) for name in ("se", "case_se", "seed_se")]
        row.append(NOTHING if pair["df"] is None else f"{pair['df']:.1f}")
        row += [p_text(pair["p"]), p_text(pair[adjusted]), size(pair["minimum_detectable"], score)]
        rows.append(row)
    return TextTable(head, rows, [])


def magnification_table(family: Json) -> TextTable:
    """Differences at each magnification (and level of the other factors), p adjusted over the whole table (Holm)."""
    comparison = family["comparison"]
    score = str(comparison["score"])
    rows = []
    for pair in comparison["pairs"]:
        for place in family["places"]:
            found = pair["by_magnification"][place]
            name = f"{pair['arm']} \N{MINUS SIGN} {pair['reference']}"
            told = [signed(found["difference"], score), size(found["se"], score)]
            rows.append([name, place, *told, p_text(found["p"]), p_text(found["p_holm"])])
    return TextTable(["difference", "at", "estimate", "SE", "p", "p, Holm"], rows, [])


def secondary_table(family: Json) -> TextTable:
    """Nadeau and Bengio's corrected t and the Bayesian correlated t, over the folds."""
    score = str(family["comparison"]["score"])
    head = ["difference", "Nadeau-Bengio t", "df", "p", "95 %", "P(worse)", "P(within 1 point)", "P(better)"]
    rows = []
    notes: list[str] = []
    for pair in family["comparison"]["pairs"]:
        name = f"{pair['arm']} \N{MINUS SIGN} {pair['reference']}"
        corrected, bayes = pair["nadeau_bengio"], pair["bayes"]
        if corrected is None or bayes is None:
            reason = str(pair.get("reason_over_folds") or "undefined")
            rows.append([name, *[NOTHING] * 7])
            notes += [reason] if reason not in notes else []
            continue
        interval = between(corrected["low"], corrected["high"], score)
        row = [name, fixed(corrected["t"], 2), f"{corrected['df']:g}", p_text(corrected["p"]), interval]
        rows.append(row + [fixed(bayes[key], 2) for key in ("p_worse", "p_equivalent", "p_better")])
        factor = f"variance factor {corrected['variance_factor']:.3f}"
        notes += [factor] if factor not in notes else []
    return TextTable(head, rows, notes)


def equivalence_table(family: Json) -> TextTable:
    """What each region of equivalence can and cannot decide."""
    rows = []
    for pair in family["comparison"]["pairs"]:
        for region in pair["equivalence"]:
            rows.append(
                [
                    f"{pair['arm']} \N{MINUS SIGN} {pair['reference']}",
                    f"\N{PLUS-MINUS SIGN}{size(region['region'], str(family['comparison']['score']), 0)}",
                    number(region["p_region"], 2),
                    number(region["largest_reachable"], 2),
                    str(region["words"]),
                ]
            )
    return TextTable(["difference", "region", "P(inside)", "largest reachable", "verdict"], rows, [])


def arm_table(family: Json) -> TextTable:
    """Each arm's own score with its spreads apart: training runs, folds, cases."""
    comparison = family["comparison"]
    auroc = str(comparison["score"]).endswith("_auroc")
    head = ["arm", score_title(comparison["score"]), "seed sd", "fold sd", "case SE"]
    head += ["pairs within folds", "all pairs"] if auroc else []
    rows = []
    for name, arm in comparison["arms"].items():
        row = [str(name), *(number(arm[key]) for key in ("value", "seed_sd", "fold_sd", "case_se"))]
        row += [number(arm[key]) for key in ("within_fold_auroc", "pooled_auroc")] if auroc else []
        rows.append(row)
    return TextTable(head, rows, [])


def tuning_table(results: Json) -> TextTable:
    """The budget of each depth in each hyper-parameter search, and whether its best setting lies on an edge."""
    head = [
        "study",
        "depth",
        "trials",
        "complete",
        "pruned",
        "failed",
        "epochs",
        "best validation",
        "on an edge",
    ]
    rows = []
    for study in results["tuning"]:
        name = str(study["folder"]).rstrip("/").rsplit("/", 1)[-1]
        for about in study["depths"]:
            counts = [NOTHING if about[key] is None else str(about[key]) for key in head[2:7]]
            rows.append(
                [
                    name,
                    str(about["depth"]),
                    *counts,
                    number(about["value"]),
                    ", ".join(about["edges"]) or "no",
                ]
            )
    notes = [str(study["warning"]) for study in results["tuning"] if study["warning"]]
    return TextTable(head, rows, list(dict.fromkeys(notes)))


def unfinished_table(results: Json) -> TextTable:
    rows = [[str(run["run"]), str(run["state"]), str(run["error"])] for run in results["unfinished"]]
    return TextTable(["run", "state", "why"], rows, [])


def environment_table(results: Json) -> TextTable:
    """Versions, device and commit that differ between the runs."""
    rows = []
    for name, values in results["environment"].items():
        if len(values) > 1:
            rows.append([name, ", ".join(f"{value} ({count} runs)" for value, count in values.items())])
    return TextTable(["environment", "values"], rows, [])


def selection_table(selection: Json) -> TextTable:
    """What was chosen at each magnification."""
    several = len({choice["world"] for choice in selection["choices"]}) > 1
    head = ["magnification", "chosen", str(selection["score"]), "runs", "candidates", "test parts read"]
    rows = []
    notes: list[str] = []
    for choice in selection["choices"]:
        name = f"{choice['magnification']} {choice['world']}" if several else str(choice["magnification"])
        mark = f"left out, no finished run: {', '.join(choice['left_out'])}" if choice["left_out"] else ""
        if choice["arm"] is None:
            rows.append([name, f"none{_mark(str(choice['reason']), notes)}", *[NOTHING] * 4])
            continue
        count = f"{len(choice['candidates'])}{_mark(mark, notes) if mark else ''}"
        runs, read = len(choice["runs"]), f"{choice['test_read']} of {len(choice['runs'])}"
        rows.append([name, str(choice["arm"]), number(choice["value"]), str(runs), count, read])
    return TextTable(head, rows, notes)


def fold_choices_table(selection: Json) -> TextTable:
    """The best arm of each outer fold by that fold's own validation."""
    head = ["outer fold", "magnification", "best by its own validation", str(selection["score"])]
    rows = [
        [str(one["fold"]), str(choice["magnification"]), str(one["arm"]), number(one["value"])]
        for choice in selection["choices"]
        for one in choice.get("by_fold") or []
    ]
    return TextTable(head, rows, [])


def has_value(cells: Sequence[Json]) -> bool:
    """Whether a picture of these cells would show anything."""
    basis = basis_of(cells)
    return any(basis_value(cell, basis) is not None for cell in cells)
