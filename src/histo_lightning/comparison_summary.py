"""What ``compare`` prints at its end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from histo_lightning.report.comparison_tables import main_table, unfinished_table
from histo_lightning.report.comparison_words import (
    basis_words,
    conclusions,
    family_rank,
    labels_of,
    left_out,
    runs_sentence,
    score_title,
    unread_sentence,
)
from histo_lightning.report.console import console

Json = Mapping[str, Any]
MOST_UNFINISHED = 10


def say(results: Json, out: Path, *, unfinished: bool = True) -> None:
    """Print the table of scores, warnings, what is missing, the conclusion in words, and where the files are.

    ``unfinished=False`` leaves out the jobs that are not done, where they are named elsewhere.
    """
    screen = console()
    screen.print(runs_sentence(results), markup=False)
    for label in labels_of(results):
        screen.print(
            f"[bold red]{label}[/]: results with this label do not say how a network does on new cases"
        )
    for warning in results["warnings"]:
        screen.print(f"warning: {warning}", markup=False)
    for world in results["worlds"]:
        cells = [cell for cell in results["cells"] if cell["world"] == world]
        screen.print(f"\n{world}; {score_title(results['score'])}, {basis_words(cells)}", markup=False)
        found = main_table(cells, str(results["score"]))
        table = Table(*(heading.replace("[", r"\[") for heading in ["", *found.head[1:]]))
        for row in found.rows:
            table.add_row(*(cell.replace("[", r"\[") for cell in row))
        screen.print(table)
        for number, note in enumerate(found.notes):
            screen.print(f"[{number + 1}] {note}", markup=False)
    missing = unfinished_table(results).rows if unfinished else []
    for name, state, error in missing[:MOST_UNFINISHED]:
        screen.print(f"{state}: {name}: {error}", markup=False)
    if len(missing) > MOST_UNFINISHED:
        screen.print(f"... and {len(missing) - MOST_UNFINISHED} more, all in results.csv")
    screen.print()
    for sentence in dict.fromkeys([*conclusions(results), *left_out(results), unread_sentence(results)]):
        if sentence:
            screen.print(sentence, markup=False)
    main = [family for family in results["families"] if family["main"]]
    if main:
        screen.print(family_rank(main[0]), markup=False)
    _say_selection(results.get("selection"))
    for name in ("report.html", "results.md", "results.csv"):
        screen.print(f"{name + ':':<12} {out / name}", markup=False)


def _say_selection(selection: Json | None) -> None:
    if not selection:
        return
    screen = console()
    screen.print(f"\nselection: {selection['rule']}", markup=False)
    told = [selection["run"]] if selection["run"] else []
    for choice in selection["choices"]:
        where = f"{choice['magnification']} ({choice['world']})"
        if choice["arm"] is None:
            screen.print(f"{where}: nothing is selected: {choice['reason']}", markup=False)
            continue
        screen.print(
            f"{where}: {choice['arm']}, {selection['score']} {choice['value']:.3f}, the best of "
            f"{len(choice['candidates'])}",
            markup=False,
        )
        told += [choice["next"]] if choice["next"] else []
    if selection["warning"]:
        screen.print(selection["warning"], markup=False)
    for run in told:
        if run["command"]:
            screen.print(
                f"its test part is unread; score {run['run']} next:\n  {run['command']}", markup=False
            )
        else:
            screen.print(
                f"{run['run']}: {run['state']}, its test part is not to be scored again", markup=False
            )
