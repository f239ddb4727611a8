"""Names, numbers, sentences and tables of a comparison: the page, ``results.md`` and the console show the same ones."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from histo_lightning.report.scores import titles
from histo_lightning.report.tables import Table, mark, table_with_notes
from histo_lightning.report.words import NOTHING, SYNTHETIC, Json, counted, fixed, is_synthetic

ERRORS = ("brier", "log_loss")  # smaller is better, not in points


class Basis(NamedTuple):
    """What a table or figure of cells shows: a key of the cells, in words."""

    key: str
    words: str
    has_interval: bool = False


POOLED = Basis("value", "pooled out-of-fold, mean over the seeds", True)
RUNS = Basis("mean_of_runs", "mean over the runs' own test sets, not pooled")
VALIDATION = Basis("val", "mean over the runs' validation sets (the test set was left unread)")
NOTHING_SCORED = Basis("val", "no run has been scored")


def basis_of(cells: Sequence[Json]) -> Basis:
    """The best that some cell has: pooled, else the mean over test sets, else validation."""
    bases = (POOLED, RUNS, VALIDATION)
    return next((b for b in bases if any(cell[b.key] is not None for cell in cells)), NOTHING_SCORED)


def basis_words(cells: Sequence[Json]) -> str:
    """What the values are, with the number of seeds where every cell has the same."""
    basis, counts = basis_of(cells), list({_seeds(cell) for cell in cells if cell["value"]})
    if basis is not POOLED or len(counts) != 1:
        return basis.words
    return f"pooled out-of-fold, {'mean over ' * (counts[0] != '1 seed')}{counts[0]}"


def _seeds(cell: Json) -> str:
    return counted(sum(one["value"] is not None for one in cell["replicates"]), "seed")


def distinct(cells: Sequence[Json], key: str) -> list[str]:
    """The values of a key of the cells, in order of appearance; magnifications by size."""
    values = list(dict.fromkeys(str(cell[key]) for cell in cells))
    return sorted(values, key=len) if key == "magnification" else values


def score_title(score: str) -> str:
    """``case_auroc`` as ``AUROC by case``."""
    level, _, name = score.partition("_")
    return f"{titles().get(name, (name.replace('_', ' '),))[0]} by {level}"


def is_error(score: str) -> bool:
    """Whether smaller is better; then differences have the score's own unit instead of points."""
    return score.partition("_")[2] in ERRORS


def size(value: float | None, score: str, decimals: int = 1) -> str:
    """A difference: in points (hundredths) for a score, in its own unit for an error."""
    return fixed(value, 4) if value is None or is_error(score) else fixed(100 * value, decimals)


def signed_size(value: float | None, score: str) -> str:
    return ("+" if value is not None and value > 0 else "") + size(value, score)


def between(low: float | None, high: float | None, score: str) -> str:
    if low is None or high is None:
        return "no interval"
    return f"{signed_size(low, score)} to {signed_size(high, score)}".replace(" ", "\N{NO-BREAK SPACE}")


def p_text(value: float | None) -> str:
    return NOTHING if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def quantity(value: float | None) -> str:
    """A count or an amount with a unit's prefix: 11.2 M; a dash for None and for 0, which is what nobody measured."""
    units = {" T": 1e12, " G": 1e9, " M": 1e6, " k": 1e3, "": 0}
    prefix = next(prefix for prefix, factor in units.items() if (value or 0) >= factor)
    return f"{value / (units[prefix] or 1):.3g}{prefix}" if value else NOTHING


def family_rank(family: Json) -> str:
    """Why a family may be believed more than another."""
    if family["primary"]:
        return "Primary: the one comparison that was fixed before the first job."
    return f"Exploratory: {'; '.join(family['exploratory_because'])}."


