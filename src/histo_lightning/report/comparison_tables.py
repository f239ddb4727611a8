"""Tables of a comparison: the page, ``results.md`` and the console show the same ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from histo_lightning.report.comparison_words import (
    POOLED,
    RUNS,
    basis_of,
    between,
    p_text,
    said_once,
    score_title,
    signed_size,
    size,
)
from histo_lightning.report.figures.comparison import distinct
from histo_lightning.report.tables import Notes, Table, table_with_notes
from histo_lightning.report.words import NOTHING, counted, fixed

Json = Mapping[str, Any]
OTHER_SCORES = [f"case_{name}" for name in ("auroc", "balanced_accuracy", "sensitivity", "specificity")]
OTHER_SCORES += ["slide_patient_recognition_rate"]
OTHER_SCORES += [f"image_{name}" for name in ("auroc", "balanced_accuracy", "accuracy", "log_loss")]


def quantity(value: float | None) -> str:
    """A count or an amount with a unit's prefix: 11.2 M; a dash for None and for 0, which is what nobody measured."""
    if not value:
        return NOTHING
    for factor, prefix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:.3g}{prefix}"
    return f"{value:.3g}"


def main_table(cells: Sequence[Json], score: str) -> Table:
    """Arm x magnification: the score with its interval, and how many seeds and runs it rests on."""
    basis, names, notes = basis_of(cells), distinct(cells, "magnification"), Notes()
    at = {(cell["arm"], cell["magnification"]): cell for cell in cells}
    several = len({_seeds(cell) for cell in cells if cell["value"] is not None}) > 1
    said = said_once([problem for cell in cells for problem in cell["problems"]])

    def text(cell: Json | None) -> str:
        if cell is None:
            return "not run"
        marks = "".join(notes.mark(said[problem]) for problem in cell["problems"])
        value, runs_value = cell[basis.key], cell[RUNS.key]
        if value is None and runs_value is None:
            return NOTHING + (notes.mark(str(cell["reason"])) if cell["reason"] else "") + marks
        if value is None:
            mark = notes.mark(f"mean of {counted(cell['scored_runs'], 'run')}, not pooled")
            return f"{fixed(runs_value)}{mark}{marks}"
        if basis is not POOLED:
            return f"{fixed(value)}{marks}"
        seeds = f"; {_seeds(cell)}" if several else ""
        if cell["low"] is None:
            return f"{fixed(value)} (no interval{seeds}){notes.mark(str(cell['reason']))}{marks}"
        return f"{fixed(value)} ({fixed(cell['low'], 2)} to {fixed(cell['high'], 2)}{seeds}){marks}"

    rows = [[arm, *(text(at.get((arm, name))) for name in names)] for arm in distinct(cells, "arm")]
    return table_with_notes([score_title(score), *names], rows, notes)


def _seeds(cell: Json) -> str:
    return counted(sum(one["value"] is not None for one in cell["replicates"]), "seed")


def missing_folds(cells: Sequence[Json]) -> str | None:
    """The sentence that says what to add where folds are missing, so that nothing could be pooled."""
    if any(cell["value"] is not None for cell in cells):
        return None
    lacking = any(
        "folds" in problem and "missing" in problem for cell in cells for problem in cell["problems"]
    )
    if not lacking:
        return None
    return "To get scores with intervals and a comparison, run every fold: repeat the command with split.fold=0,1,2,3,4 added."


def fit_table(cells: Sequence[Json]) -> Table:
    """What each arm cost and how far its training loss fell, means over its runs."""
    head = [
        "arm",
        "parameters",
        "FLOPs, forward",
        "seconds, a run",
        "peak memory, bytes",
        "train loss reached",
    ]
    rows = []
    for arm in distinct(cells, "arm"):
        known: dict[str, float | None] = {}
        for name in (
            "parameters",
            "flops",
            "train_seconds",
            "peak_memory_bytes",
            "train_loss",
            "train_accuracy",
        ):
            values = [float(c[name]) for c in cells if c["arm"] == arm and c[name] is not None]
            known[name] = sum(values) / len(values) if values else None
        amounts = [quantity(known[name]) for name in ("parameters", "flops")]
        amounts += [fixed(known["train_seconds"], 1), quantity(known["peak_memory_bytes"])]
        rows.append([arm, *amounts, fixed(known["train_loss"]), fixed(known["train_accuracy"])])
    note = "An arm whose train loss is still high was not trained to its end: its score is no result on the factor."
    return Table([*head, "train accuracy"], rows, [note])


