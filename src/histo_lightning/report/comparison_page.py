"""``results.md``, ``report.html`` and ``plots/`` of a comparison: the answer of a sweep, or of any mix of runs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from histo_lightning.report import comparison_words as say
from histo_lightning.report.figures import comparison as draw
from histo_lightning.report.pages import picture, render_markdown, render_page
from histo_lightning.report.style import save_picture
from histo_lightning.report.tables import Table
from histo_lightning.report.words import Json
from histo_lightning.runs import write_atomic

PICTURES = ("forest", "ranks", "heat_map", "cost", "roc", "confusion", "curves")
PROTOCOL_KEYS = ("cells", "families", "decisions", "curves", "refusals")


def write_results(out: Path, results: Json, formats: Sequence[str] = ("png",)) -> None:
    """Write ``results.md``, ``report.html`` and ``plots/*`` of a comparison's record into ``out``, each whole or not at all."""
    plots, written = out / "plots", list[Path]()
    for name, figure in figures(results) if formats else ():
        written += save_picture(figure, plots / name, formats)
    for path in [path for stem in PICTURES for end in ("", "-*") for path in plots.glob(f"{stem}{end}.*")]:
        if path not in written and path.suffix in (".png", ".svg", ".pdf"):
            path.unlink()
    pages = texts(results, plots, [path.stem for path in written])
    for name, text in zip(("results.md", "report.html"), pages, strict=True):
        write_atomic(out / name, text.encode("utf-8", errors="replace"))


def texts(results: Json, plots: Path, drawn: Sequence[str]) -> tuple[str, str]:
    """``results.md`` and ``report.html``, with the pictures named in ``drawn`` from the folder ``plots``."""

    def pictures(suffix: str, titles: Mapping[str, str], *names: str) -> list[Any]:
        files = {f"{name}{suffix}": titles[name] for name in names if f"{name}{suffix}" in drawn}
        return [picture(plots / f"{file}.png", title, f"plots/{file}.png") for file, title in files.items()]

    context = {"results": results, "protocols": _protocols(results), "say": say, "pictures": pictures}
    # Every run whose folder is beside the page is linked to its report.
    rows = [[str(curve[key]) for key in ("run", "arm", "magnification")] for curve in results["curves"]]
    rows += [[str(run["run"]), str(run["state"]), ""] for run in results["unfinished"]]
    rows = sorted(row for row in rows if (plots.parent / row[0]).is_dir())
    reports = {run: f"{run}/report.html" for run, _, _ in rows}
    links = {run: page if (plots.parent / page).is_file() else run for run, page in reports.items()}
    runs = Table(["run", "setting", "magnification"], rows, align="lll", links=links) if rows else None
    page = render_page("comparison.html", runs=runs, **context)
    return render_markdown("comparison.md", runs=None, **context), page


def _protocols(results: Json) -> list[dict[str, Any]]:
    """What the results say of each protocol; the pictures of a second one end in ``suffix``, ``-2``."""
    return [
        {"name": name, "suffix": f"-{number + 1}" if number else ""}
        | {key: [one for one in results[key] if one["world"] == name] for key in PROTOCOL_KEYS}
        for number, name in enumerate(results["worlds"])
    ]


def figures(results: Json) -> Iterator[tuple[str, Figure]]:
    """File name and figure of every picture that these results have."""
    score = str(results["score"])
    for protocol in _protocols(results):
        cells, families, decisions, curves = (protocol[key] for key in PROTOCOL_KEYS[:4])
        suffix = protocol["suffix"]
        if families:
            yield f"forest{suffix}", draw.forest_figure(families, score)
            if (ranks := draw.ranks_figure(families[0]["comparison"]["friedman"])) is not None:
                yield f"ranks{suffix}", ranks
        if any(cell[say.basis_of(cells).key] is not None for cell in cells):
            yield f"heat_map{suffix}", draw.heat_figure(cells, score)
            yield f"cost{suffix}", draw.cost_figure(cells, score)
        if decisions:
            yield f"roc{suffix}", draw.roc_cells_figure(decisions)
            yield f"confusion{suffix}", draw.confusion_cells_figure(decisions)
        if curves:
            yield f"curves{suffix}", draw.curves_figure(curves, cells)
