"""Names and sentences of a comparison: what its values are, what is missing, what was planned."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from histo_lightning.report.score_tables import SCORES
from histo_lightning.report.words import fixed

Json = Mapping[str, Any]
ERRORS = ("brier", "log_loss")  # smaller is better, not in points


class Basis(NamedTuple):
    """What a table or picture of cells shows."""

    key: str
    words: str
    has_interval: bool


POOLED = Basis("value", "pooled out-of-fold, mean over the seeds", True)
RUNS = Basis("mean_of_runs", "mean over the runs' own test parts, not pooled", False)
VALIDATION = Basis("val", "mean over the runs' validation parts (the test part was left unread)", False)
NOTHING_SCORED = Basis("val", "no run has been scored", False)
BASES = (POOLED, RUNS, VALIDATION)


def basis_of(cells: Sequence[Json]) -> Basis:
    """The best that some cell has: pooled, else the mean over test parts, else validation."""
    return next(
        (basis for basis in BASES if any(cell[basis.key] is not None for cell in cells)), NOTHING_SCORED
    )


def basis_words(cells: Sequence[Json]) -> str:
    """What the values are, with the number of seeds where every cell has the same."""
    basis = basis_of(cells)
    if basis is not POOLED:
        return basis.words
    counts = {sum(one["value"] is not None for one in cell["replicates"]) for cell in cells if cell["value"]}
    (count,) = counts if len(counts) == 1 else (None,)
    seeds = "the seeds" if count is None else f"{count} seeds"
    return "pooled out-of-fold, 1 seed" if count == 1 else f"pooled out-of-fold, mean over {seeds}"


def basis_value(cell: Json, basis: Basis) -> float | None:
    value = cell[basis.key]
    return None if value is None else float(value)


def score_title(score: str) -> str:
    """``case_auroc`` as ``AUROC by case``."""
    level, _, name = score.partition("_")
    title = SCORES[name][0] if name in SCORES else name.replace("_", " ")
    return f"{title} by {level}"


def is_error(score: str) -> bool:
    return score.partition("_")[2] in ERRORS


def in_unit(score: str) -> str:
    """``Differences in points of AUROC by case``."""
    return f"Differences in {'points' if not is_error(score) else 'units'} of {score_title(score)}"


def unit(score: str) -> str:
    return "" if is_error(score) else " points"


def size(value: float | None, score: str, decimals: int = 1) -> str:
    """A difference: in points (hundredths) for a score, in its own unit for an error."""
    if value is None:
        return "\N{EN DASH}"
    return fixed(value, 4) if is_error(score) else fixed(100 * value, decimals)


def signed(value: float | None, score: str) -> str:
    text = size(value, score)
    return f"+{text}" if value is not None and value > 0 else text


def between(low: float | None, high: float | None, score: str) -> str:
    if low is None or high is None:
        return "no interval"
    return f"{signed(low, score)} to {signed(high, score)}".replace(" ", "\N{NO-BREAK SPACE}")


def p_text(value: float | None) -> str:
    if value is None:
        return "\N{EN DASH}"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def quantity(value: float | None) -> str:
    """A count or an amount with a unit's prefix: 11.2 M."""
    if value is None:
        return "\N{EN DASH}"
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g}"


def runs_sentence(results: Json) -> str:
    """``240 runs: 238 finished, 2 failed.``"""
    runs = results["runs"]
    parts = [f"{runs[state]} {state}" for state in runs if state != "found" and runs[state]]
    plural = "" if runs["found"] == 1 else "s"
    return f"{runs['found']} run{plural}: {', '.join(parts)}."


def design_sentence(results: Json) -> str:
    """What was crossed with what."""
    cells = results["cells"]
    magnifications = sorted(
        {str(cell["magnification"]) for cell in cells}, key=lambda name: (len(name), name)
    )
    parts = [f"{results['factor']}: {', '.join(results['levels'])} (reference {results['reference']})"]
    parts += [f"{key}: {', '.join(values)}" for key, values in results["held"].items()]
    return "; ".join([*parts, f"magnification: {', '.join(magnifications)}"]) + "."


def labels_of(results: Json) -> list[str]:
    """Labels that some result carries, each once."""
    return list(
        dict.fromkeys(str(cell["label"]).split(" (")[0] for cell in results["cells"] if cell["label"])
    )


def plan_sentences(plan: Json) -> list[str]:
    """What was fixed beforehand, and whether it was beforehand."""
    asked = plan["comparison"]
    levels = ", ".join(str(level) for level in asked.get("levels") or [])
    fixed_there = (
        f"The plan fixed: {asked.get('factor')} ({levels or 'levels not listed'}) against {asked.get('reference')}, "
        f"primary score {asked.get('score')}, {plan['jobs']} jobs; SHA-256 {plan['hash'] or 'not stored'}."
        if asked
        else f"The plan of {plan['jobs']} jobs names no comparison; SHA-256 {plan['hash'] or 'not stored'}."
    )
    when = {
        True: f"It was written at {plan['created']}, before the first job started ({plan['first_start']}).",
        False: f"It was written at {plan['created']}, AFTER the first job had started ({plan['first_start']}).",
        None: f"It was written at {plan['created']}; when the first job started is not known.",
    }[plan["came_first"]]
    kept = (
        "Its content still has that hash."
        if plan["untouched"]
        else "Its content does NOT have the hash stored with it."
    )
    earlier = [
        f"Another plan stood in this folder before it: SHA-256 {one.get('hash')}, written at {one.get('created')}."
        for one in plan["earlier"]
    ]
    return [fixed_there, when, kept, *earlier]


def family_rank(family: Json) -> str:
    """Why a family may be believed more than another."""
    if family["primary"]:
        return "Primary: the one comparison that was fixed before the first job."
    return f"Exploratory: {'; '.join(family['exploratory_because'])}."


def conclusions(results: Json) -> list[str]:
    """The conclusion in words: one sentence a comparison of the first family, or why there is none."""
    families = [family for family in results["families"] if family["main"]]
    if not families:
        return [
            f"No comparison: {reason}." for refusal in results["refusals"] for reason in refusal["reasons"]
        ]
    return [str(pair["words"]) for pair in families[0]["comparison"]["pairs"]]


def left_out(results: Json) -> list[str]:
    """Levels that were run but are not in the first comparison, with the first reason."""
    main = [family for family in results["families"] if family["main"]]
    return [
        f"Not compared: {level}, since {reasons[0]}"
        + (f" (and {len(reasons) - 1} more)." if reasons[1:] else ".")
        for level, reasons in (main[0]["missing"].items() if main else [])
    ]


def unread_sentence(results: Json) -> str | None:
    """What validation scores alone cannot say."""
    if any(cell["scored_runs"] for cell in results["cells"]) or not results["runs"]["finished"]:
        return None
    return (
        "Every finished run left its test part unread (test=false): only validation scores are known. They chose epochs "
        "and thresholds, so they say nothing about new cases, and no interval or comparison is made from them."
    )