def spread_table(cells: Sequence[Json], score: str) -> Table:
    """Per cell: pairs within folds beside all pairs (AUROC), validation beside test, spreads, runs and test reads."""
    auroc = score.endswith("_auroc")
    head = ["cell", "pooled", *["all pairs"] * auroc, "mean of runs", "validation", "seed sd", "fold sd"]
    rows, warned = [], False
    for cell in cells:
        row = [f"{cell['arm']} {cell['magnification']}", fixed(cell["value"])]
        if auroc:
            differs = any(one["warning"] for one in cell["replicates"])
            row.append(fixed(cell["pooled_pairs"]) + " !" * differs)
            warned |= differs
        row += [fixed(cell[key]) for key in ("mean_of_runs", "val", "seed_sd", "fold_sd")]
        rows.append([*row, f"{cell['finished']} of {cell['found']}", str(cell["test_read"])])
    note = (
        "! in at least one seed, pairs within folds and all pairs differ by more than 0.01: the folds' models differ in "
        "scale; trust the pairs within folds"
    )
    return Table([*head, "finished", "test read"], rows, [note] * warned)


def other_scores_table(cells: Sequence[Json]) -> Table:
    """The pooled main scores of every cell, without intervals."""
    scored = [cell for cell in cells if cell["value"] is not None]
    names = [f"{cell['arm']} {cell['magnification']}" for cell in scored]
    values = [[fixed(cell["scores"].get(name)) for name in OTHER_SCORES] for cell in scored]
    rows = [[name, *row] for name, row in zip(names, values, strict=True)]
    return Table(["cell", *map(score_title, OTHER_SCORES)], rows)


def _name(pair: Json) -> str:
    return f"{pair['arm']} \N{MINUS SIGN} {pair['reference']}"


def pair_table(family: Json) -> Table:
    """The differences of a family with their intervals and what they rest on."""
    pairs, score = family["comparison"]["pairs"], str(family["comparison"]["score"])
    simultaneous = any(pair["simultaneous_low"] is not None for pair in pairs)
    adjusted = "p_holm_families" if "p_holm_families" in pairs[0] else "p_holm"
    head = [
        "difference",
        "estimate",
        *["simultaneous 95 %"] * simultaneous,
        "95 % by itself",
        "SE",
        "SE, cases",
    ]
    rows = []
    for pair in pairs:
        row = [_name(pair), signed_size(pair["difference"], score)]
        row += [between(pair["simultaneous_low"], pair["simultaneous_high"], score)] * simultaneous
        row += [between(pair["low"], pair["high"], score)]
        row += [size(pair[key], score) for key in ("se", "case_se", "seed_se")]
        row += [fixed(pair["df"], 1), p_text(pair["p"]), p_text(pair[adjusted])]
        rows.append([*row, size(pair["minimum_detectable"], score)])
    return Table([*head, "SE, training", "df", "p", "p, Holm", "detectable from"], rows)


def magnification_table(family: Json) -> Table:
    """Differences at each magnification (and level of the other factors), p adjusted over the whole table (Holm)."""
    score, rows = str(family["comparison"]["score"]), []
    for pair in family["comparison"]["pairs"]:
        for name in family["places"]:
            one = pair["by_magnification"][name]
            estimate = [signed_size(one["difference"], score), size(one["se"], score)]
            rows.append([_name(pair), name, *estimate, p_text(one["p"]), p_text(one["p_holm"])])
    return Table(["difference", "at", "estimate", "SE", "p", "p, Holm"], rows)


def secondary_table(family: Json) -> Table:
    """Nadeau and Bengio's corrected t and the Bayesian correlated t, over the folds."""
    score, rows, notes = str(family["comparison"]["score"]), [], []
    for pair in family["comparison"]["pairs"]:
        corrected, bayes = pair["nadeau_bengio"], pair["bayes"]
        if corrected is None or bayes is None:
            rows.append([_name(pair), *[NOTHING] * 7])
            notes.append(str(pair.get("reason_over_folds") or "undefined"))
            continue
        row = [fixed(corrected["t"], 2), f"{corrected['df']:g}", p_text(corrected["p"])]
        row.append(between(corrected["low"], corrected["high"], score))
        rows.append(
            [_name(pair), *row, *(fixed(bayes[k], 2) for k in ("p_worse", "p_equivalent", "p_better"))]
        )
        notes.append(f"variance factor {corrected['variance_factor']:.3f}")
    head = ["difference", "Nadeau-Bengio t", "df", "p", "95 %", "P(worse)", "P(within 1 point)", "P(better)"]
    return Table(head, rows, list(dict.fromkeys(notes)))