def summary(results: Json) -> dict[str, Any]:
    """The answer in words: of the first family that averages over all settings (``main``), or why there is none."""
    runs, cells = results["runs"], results["cells"]
    states = [f"{count} {state}" for state, count in runs.items() if state != "found" and count]
    labels = [str(cell["label"]).split(" (")[0] for cell in cells if cell["label"]]
    main: Json | None = next((family for family in results["families"] if family["main"]), None)
    reasons = [reason for refusal in results["refusals"] for reason in refusal["reasons"]]
    refused = [f"No comparison: {text}." for text in dict.fromkeys(problem_texts(reasons).values())]
    cautions = [
        f"Not compared: {level}, since {why[0]}{f' (and {len(why) - 1} more)' if why[1:] else ''}."
        for level, why in (main["missing"] if main else {}).items()
    ]
    if runs["finished"] and not any(cell["scored_runs"] for cell in cells):
        cautions.append(
            "Every finished run left its test set unread (test=false): only validation scores are known. They chose "
            "epochs and thresholds, so they say nothing about new cases, and no interval or comparison is made from them."
        )
    return {
        "runs": f"{counted(runs['found'], 'run').replace(',', '')}: {', '.join(states)}.",
        "labels": list(dict.fromkeys([SYNTHETIC] * is_synthetic(results) + labels)),
        "main": main,
        "conclusions": [str(pair["words"]) for pair in main["comparison"]["pairs"]] if main else refused,
        "cautions": cautions,
        "rank": family_rank(main) if main else "",
    }


def problem_texts(problems: Sequence[str]) -> dict[str, str]:
    """Each ``<cell>: <problem>`` as it is shown: once, with the number of cells, where several have the same problem."""
    texts = {problem: problem.partition(": ")[2] or problem for problem in problems}
    counts = Counter(texts.values())
    return {
        problem: problem if counts[text] == 1 else f"{counts[text]} cells: {text}"
        for problem, text in texts.items()
    }


def missing_folds(cells: Sequence[Json]) -> str:
    """``0,1,2,3,4``, the folds to run, where nothing could be pooled because some are missing; else empty."""
    problems = [problem for cell in cells for problem in cell["problems"]]
    missing = any("fold" in problem and "missing" in problem for problem in problems)
    nothing = all(cell["value"] is None for cell in cells)
    return ",".join(map(str, range(cells[0]["folds"] or 0))) if missing and nothing else ""


def main_table(cells: Sequence[Json], score: str) -> Table:
    """Setting x magnification: the score with its interval, and how many seeds and runs it rests on."""
    basis, names, notes = basis_of(cells), distinct(cells, "magnification"), list[str]()
    at = {(cell["arm"], cell["magnification"]): cell for cell in cells}
    several = len({_seeds(cell) for cell in cells if cell["value"] is not None}) > 1
    reasons = problem_texts([problem for cell in cells for problem in cell["problems"]])
    ends = {POOLED: ("low", "high"), RUNS: ("runs_low", "runs_high")}.get(basis)

    def text(cell: Json | None) -> str:
        if cell is None:
            return "not run"
        marks = "".join(dict.fromkeys(mark(notes, reasons[problem]) for problem in cell["problems"]))
        value, seeds = cell[basis.key], f"; {_seeds(cell)}" * (several and basis is POOLED)
        low, high = (cell[end] for end in ends) if ends else (None, None)
        if value is None and cell[RUNS.key] is None:
            return NOTHING + (mark(notes, str(cell["reason"])) if cell["reason"] else "") + marks
        if value is None:
            marks = mark(notes, f"mean of {counted(cell['scored_runs'], 'run')}, not pooled") + marks
            return f"{fixed(cell[RUNS.key])}{marks}"
        if low is not None:
            return f"{fixed(value)} ({fixed(low, 2)} to {fixed(high, 2)}{seeds}){marks}"
        if basis is POOLED:
            return f"{fixed(value)} (no interval{seeds}){mark(notes, str(cell['reason']))}{marks}"
        return f"{fixed(value)}{marks}"

    rows = [[arm, *(text(at.get((arm, name))) for name in names)] for arm in distinct(cells, "arm")]
    return table_with_notes([score_title(score), *names], rows, notes)
