"""What ``compare`` prints at its end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from histo_lightning.report import comparison_words as say
from histo_lightning.report.console import console
from histo_lightning.report.words import SYNTHETIC

Json = Mapping[str, Any]
MOST_UNFINISHED = 10


def print_comparison(results: Json, out: Path, *, unfinished: bool = True) -> None:
    """Print the table of scores, warnings, what is missing, the conclusion in words, and where the files are.

    ``unfinished=False`` leaves out the jobs that are not done, where they are named elsewhere.
    """
    screen = console()
    lines = [say.runs_sentence(results)]
    for label in say.labels_of(results):
        meaning = ": results with this label do not say how a network does on new cases"
        lines.append(label + meaning * (label != SYNTHETIC))
    lines += [f"warning: {warning}" for warning in results["warnings"]]
    for protocol in results["worlds"]:
        cells = [cell for cell in results["cells"] if cell["world"] == protocol]
        lines.append(f"\n{protocol}; {say.basis_words(cells)}")
        screen.print("\n".join(lines), markup=False)
        screen.print(say.main_table(cells, results["score"]).console())
        lines = []
    missing = say.unfinished_table(results).rows if unfinished else []
    lines += [f"{state}: {name}: {error}" for name, state, error in missing[:MOST_UNFINISHED]]
    if len(missing) > MOST_UNFINISHED:
        lines.append(f"... and {len(missing) - MOST_UNFINISHED} more, all in results.csv")
    main = say.main_family(results)
    sentences = [*say.conclusions(results), *say.cautions(results), say.family_rank(main) if main else ""]
    lines += [
        "",
        *dict.fromkeys(text for text in sentences if text),
        *_selection(results.get("selection") or {}),
    ]
    lines += [f"{name + ':':<12} {out / name}" for name in ("report.html", "results.md", "results.csv")]
    screen.print("\n".join(lines), markup=False)


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
        best = f"{selection['score']} {choice['value']:.3f}, the best of {len(choice['candidates'])}"
        lines.append(f"{where}: {choice['arm']}, {best}")
        runs += [choice["next"]] if choice["next"] else []
    lines += [selection["warning"]] if selection["warning"] else []
    for run in runs:
        todo = f"its test part is unread; score {run['run']} next:\n  {run['command']}"
        done = f"{run['run']}: {run['state']}, its test part is not to be scored again"
        lines.append(todo if run["command"] else done)
    return lines