def equivalence_table(family: Json) -> Table:
    """What each region of equivalence can and cannot decide."""
    score, rows = str(family["comparison"]["score"]), []
    for pair in family["comparison"]["pairs"]:
        for region in pair["equivalence"]:
            half = f"\N{PLUS-MINUS SIGN}{size(region['region'], score, 0)}"
            chances = [fixed(region[key], 2) for key in ("p_region", "largest_reachable")]
            rows.append([_name(pair), half, *chances, str(region["words"])])
    return Table(["difference", "region", "P(inside)", "largest reachable", "verdict"], rows, align="lrrrl")


def arm_table(family: Json) -> Table:
    """Each arm's own score with its spreads apart: training runs, folds, cases."""
    comparison = family["comparison"]
    auroc = ["within_fold_auroc", "pooled_auroc"] * str(comparison["score"]).endswith("_auroc")
    head = ["arm", score_title(comparison["score"]), "seed sd", "fold sd", "case SE"]
    keys = ["value", "seed_sd", "fold_sd", "case_se", *auroc]
    rows = [[str(name), *(fixed(arm[key]) for key in keys)] for name, arm in comparison["arms"].items()]
    return Table(head + ["pairs within folds", "all pairs"] * bool(auroc), rows)


def tuning_table(results: Json) -> Table:
    """The budget of each depth in each hyper-parameter search, and whether its best setting lies on an edge."""
    counts = ["trials", "complete", "pruned", "failed", "epochs"]
    rows = []
    for study in results["tuning"]:
        for about in study["depths"]:
            numbers = [NOTHING if about[key] is None else str(about[key]) for key in counts]
            edges = ", ".join(about["edges"]) or "no"
            rows.append(
                [Path(study["folder"]).name, str(about["depth"]), *numbers, fixed(about["value"]), edges]
            )
    notes = [str(study["warning"]) for study in results["tuning"] if study["warning"]]
    return Table(
        ["study", "depth", *counts, "best validation", "on an edge"], rows, list(dict.fromkeys(notes))
    )


def unfinished_table(results: Json) -> Table:
    """Runs that did not finish, and why."""
    rows = [[str(run["run"]), str(run["state"]), str(run["error"])] for run in results["unfinished"]]
    return Table(["run", "state", "why"], rows, align="lll")


def environment_table(results: Json) -> Table:
    """Versions, device and commit that differ between the runs."""
    rows = [
        [name, ", ".join(f"{value} ({count} runs)" for value, count in values.items())]
        for name, values in results["environment"].items()
        if len(values) > 1
    ]
    return Table(["environment", "values"], rows, align="ll")


def selection_table(selection: Json) -> Table:
    """What was chosen at each magnification."""
    several = len({choice["world"] for choice in selection["choices"]}) > 1
    notes, rows = Notes(), []
    for choice in selection["choices"]:
        name = f"{choice['magnification']} {choice['world']}" if several else str(choice["magnification"])
        if choice["arm"] is None:
            rows.append([name, f"none{notes.mark(str(choice['reason']))}", *[NOTHING] * 4])
            continue
        absent = ", ".join(choice["left_out"])
        mark = notes.mark(f"left out, no finished run: {absent}") if absent else ""
        runs, candidates = len(choice["runs"]), f"{len(choice['candidates'])}{mark}"
        read = f"{choice['test_read']} of {runs}"
        rows.append([name, str(choice["arm"]), fixed(choice["value"]), str(runs), candidates, read])
    head = ["magnification", "chosen", str(selection["score"]), "runs", "candidates", "test sets read"]
    return Table(head, rows, notes.texts)


def fold_choices_table(selection: Json) -> Table:
    """The best arm of each outer fold by that fold's own validation."""
    rows = [
        [str(one["fold"]), str(choice["magnification"]), str(one["arm"]), fixed(one["value"])]
        for choice in selection["choices"]
        for one in choice.get("by_fold") or []
    ]
    return Table(["outer fold", "magnification", "best by its own validation", str(selection["score"])], rows)
