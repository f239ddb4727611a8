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
SYNTHETIC_IMAGES = "SYNTHETIC IMAGES: says nothing about tissue"


def print_comparison(results: Json, out: Path, *, unfinished: bool = True) -> None:
    """Print the table of scores, warnings, what is missing, the conclusion in words, and where the files are.

    ``unfinished=False`` leaves out the jobs that are not done, where they are named elsewhere.
    """
    screen = console()

    def show(text: str) -> None:
        screen.print(text, markup=False)

    show(runs_sentence(results))
    labels = [SYNTHETIC_IMAGES] if results["data"] == "synthetic" else []
    for label in dict.fromkeys([*labels, *labels_of(results)]):
        meaning = ": results with this label do not say how a network does on new cases"
        screen.print(f"[bold red]{label}[/]{'' if label == SYNTHETIC_IMAGES else meaning}")
    for warning in results["warnings"]:
        show(f"warning: {warning}")
    for world in results["worlds"]:
        cells = [cell for cell in results["cells"] if cell["world"] == world]
        show(f"\n{world}; {score_title(results['score'])}, {basis_words(cells)}")
        found = main_table(cells, str(results["score"]))
        table = Table(*(heading.replace("[", r"\[") for heading in ["", *found.head[1:]]))
        for row in found.rows:
            table.add_row(*(cell.replace("[", r"\[") for cell in row))
        screen.print(table)
        for number, note in enumerate(found.notes):
            show(f"[{number + 1}] {note}")
    missing = unfinished_table(results).rows if unfinished else []
    for name, state, error in missing[:MOST_UNFINISHED]:
        show(f"{state}: {name}: {error}")
    if len(missing) > MOST_UNFINISHED:
        show(f"... and {len(missing) - MOST_UNFINISHED} more, all in results.csv")
    show("")
    sentences = [*conclusions(results), *left_out(results), unread_sentence(results)]
    main = [family for family in results["families"] if family["main"]]
    sentences += [family_rank(main[0])] if main else []
    sentences += _selection(results.get("selection") or {})
    for sentence in dict.fromkeys(sentences):
        if sentence:
            show(sentence)
    for name in ("report.html", "results.md", "results.csv"):
        show(f"{name + ':':<12} {out / name}")


def _selection(selection: Json) -> list[str]:
    if not selection:
        return []
    lines = [f"\nselection: {selection['rule']}"]
    runs = [selection["run"]] if selection["run"] else []
    for choice in selection["choices"]:
        where = f"{choice['magnification']} ({choice['world']})"
        if choice["arm"] is None:
            lines.append(f"{where}: nothing is selected: {choice['reason']}")
            continue
        lines.append(
            f"{where}: {choice['arm']}, {selection['score']} {choice['value']:.3f}, the best of "
            f"{len(choice['candidates'])}"
        )
        runs += [choice["next"]] if choice["next"] else []
    lines += [selection["warning"] or ""]
    for run in runs:
        lines.append(
            f"its test part is unread; score {run['run']} next:\n  {run['command']}"
            if run["command"]
            else f"{run['run']}: {run['state']}, its test part is not to be scored again"
        )
    return lines
