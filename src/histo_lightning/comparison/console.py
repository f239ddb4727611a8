"""What ``compare`` prints at its end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from histo_lightning.report import comparison_words
from histo_lightning.report.console import console
from histo_lightning.report.pages import render_text
from histo_lightning.report.tables import Table


def print_comparison(results: Mapping[str, Any], out: Path, *, unfinished: bool = True) -> None:
    """Print the table of scores, warnings, what is missing, the conclusion in words, and where the files are.

    ``unfinished=False`` leaves out the jobs that are not done, where they are named elsewhere.
    """
    screen = console()

    def table(content: Table) -> str:
        with screen.capture() as captured:
            screen.print(content.console())
        return captured.get()

    missing = results["unfinished"] if unfinished else []
    context = {"results": results, "say": comparison_words, "table": table, "unfinished": missing, "out": out}
    print(render_text("comparison.console", **context), end="")
