"""Names, numbers and sentences of a comparison: what its values are, what is missing, what may be believed."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from histo_lightning.report.scores import titles
from histo_lightning.report.words import NOTHING, SYNTHETIC, counted, fixed, is_synthetic

Json = Mapping[str, Any]
ERRORS = ("brier", "log_loss")  # smaller is better, not in points


class Basis(NamedTuple):
    """What a table or figure of cells shows: a key of the cells, in words."""

    key: str
    words: str
    has_interval: bool


POOLED = Basis("value", "pooled out-of-fold, mean over the seeds", True)
RUNS = Basis("mean_of_runs", "mean over the runs' own test sets, not pooled", False)
VALIDATION = Basis("val", "mean over the runs' validation sets (the test set was left unread)", False)
NOTHING_SCORED = Basis("val", "no run has been scored", False)


def basis_of(cells: Sequence[Json]) -> Basis:
    """The best that some cell has: pooled, else the mean over test sets, else validation."""
    bases = (POOLED, RUNS, VALIDATION)
    return next((b for b in bases if any(cell[b.key] is not None for cell in cells)), NOTHING_SCORED)


def basis_words(cells: Sequence[Json]) -> str:
    """What the values are, with the number of seeds where every cell has the same."""
    basis = basis_of(cells)
    counts = {sum(one["value"] is not None for one in cell["replicates"]) for cell in cells if cell["value"]}
    if basis is not POOLED or len(counts) != 1:
        return basis.words
    (count,) = counts
    return "pooled out-of-fold, 1 seed" if count == 1 else f"pooled out-of-fold, mean over {count} seeds"


def score_title(score: str) -> str:
    """``case_auroc`` as ``AUROC by case``."""
    level, _, name = score.partition("_")
    return f"{titles()[name][0] if name in titles() else name.replace('_', ' ')} by {level}"


def is_error(score: str) -> bool:
    """Whether smaller is better; then differences have the score's own unit instead of points."""
    return score.partition("_")[2] in ERRORS


def unit(score: str) -> str:
    return "" if is_error(score) else " points"


def size(value: float | None, score: str, decimals: int = 1) -> str:
    """A difference: in points (hundredths) for a score, in its own unit for an error."""
    if value is None:
        return NOTHING
    return fixed(value, 4) if is_error(score) else fixed(100 * value, decimals)


def signed_size(value: float | None, score: str) -> str:
    return ("+" if value is not None and value > 0 else "") + size(value, score)


def between(low: float | None, high: float | None, score: str) -> str:
    if low is None or high is None:
        return "no interval"
    return f"{signed_size(low, score)} to {signed_size(high, score)}".replace(" ", "\N{NO-BREAK SPACE}")


def pair_name(pair: Json) -> str:
    return f"{pair['arm']} \N{MINUS SIGN} {pair['reference']}"


def p_text(value: float | None) -> str:
    return NOTHING if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def runs_sentence(results: Json) -> str:
    """``240 runs: 238 finished, 2 failed.``"""
    runs = results["runs"]
    parts = [f"{runs[state]} {state}" for state in runs if state != "found" and runs[state]]
    return f"{counted(runs['found'], 'run').replace(',', '')}: {', '.join(parts)}."


def labels_of(results: Json) -> list[str]:
    """Labels that some result has, each once."""
    labels = [str(cell["label"]).split(" (")[0] for cell in results["cells"] if cell["label"]]
    synthetic = is_synthetic(results) or any(is_synthetic(cell) for cell in results["cells"])
    return list(dict.fromkeys([SYNTHETIC] * synthetic + labels))


def family_rank(family: Json) -> str:
    """Why a family may be believed more than another."""
    if family["primary"]:
        return "Primary: the one comparison that was fixed before the first job."
    return f"Exploratory: {'; '.join(family['exploratory_because'])}."


def conclusions(results: Json) -> list[str]:
    """The conclusion in words: one sentence a comparison of the first family, or why there is none."""
    main = next((family for family in results["families"] if family["main"]), None)
    if main is None:
        reasons = [reason for refusal in results["refusals"] for reason in refusal["reasons"]]
        return [f"No comparison: {text}." for text in dict.fromkeys(said_once(reasons).values())]
    return [str(pair["words"]) for pair in main["comparison"]["pairs"]]


def said_once(problems: Sequence[str]) -> dict[str, str]:
    """Each ``<cell>: <problem>`` as it is said: once, with the number of cells, where several have the same problem."""
    alike: dict[str, list[str]] = {}
    for problem in dict.fromkeys(problems):
        alike.setdefault(problem.partition(": ")[2] or problem, []).append(problem)
    return {
        problem: problem if len(same) == 1 else f"{len(same)} cells: {text}"
        for text, same in alike.items()
        for problem in same
    }


def left_out(results: Json) -> list[str]:
    """Levels that were run but are not in the first comparison, with the first reason."""
    main: Json = next((family for family in results["families"] if family["main"]), {"missing": {}})
    return [
        f"Not compared: {level}, since {reasons[0]}"
        + (f" (and {len(reasons) - 1} more)." if reasons[1:] else ".")
        for level, reasons in main["missing"].items()
    ]


def unread_sentence(results: Json) -> str | None:
    """What validation scores alone cannot say."""
    if any(cell["scored_runs"] for cell in results["cells"]) or not results["runs"]["finished"]:
        return None
    return (
        "Every finished run left its test set unread (test=false): only validation scores are known. They chose epochs "
        "and thresholds, so they say nothing about new cases, and no interval or comparison is made from them."
    )
