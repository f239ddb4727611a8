"""Tables of a comparison: the page, ``results.md`` and the console show the same ones."""

from collections.abc import Mapping, Sequence
from typing import Any

from histo_lightning.report.comparison_words import POOLED, RUNS, basis_of, said_once, score_title
from histo_lightning.report.figures.comparison import distinct
from histo_lightning.report.tables import Notes, Table, table_with_notes
from histo_lightning.report.words import NOTHING, counted, fixed

Json = Mapping[str, Any]


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
    problems = [problem for cell in cells for problem in cell["problems"]]
    if not any("folds" in problem and "missing" in problem for problem in problems):
        return None
    advice = "run every fold: repeat the command with split.fold=0,1,2,3,4 added."
    return f"To get scores with intervals and a comparison, {advice}"


def mean_of(cells: Sequence[Json], arm: str, name: str) -> float | None:
    """The mean of an arm's cells that have a value, None without one."""
    values = [float(cell[name]) for cell in cells if cell["arm"] == arm and cell[name] is not None]
    return sum(values) / len(values) if values else None


def unfinished_table(results: Json) -> Table:
    """Runs that did not finish, and why."""
    rows = [[str(run["run"]), str(run["state"]), str(run["error"])] for run in results["unfinished"]]
    return Table(["run", "state", "why"], rows, align="lll")
