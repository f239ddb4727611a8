"""The pages and figures of a comparison, from its record alone."""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from factories.html import Page
from histo_lightning.report.comparison_page import figures, texts, write_results
from histo_lightning.report.comparison_words import (
    between,
    main_table,
    missing_folds,
    p_text,
    problem_texts,
    quantity,
    size,
    summary,
)
from histo_lightning.report.figures.comparison import (
    confusion_cells_figure,
    cost_figure,
    curves_figure,
    forest_figure,
    heat_figure,
    ranks_figure,
    roc_cells_figure,
)
from histo_lightning.report.words import SYNTHETIC

Json = dict[str, Any]
ALL = ["forest", "ranks", "heat_map", "cost", "roc", "confusion", "curves"]


@pytest.fixture(scope="module")
def written(depths: Json, tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, str, Path]:
    """The page, the Markdown and the folder of a comparison."""
    out = tmp_path_factory.mktemp("answer")
    write_results(out, depths)
    return Page(out / "report.html"), (out / "results.md").read_text(encoding="utf-8"), out


def test_the_page_is_one_file_and_the_answer_is_first(depths: Json, written: tuple[Page, str, Path]) -> None:
    page, text, out = written
    assert page.is_self_contained()
    (pair,) = depths["families"][0]["comparison"]["pairs"]
    assert page.text.startswith(
        f"Comparison: model, AUROC by case SYNTHETIC IMAGES: says nothing about tissue {pair['words']} Primary: the one comparison"
    )
    assert text.startswith("# Comparison: model, AUROC by case\n\n")
    assert pair["words"] in text
    assert len(page.images) == 7
    assert sorted(path.name for path in (out / "plots").iterdir()) == sorted(f"{name}.png" for name in ALL)
    assert "![Differences with their intervals](plots/forest.png)" in text


def test_page_and_markdown_have_the_same_tables(depths: Json, written: tuple[Page, str, Path]) -> None:
    page, text, _ = written
    for cell in depths["cells"]:
        value = f"{cell['value']:.3f} ({cell['low']:.2f} to {cell['high']:.2f})"
        assert value in text
        assert value.replace("(", "").replace(")", "") in page.row(cell["arm"])
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) == len(page.rows)
    assert "(simultaneous 95 % interval" in text
    for words in (
        "What a reader needs to trust this", "before the first job started", "The plan file has not been changed since",
        "Friedman over 5 folds", "Descriptive", "16 benign and 54 malignant cases",
        "The test set was read 40 time(s) in 40 runs", "Selection: largest mean validation case auroc",
        "variance factor 0.533", "train loss reached",
    ):  # fmt: skip
        assert words in page.text, words
        assert words in text, words
    assert not re.search(r"\b(equal to|best depth|patient-level|stands|world)\b", page.text)
    assert not re.search(r"\n\n\n|Undefined", text)


def test_every_run_beside_the_page_is_linked(one_fold: tuple[Path, Json]) -> None:
    folder, record = one_fold
    done = next(folder.glob("resnet18_sgd_40x*"))
    (done / "report.html").write_text("")
    write_results(folder, record)
    page = Page(folder / "report.html")
    runs = [path.name for path in folder.iterdir() if (path / "status.json").is_file()]
    assert len(runs) == 9
    assert sorted(page.links) == sorted(
        [*(run for run in runs if run != done.name), f"{done.name}/report.html"]
    )
    assert "no_luck" in page.links
    assert "<b>boom</b>" in page.text
    elsewhere = Page(texts(record, folder / "other" / "plots", [])[1])
    assert elsewhere.links == []


def test_missing_folds_are_said_once_with_what_to_add(one_fold: tuple[Path, Json]) -> None:
    folder, record = one_fold
    markdown, html = texts(record, folder / "plots", [])
    assert missing_folds(record["cells"])
    advice = "run every fold: repeat the command with split.fold=0,1,2,3,4 added."
    page = Page(html)
    told = page.text.split(advice)[0]
    assert told.count("No comparison:") == 1
    assert "cells: folds 1, 2, 3, 4 are missing (no such run)" in told
    assert page.text.count("folds 1, 2, 3, 4 are missing") <= 4  # headline, table, reasons; twelve problems
    assert advice in markdown
    assert main_table(record["cells"], "case_auroc").notes


