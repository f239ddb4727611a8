"""``results.md``, ``report.html`` and ``plots/`` of a comparison: the answer of a sweep, or of any mix of runs."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from histo_lightning.report.cell_pictures import cost_figure, curves_figure, heat_figure
from histo_lightning.report.comparison_pictures import forest_figure, ranks_figure
from histo_lightning.report.decision_pictures import confusion_cells_figure, roc_cells_figure
from histo_lightning.report.page import page, paragraph, picture, section
from histo_lightning.report.results_sections import sections
from histo_lightning.report.results_tables import TextTable, has_value
from histo_lightning.report.results_text import (
    Block,
    Folded,
    Heading,
    Label,
    Lines,
    Listed,
    Shell,
    as_markdown,
)
from histo_lightning.report.score_tables import row, table
from histo_lightning.report.style import save_picture
from histo_lightning.runs import write_atomic

Json = Mapping[str, Any]
PICTURES = {
    "forest": "Differences with their intervals",
    "ranks": "Mean ranks over the folds",
    "heat_map": "Heat map of the score",
    "cost": "Score against parameters and seconds",
    "roc": "ROC curves of every cell",
    "confusion": "Confusion matrices of every cell",
    "curves": "Learning curves of all runs",
}


def write_results(out: Path, results: Json) -> None:
    """Write ``results.md``, ``report.html`` and ``plots/*`` (PNG and SVG), each whole or not at all.

    Raises:
        UserError: a file cannot be written.
    """
    drawn = draw_results(out / "plots", results)
    markdown, html = texts(results, out / "plots", drawn)
    write_atomic(out / "results.md", markdown.encode("utf-8", errors="replace"))
    write_atomic(out / "report.html", html.encode("utf-8", errors="replace"))


def texts(results: Json, plots: Path, drawn: Sequence[str]) -> tuple[str, str]:
    """``results.md`` and ``report.html``, with the pictures named in ``drawn`` from the folder ``plots``."""
    blocks = list(sections(results))
    return as_markdown(blocks), page("Comparison of runs", _html(blocks, plots, drawn))


def figures(results: Json) -> Iterator[tuple[str, str, Figure]]:
    """Name, world and figure of every picture that these results have; pictures of a second world end in ``-2``."""
    score = str(results["score"])
    for number, world in enumerate(results["worlds"]):
        end = f"-{number + 1}" if number else ""
        cells = [cell for cell in results["cells"] if cell["world"] == world]
        families = [family for family in results["families"] if family["world"] == world]
        if families:
            yield f"forest{end}", world, forest_figure(families, score)
            friedman = families[0]["comparison"]["friedman"]
            ranks = ranks_figure(friedman, int(friedman["blocks"]))
            if ranks is not None:
                yield f"ranks{end}", world, ranks
        if has_value(cells):
            yield f"heat_map{end}", world, heat_figure(cells, score)
            yield f"cost{end}", world, cost_figure(cells, score)
        decisions = [about for about in results["decisions"] if about["world"] == world]
        if decisions:
            yield f"roc{end}", world, roc_cells_figure(decisions)
            yield f"confusion{end}", world, confusion_cells_figure(decisions)
        curves = [curve for curve in results["curves"] if curve["world"] == world]
        if curves:
            yield f"curves{end}", world, curves_figure(curves, cells)


def draw_results(folder: Path, results: Json) -> list[str]:
    """Draw every picture below ``folder``; pictures of an earlier comparison there are taken away."""
    names = []
    for name, _, figure in figures(results):
        save_picture(figure, folder / name)
        names.append(name)
    for stem in PICTURES:
        for path in [*folder.glob(f"{stem}.*"), *folder.glob(f"{stem}-*.*")]:
            if path.stem not in names and path.suffix in (".png", ".svg"):
                path.unlink()
    return names


def _html(blocks: Sequence[Block], plots: Path, drawn: Sequence[str]) -> str:
    """One card a heading of the first order; pictures stand where their names do."""
    cards: list[tuple[str, list[str]]] = []
    for block in blocks:
        if isinstance(block, Heading) and block.depth < 3:
            cards.append((block.text, []))
        else:
            cards[-1][1].append(_block(block, plots, drawn))
    (title, first), *rest = cards
    header = f"<header><h1>{escape(title)}</h1>{''.join(first)}</header>"
    return "\n".join([header, *(section(name, "".join(parts)) for name, parts in rest if any(parts))])


def _block(block: Block, plots: Path, drawn: Sequence[str]) -> str:
    if isinstance(block, TextTable):
        return _table(block)
    if isinstance(block, Folded):
        return f"<details><summary>{escape(block.title)}</summary>{_table(block.table)}</details>"
    if isinstance(block, Heading):
        return f"<h3>{escape(block.text)}</h3>"
    if isinstance(block, Label):
        return paragraph(block.text, "label")
    if isinstance(block, Listed):
        return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in block.texts)}</ul>"
    if isinstance(block, Shell):
        return f"<pre>{escape(block.text)}</pre>"
    if isinstance(block, Lines):
        return "".join(paragraph(text, block.kind) for text in block.texts)
    shown = [name for name in drawn if name in block.names]
    return "".join(picture(plots / f"{name}.png", PICTURES[name.split("-")[0]], full=True) for name in shown)


def _table(found: TextTable) -> str:
    head = [escape(text) for text in found.head]
    rows = [row(escape(cells[0]), [escape(text) for text in cells[1:]]) for cells in found.rows]
    marked = any(
        f"[{number + 1}]" in cell for number in range(len(found.notes)) for r in found.rows for cell in r
    )
    notes = [f"[{number + 1}] {note}" if marked else note for number, note in enumerate(found.notes)]
    below = f'<p class="small">{"<br>".join(escape(note) for note in notes)}</p>' if notes else ""
    return table(head, rows, below)
