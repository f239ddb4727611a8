"""``results.md``, ``report.html`` and ``plots/`` of a comparison: the answer of a sweep, or of any mix of runs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from histo_lightning.report import comparison_tables, comparison_words
from histo_lightning.report.figures.cells import confusion_cells_figure, curves_figure, roc_cells_figure
from histo_lightning.report.figures.comparison import cost_figure, forest_figure, heat_figure, ranks_figure
from histo_lightning.report.pages import picture, render_markdown, render_page
from histo_lightning.report.style import save_picture
from histo_lightning.report.tables import Table
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


def write_results(out: Path, results: Json, formats: Sequence[str] = ("png",)) -> None:
    """Write ``results.md``, ``report.html`` and ``plots/*``, each whole or not at all.

    Args:
        out: the folder; runs in it are linked.
        results: the comparison's record (the content of ``compare json=``, with ``curves`` and ``decisions``).
        formats: of the pictures; the page shows the PNG.

    Raises:
        UserError: a file cannot be written.
    """
    markdown, html = texts(results, out / "plots", draw_results(out / "plots", results, formats))
    write_atomic(out / "results.md", markdown.encode("utf-8", errors="replace"))
    write_atomic(out / "report.html", html.encode("utf-8", errors="replace"))


def texts(results: Json, plots: Path, drawn: Sequence[str]) -> tuple[str, str]:
    """``results.md`` and ``report.html``, with the pictures named in ``drawn`` from the folder ``plots``."""
    worlds = []
    for number, world in enumerate(results["worlds"]):
        own = {key: [one for one in results[key] if one["world"] == world] for key in ("cells", "families")}
        reasons = [text for one in results["refusals"] if one["world"] == world for text in one["reasons"]]
        pictures = {
            name: []
            if file not in drawn or (one := picture(plots / f"{file}.png", alt, f"plots/{file}.png")) is None
            else [one]
            for name, alt in PICTURES.items()
            for file in [f"{name}-{number + 1}" if number else name]
        }
        worlds.append({"name": world, "refused": reasons, "pictures": pictures, "number": number, **own})
    context = {
        "results": results,
        "worlds": worlds,
        "main": next((family for family in results["families"] if family["main"]), None),
        "tables": comparison_tables,
        "say": comparison_words,
        "title": f"Comparison: {results['factor']}, {comparison_words.score_title(results['score'])}",
    }
    runs = _run_table(results, plots.parent)
    markdown = render_markdown("comparison.md", runs=None, **context)
    return markdown, render_page("comparison.html", runs=runs, **context)


def figures(results: Json) -> Iterator[tuple[str, str, Figure]]:
    """Name, world and figure of every picture that these results have; pictures of a second world end in ``-2``."""
    score = str(results["score"])
    for number, world in enumerate(results["worlds"]):
        end = f"-{number + 1}" if number else ""
        cells, families, decisions, curves = (
            [one for one in results[key] if one["world"] == world]
            for key in ("cells", "families", "decisions", "curves")
        )
        if families:
            yield f"forest{end}", world, forest_figure(families, score)
            friedman = families[0]["comparison"]["friedman"]
            ranks = ranks_figure(friedman, int(friedman["blocks"]))
            if ranks is not None:
                yield f"ranks{end}", world, ranks
        basis = comparison_words.basis_of(cells)
        if any(cell[basis.key] is not None for cell in cells):
            yield f"heat_map{end}", world, heat_figure(cells, score)
            yield f"cost{end}", world, cost_figure(cells, score)
        if decisions:
            yield f"roc{end}", world, roc_cells_figure(decisions)
            yield f"confusion{end}", world, confusion_cells_figure(decisions)
        if curves:
            yield f"curves{end}", world, curves_figure(curves, cells)


def draw_results(folder: Path, results: Json, formats: Sequence[str] = ("png",)) -> list[str]:
    """Draw every picture below ``folder``; pictures of an earlier comparison there are taken away."""
    written: list[Path] = []
    for name, _, figure in figures(results):
        written += save_picture(figure, folder / name, formats)
    for stem in PICTURES:
        for path in [*folder.glob(f"{stem}.*"), *folder.glob(f"{stem}-*.*")]:
            if path not in written and path.suffix in (".png", ".svg", ".pdf"):
                path.unlink()
    return list(dict.fromkeys(path.stem for path in written))


def _run_table(results: Json, out: Path) -> Table | None:
    """Every run whose folder is beside the page, linked to its report."""
    rows = [[curve["run"], str(curve["arm"]), str(curve["magnification"])] for curve in results["curves"]]
    rows += [[str(run["run"]), str(run["state"]), ""] for run in results["unfinished"]]
    rows = sorted(row for row in rows if (out / row[0]).is_dir())
    links = {
        row[0]: f"{row[0]}/report.html" if (out / row[0] / "report.html").is_file() else row[0]
        for row in rows
    }
    return Table(["run", "setting", "magnification"], rows, align="lll", links=links) if rows else None