def test_said_once() -> None:
    problems = ["a 40x: no run", "b: no run", "c: other", "alone"]
    assert list(dict.fromkeys(problem_texts(problems).values())) == ["2 cells: no run", "c: other", "alone"]
    nothing = {
        "families": [],
        "refusals": [{"reasons": ["only resnet18 was run"]}],
        "cells": [],
        "data": None,
    }
    nothing["runs"] = {"found": 1, "finished": 0, "failed": 1}
    assert summary(nothing)["conclusions"] == ["No comparison: only resnet18 was run."]
    assert summary(nothing)["runs"] == "1 run: 1 failed."


def test_drawn_images_are_labelled(depths: Json, tmp_path: Path) -> None:
    markdown, html = texts(depths | {"data": "synthetic"}, tmp_path, [])
    page = Page(html)
    assert page.labels == [SYNTHETIC]
    assert page.title.startswith(SYNTHETIC)
    assert f"> **{SYNTHETIC}**" in markdown


def test_a_changed_plan_and_a_late_one_are_said(depths: Json, tmp_path: Path) -> None:
    (plan,) = depths["plans"]
    late = plan | {"untouched": False, "came_first": False, "earlier": [{"hash": "ab", "created": "then"}]}
    text, html = texts(depths | {"plans": [late]}, tmp_path, [])
    for words in (
        "AFTER the first job had started",
        "does NOT have the hash",
        "An earlier plan in this folder",
    ):
        assert words in Page(html).text
        assert words in text
    assert "every comparison here is exploratory" in texts(depths | {"plans": []}, tmp_path, [])[0]


def test_numbers_of_a_comparison_in_words() -> None:
    assert size(0.0123, "case_auroc") == "1.2"
    assert size(0.0123, "image_log_loss") == "0.0123"
    assert between(-0.01, 0.02, "case_auroc").split() == ["−1.0", "to", "+2.0"]
    assert between(None, 0.02, "case_auroc") == "no interval"
    assert [p_text(p) for p in (None, 0.0001, 0.25)] == ["–", "< 0.001", "0.250"]
    assert [quantity(v) for v in (None, 0, 950, 11_177_538, 2.5e9)] == ["–", "–", "950", "11.2 M", "2.5 G"]


def test_no_flops_of_zero(depths: Json, tmp_path: Path) -> None:
    cells = [cell | {"flops": 0} for cell in depths["cells"]]
    page = Page(texts(depths | {"cells": cells}, tmp_path, [])[1])
    (head,) = [row for row in page.rows if "FLOPs, forward" in row]
    rows = [row for row in page.rows if len(row) == len(head) and row[1] == "11.2 M"]
    assert {row[2] for row in rows} == {"–"}


# --- figures -----------------------------------------------------------------------------------------------------


def test_every_figure_holds_all_it_says(depths: Json, crossed: Json, one_fold: tuple[Path, Json]) -> None:
    """Nothing is cut off at a figure's edge, with many settings and with many magnifications."""
    for record in (depths, crossed, one_fold[1]):
        for name, figure in figures(record):
            canvas: Any = FigureCanvasAgg(figure)
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # matplotlib warns where a layout has no room
                canvas.draw()
            box = figure.get_tightbbox(canvas.get_renderer())
            width, height = figure.get_size_inches()
            assert min(box.x0, box.y0) >= 0, (name, box)
            assert max(box.x1 - width, box.y1 - height) <= 0, (name, box)
    assert [name for name, _ in figures(depths)] == ALL


def test_the_forest_has_a_line_for_each_difference(crossed: Json) -> None:
    figure = forest_figure(crossed["families"], "case_auroc")
    pairs = [pair for family in crossed["families"] for pair in family["comparison"]["pairs"]]
    points = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in points] == pytest.approx(
        [100 * pair["difference"] for pair in pairs]
    )
    lines = [line.get_xdata() for line in figure.axes[0].lines if line.get_linewidth() == 3.4]
    bars = [tuple(line) for line in lines if len(line)]
    assert bars == [(100 * pair["low"], 100 * pair["high"]) for pair in pairs if pair["low"] is not None]


def test_no_point_is_moved_on_the_axis_of_costs(crossed: Json) -> None:
    """Twelve cells of two sizes: every point is where its own number of parameters is."""
    figure = cost_figure(crossed["cells"], "case_auroc")
    lines = [
        line for line in figure.axes[0].lines if line.get_marker() != "_"
    ]  # without the ends of intervals
    drawn = [line.get_xdata()[0] for line in lines if len(line.get_xdata())]
    assert drawn == [cell["parameters"] for cell in crossed["cells"]]
    nothing = cost_figure([cell | {"parameters": None} for cell in crossed["cells"]], "case_auroc")
    assert "no parameters" in nothing.axes[0].texts[0].get_text()


def test_the_heat_map_has_one_scale_whatever_the_values(depths: Json) -> None:
    def limits(score: str) -> tuple[float, float]:
        scale = heat_figure(depths["cells"], score).axes[0].images[0].norm
        return float(scale.vmin or 0), float(scale.vmax or 0)

    assert limits("case_auroc") == (0.5, 1.0)
    assert limits("image_brier") == (0.0, 0.25)
    assert limits("case_f1") == (0.0, 1.0)
    texts = [text.get_text() for text in heat_figure(depths["cells"], "case_auroc").axes[0].texts]
    assert texts == [f"{cell['value']:.3f}" for cell in depths["cells"]]


def test_mean_ranks_with_the_critical_difference() -> None:
    figure = ranks_figure({"mean_ranks": {"a": 1.2, "b": 1.8}, "critical_difference": 0.88, "blocks": 5})
    assert isinstance(figure, Figure)
    bars = [tuple(line.get_xdata()) for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    assert bars == [pytest.approx((1.36, 2.24)), pytest.approx((0.76, 1.64))]
    assert ranks_figure({"reason": "one fold"}) is None


def test_many_cells_are_drawn_on_one_page_and_the_rest_is_counted(depths: Json) -> None:
    many = [cell | {"level": f"level {n}"} for n in range(7) for cell in depths["decisions"]]
    for draw in (roc_cells_figure, confusion_cells_figure):
        figure = draw(many)
        assert len(figure.axes) == 24
        assert "(the first 24 of 28 cells)" in figure.get_suptitle().replace("\n", " ")
    counts = np.array(depths["decisions"][0]["image"]["confusion"])
    cases = np.array(depths["decisions"][0]["case"]["confusion"])
    written = [text.get_text().split("\n") for text in confusion_cells_figure(many).axes[0].texts]
    assert [int(lines[0]) for lines in written] == counts.ravel().tolist()
    assert [lines[2] for lines in written] == [f"({count})" for count in cases.ravel()]
    one_class = depths["decisions"][0] | {"image": {"roc": None}, "case": {"roc": None}}
    assert roc_cells_figure([one_class]).axes[0].texts[0].get_text() == "no fold with both classes"


def test_curves_have_a_panel_for_each_setting_on_the_scale_of_the_means(crossed: Json) -> None:
    (figure,) = [figure for name, figure in figures(crossed) if name == "curves"]
    assert len(figure.axes) == 12
    arm = "freeze_backbone=true resnet101 lr=0.02"
    losses = [curve["val_loss"] for curve in crossed["curves"] if curve["arm"] == arm]
    assert len(losses) == 5
    panels = [axes for axes in figure.axes if axes.get_title(loc="left").endswith("40x, validation loss")]
    means = [line.get_ydata() for axes in panels for line in axes.lines if line.get_linewidth() > 1]
    expected = np.mean(losses, axis=0)
    assert any(len(mean) == len(expected) and np.allclose(mean, expected) for mean in means)
    assert len({axes.get_ylim() for axes in figure.axes}) == 2


def test_the_mean_of_curves_ends_where_the_first_run_was_stopped(crossed: Json) -> None:
    """A mean over the runs that are left would jump whenever one stops early."""
    arm = crossed["cells"][0]["arm"]
    own = [curve for curve in crossed["curves"] if curve["arm"] == arm]
    short = [own[0] | {"val_loss": own[0]["val_loss"][:3]}, *own[1:]]
    cells = [cell for cell in crossed["cells"] if cell["arm"] == arm]
    below = curves_figure(short, cells).axes[1]
    (mean,) = [line.get_ydata() for line in below.lines if line.get_linewidth() > 1 and len(line.get_ydata())]
    assert np.allclose(mean, np.mean([curve["val_loss"][:3] for curve in own], axis=0))
    diverged = [own[0] | {"val_loss": [0.7, float("inf"), float("nan")]}, *own[1:]]
    assert 0 < curves_figure(diverged, cells).axes[1].get_ylim()[1] < 10
