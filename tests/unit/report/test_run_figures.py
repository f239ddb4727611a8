"""Figures of a run: against scikit-learn and by hand, whole in every format, with hostile names."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from factories.report_runs import made_up_run, made_up_table, many_cases
from histo_lightning.data.breakhis.names import SUBTYPES
from histo_lightning.errors import UserError
from histo_lightning.evaluation import Table
from histo_lightning.evaluation.levels import units
from histo_lightning.report.figures.cases import (
    case_figure,
    case_order,
    confusion_figure,
    worst_figure,
    worst_images,
)
from histo_lightning.report.figures.curves import (
    GRID,
    band,
    curve_figure,
    precision_recall_figure,
    precision_recall_points,
    read_history,
    reliability_bins,
    reliability_figure,
    roc_figure,
)
from histo_lightning.report.run_page import draw_plots, part_figures
from histo_lightning.report.style import save_picture, shown
from histo_lightning.runs import read_json

DRAWN = ("roc", "cases", "confusion", "precision_recall", "reliability")  # of each part


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished binary run with its plots."""
    run = made_up_run(tmp_path_factory.mktemp("runs") / "plain", draws=400)
    draw_plots(run)
    return run


def lines_of(figure: Figure, panel: int = 0) -> dict[str, tuple[Any, Any]]:
    return {str(line.get_label()): line.get_data() for line in figure.axes[panel].get_lines()}


def test_all_pictures_are_written_whole_and_the_same_each_time(plain: Path) -> None:
    files = sorted((plain / "plots").iterdir())
    expected = {f"{name}_{part}" for name in DRAWN for part in ("val", "test")} | {"loss", "accuracy"}
    assert {path.name for path in files} == {f"{name}.png" for name in expected}  # and no temporary file
    before = [path.read_bytes() for path in files]
    for path in files:
        with Image.open(path) as picture:
            picture.load()
            assert picture.info["dpi"][0] == pytest.approx(150, abs=0.1)
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20, f"{path.name} is blank"
    assert sorted(draw_plots(plain)) == files
    assert [path.read_bytes() for path in files] == before


@pytest.mark.parametrize("quantity", ["loss", "accuracy"])
def test_curves_show_the_table(plain: Path, quantity: str) -> None:
    history = read_history(plain / "history.csv")
    lines = lines_of(curve_figure(history, quantity, best_epoch=12, baseline=0.7))
    rows = np.genfromtxt(plain / "history.csv", delimiter=",", names=True)
    for part, label in (("train", "train set"), ("val", "validation set")):
        x, y = lines[label]
        assert x.tolist() == list(range(1, 21))
        assert y.tolist() == rows[f"{part}_{quantity}"].tolist()
    assert list(lines["epoch 13 (scored)"][0]) == [13, 13]
    (mark,) = [data for data in lines.values() if len(data[0]) == 1]
    assert (mark[0][0], mark[1][0]) == (13, rows[f"val_{quantity}"][12])
    assert list(lines['always "malignant"'][1]) == [0.7, 0.7]


def test_undefined_values_are_gaps_and_one_epoch_is_a_point(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "one", epochs=1, only="malignant", test=False, draws=100)
    history = read_history(run / "history.csv")
    assert np.isnan(history["val_auroc"]).all()
    figure = curve_figure(history, "loss", 0)
    assert lines_of(figure)["train set"][0].tolist() == [1]
    assert [line.get_marker() for line in figure.axes[0].get_lines()][:2] == ["o", "o"]
    names = ["loss", "accuracy", *(f"{name}_val" for name in DRAWN)]
    assert [path.name for path in draw_plots(run)] == [f"{name}.png" for name in names]


def test_roc_curves_equal_scikit_learns(plain: Path) -> None:
    table = made_up_table("test")
    scores = read_json(plain / "metrics.json")["test"]
    lines = lines_of(roc_figure(table, scores))
    cases = sorted(set(table.case.tolist()))
    members = [table.case == case for case in cases]
    levels = {
        "image": (table.malignant, table.p_malignant),
        "case": (
            np.array([table.malignant[here][0] for here in members]),
            np.array([table.p_malignant[here].mean() for here in members]),
        ),
    }
    for level, (truth, p) in levels.items():
        (label,) = [name for name in lines if f"{len(truth)} {level}s" in name]
        assert f"area {roc_auc_score(truth, p):.2f}" in label
        x, y, _ = roc_curve(truth, p, drop_intermediate=False)
        np.testing.assert_allclose(lines[label], (x, y))
    case = scores["case"]["auroc"]
    assert any(f"({case['low']:.2f} to {case['high']:.2f})" in label for label in lines)


def test_tied_probabilities_make_one_slanted_piece() -> None:
    table = made_up_table("test")
    tied = table.rows(np.arange(len(table)))
    tied.p_malignant[:] = np.round(tied.p_malignant, 1)
    (image, *_) = lines_of(roc_figure(tied, {})).values()
    x, y, _ = roc_curve(tied.malignant, tied.p_malignant, drop_intermediate=False)
    np.testing.assert_allclose(image, (x, y))
    assert np.trapezoid(image[1], image[0]) == pytest.approx(roc_auc_score(tied.malignant, tied.p_malignant))


def test_roc_of_one_class_or_of_unknown_cases() -> None:
    empty = roc_figure(made_up_table("test", only="malignant"), {})
    assert [text.get_text() for text in empty.axes[0].texts] == ["No curve: only malignant cases here."]
    assert empty.axes[0].get_lines() == []
    unnamed = lines_of(roc_figure(made_up_table("test", named=False), {}))
    assert len(unnamed) == 2  # images and chance, no case curve
    assert not any("case" in label for label in unnamed)


def cells_of(figure: Figure, panel: int) -> list[str]:
    return [text.get_text() for text in figure.axes[panel].texts]


def test_confusion_matrices_equal_scikit_learns() -> None:
    table = made_up_table("test")
    figure = confusion_figure(table)
    expected = confusion_matrix(table.label, table.predicted)
    shares = 100 * expected / expected.sum(axis=1, keepdims=True)
    told = [f"{n}\n{share:.0f} %" for n, share in zip(expected.ravel(), shares.ravel(), strict=True)]
    assert cells_of(figure, 0) == told
    assert sum(int(cell.split("\n")[0]) for cell in cells_of(figure, 1)) == 14
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [f"{len(table)} images\ntest set", "14 cases\ntest set"]


def test_confusion_of_subtypes_and_of_a_missing_class() -> None:
    table = made_up_table("test", "subtype")
    figure = confusion_figure(table)
    assert len(figure.axes) == 1
    expected = confusion_matrix(table.label, table.predicted, labels=range(8))
    cells = cells_of(figure, 0)
    assert cells[:8] == ["none here"] * 8  # no adenosis in this part
    assert [int(cell.split("\n")[0]) for cell in cells[8:]] == expected[1:].ravel().tolist()
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == list(SUBTYPES)
    single = confusion_figure(made_up_table("val", only="malignant"))
    assert cells_of(single, 0)[:2] == ["none here"] * 2
    assert len(confusion_figure(made_up_table("val", named=False)).axes) == 1


def svg_texts(path: Path) -> list[str]:
    """All texts of an SVG; raises where it is no XML."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return ["".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")]


def test_other_formats_on_request(tmp_path: Path) -> None:
    """The text of an SVG is text; the same figure gives the same bytes in every format."""
    table, formats = made_up_table("test"), ("png", "svg", "pdf")
    paths = save_picture(case_figure(table, 0.4), tmp_path / "name.with.dots", formats)
    assert [path.name for path in paths] == [f"name.with.dots.{kind}" for kind in formats]
    again = save_picture(case_figure(table, 0.4), tmp_path / "again", formats)
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    texts = svg_texts(paths[1])
    for case in np.unique(table.case):
        assert f"{case} ({(table.case == case).sum()})" in texts
    assert b"<dc:date>" not in paths[1].read_bytes()
    assert paths[2].read_bytes().startswith(b"%PDF")


def members_by_case(table: Table) -> tuple[list[str], np.ndarray, np.ndarray]:
    cases = sorted(set(table.case.tolist()))
    truth = np.array([table.malignant[table.case == case][0] for case in cases])
    return cases, truth, np.array([table.p_malignant[table.case == case].mean() for case in cases])


def test_precision_recall_curves_equal_scikit_learns(plain: Path) -> None:
    table = made_up_table("test")
    table.p_malignant[::3] = np.round(table.p_malignant[::3], 1)  # some ties
    lines = lines_of(precision_recall_figure(table, read_json(plain / "metrics.json")["test"], draws=100))
    _, truth, p = members_by_case(table)
    for level, t, score in (("image", table.malignant, table.p_malignant), ("case", truth, p)):
        (label,) = [name for name in lines if f"{len(t)} {level}s" in name]
        precision, recall, _ = precision_recall_curve(t, score)
        # scikit-learn runs from every unit called malignant to none.
        np.testing.assert_allclose(lines[label], (recall[::-1], precision[::-1]))
        assert f"AUPRC {average_precision_score(t, score):.2f}" in label
        assert f"chance: {t.mean():.2f} of the {level}s are malignant" in lines
        x, y = precision_recall_points(t, score)
        assert float(np.sum(np.diff(x) * y[1:])) == pytest.approx(average_precision_score(t, score))


@pytest.mark.parametrize("kind", ["roc", "precision_recall"])
def test_bands_are_a_bootstrap_over_cases(kind: str) -> None:
    """Against whole cases drawn by hand, with scikit-learn's curves; only the generator is shared."""
    table = many_cases(12, 6, 5)
    here = units(table, "image")
    low, high = band(here, kind, draws=200)  # type: ignore[misc]
    random = np.random.default_rng(11)
    rows = {c: np.flatnonzero(table.case == c) for c in np.unique(table.case)}
    by_class = [[c for c in rows if table.malignant[rows[c][0]] == k] for k in (0, 1)]
    curves = []
    for _ in range(400):
        drawn = np.concatenate([rows[c] for cases in by_class for c in random.choice(cases, len(cases))])
        t, p = table.malignant[drawn], table.p_malignant[drawn]
        if kind == "roc":
            x, y, _ = roc_curve(t, p, drop_intermediate=False)
            curves.append(np.interp(GRID, x, y))
        else:
            y, x, _ = precision_recall_curve(t, p)
            curves.append([y[:-1][x[:-1] >= r - 1e-12][-1] for r in GRID])
    expected = np.quantile(curves, [0.025, 0.975], axis=0)
    assert np.abs(np.array([low, high]) - expected).mean() < 0.03
    assert (low <= high).all()
    again = band(here, kind, draws=200)
    np.testing.assert_array_equal(again, (low, high))
    images_alone = replace(table, case=np.array([f"c{i}" for i in range(len(table))]))
    narrow = band(units(images_alone, "image"), kind, draws=200)
    assert (high - low).mean() > 1.3 * (narrow[1] - narrow[0]).mean()  # type: ignore[operator]


def test_why_there_is_no_band() -> None:
    few = roc_figure(made_up_table("test"), {}, draws=50)
    assert few.legends[0].get_title().get_text() == "No band: fewer than 5 cases of a class here (3 benign)."
    assert not few.axes[0].collections
    unknown = precision_recall_figure(made_up_table("test", named=False), {}, draws=50)
    assert "GROUPING UNKNOWN" in unknown.legends[0].get_title().get_text()
    drawn = roc_figure(many_cases(images=2), {}, draws=50)
    assert len(drawn.axes[0].collections) == 2
    assert "Bands: pointwise 95 %, 50 draws of cases." in drawn.legends[0].get_title().get_text()
    eight = roc_figure(made_up_table("test", "subtype"), {}, draws=50)
    assert "eight subtypes as malignant or benign" in eight.axes[0].get_title(loc="left")


def test_reliability_bins_by_hand() -> None:
    p = np.array([0.95, 0.1, 0.2, 0.9, 0.3, 0.4, 0.6, 0.7, 0.15, 0.5])
    table = many_cases(5, 5, 1)
    table = replace(table, p_malignant=p)  # rows 0 to 4 are malignant
    bins = reliability_bins(units(table, "image"))
    order = np.argsort(p).reshape(5, 2)  # ten units: five bins of two
    np.testing.assert_allclose(bins.p, p[order].mean(axis=1))
    assert bins.malignant.tolist() == [(pair < 5).sum() for pair in order]
    np.testing.assert_allclose(bins.share, (order < 5).mean(axis=1))
    tied = reliability_bins(units(replace(table, p_malignant=np.full(10, 0.25)), "image"))
    assert (tied.p.tolist(), tied.share.tolist(), tied.units.tolist()) == ([0.25], [0.5], [10])


def test_the_reliability_diagram_before_and_after_the_temperature() -> None:
    table = made_up_table("test")
    figure = reliability_figure(table, {"temperature": 2.0})
    for panel, level in enumerate(("image", "case")):
        lines = lines_of(figure, panel)
        before = reliability_bins(units(table, level))
        np.testing.assert_allclose(lines["as the network says (T = 1)"], (before.p, before.share))
        halved = 1 / (1 + np.exp(-(table.logits[:, 1] - table.logits[:, 0]) / 2))
        after = reliability_bins(units(replace(table, p_malignant=halved), level))
        np.testing.assert_allclose(lines["after temperature T = 2.00"], (after.p, after.share))
    assert len(lines_of(reliability_figure(table, None))) == 2
    assert "after temperature T = 2.00 (fitted here)" in lines_of(
        reliability_figure(made_up_table("val"), {"temperature": 2.0})
    )
    single = reliability_figure(made_up_table("test", only="malignant"), None)
    assert [text.get_text() for text in single.axes[0].texts] == ["No diagram: only malignant cases here."]
    assert len(reliability_figure(made_up_table("test", named=False), None).axes) == 1


def test_the_strip_plot_holds_every_case_and_image() -> None:
    table = many_cases()
    figure = case_figure(table, 0.31)
    axes = figure.axes[0]
    cases, truth, p = members_by_case(table)
    order = case_order(table)
    assert sorted(order) == cases
    known = dict(zip(cases, zip(truth, p, strict=True), strict=True))
    assert order == sorted(cases, key=lambda case: (known[case][0], known[case][1]))
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"{case} (9)" for case in order]
    points = {c.get_label(): np.asarray(c.get_offsets()) for c in axes.collections}
    assert points.keys() == {"benign image", "malignant image"}
    for truth_index, name in enumerate(("benign image", "malignant image")):
        members = table.malignant == truth_index
        np.testing.assert_allclose(points[name][:, 0], table.p_malignant[members])
        rows = [order.index(case) for case in table.case[members]]
        assert np.abs(points[name][:, 1] - rows).max() < 0.3
    lines = lines_of(figure)
    np.testing.assert_allclose(lines["mean of the case"][0], [known[case][1] for case in order])
    assert list(lines["stored threshold 0.310"][0]) == [0.31, 0.31]
    assert "threshold 0.5" in lines
    assert figure.get_figheight() < 15
    crowd = case_figure(many_cases(300, 100, 1), None)
    assert crowd.get_figheight() < 17
    assert len(crowd.axes[0].get_yticks()) == 0
    unknown = case_figure(made_up_table("test", named=False), 0.5)
    assert [text.get_text() for text in unknown.axes[0].texts] == [
        "Not drawn: the cases of some images are unknown."
    ]


def test_a_second_process_draws_the_same_pictures(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", draws=100, epochs=2)
    draw_plots(run)
    alone = {path.name: path.read_bytes() for path in (run / "plots").iterdir()}
    shutil.rmtree(run / "plots")
    own = {path.name for path in draw_plots(run, fork=True)}
    assert {path.name: path.read_bytes() for path in (run / "plots").iterdir()} == alone
    others = {name for name in alone if name.endswith("_val.png")}
    assert own == alone.keys() - (others if sys.platform == "linux" else set())


def test_the_worst_errors(tmp_path: Path) -> None:
    table = made_up_table("test")
    loss = -np.log(np.where(table.malignant == 1, table.p_malignant, 1 - table.p_malignant))
    rows = worst_images(table)
    np.testing.assert_allclose(loss[rows], np.sort(loss)[::-1][:12])
    asked: list[str] = []

    def read(path: str) -> np.ndarray | None:
        asked.append(path)
        return None if len(asked) == 2 else np.full((460, 700, 3), 90, np.uint8)

    figure = worst_figure(table, read)
    assert asked == table.path[rows].tolist()
    titles = [axes.get_title() for axes in figure.axes]
    for title, row in zip(titles, rows, strict=True):
        truth = "malignant" if table.malignant[row] else "benign"
        assert title.startswith(f"{table.case[row]}, {table.subtype[row]}, 100X")
        assert title.endswith(f"{truth}, P(mal.) {table.p_malignant[row]:.3f}")
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["not readable"]
    assert len(worst_figure(table.rows(np.arange(2)), read).axes) == 3
    eight = made_up_table("test", "subtype")
    p = np.exp(eight.logits) / np.exp(eight.logits).sum(axis=1, keepdims=True)
    own = -np.log(p[np.arange(len(p)), eight.label])
    np.testing.assert_allclose(own[worst_images(eight)], np.sort(own)[::-1][:12])
    assert "called" in worst_figure(eight, read).axes[0].get_title()
    run = made_up_run(tmp_path / "run", draws=100, epochs=2)
    first = [
        path.read_bytes() for path in draw_plots(run, read_image=lambda _: np.full((46, 70, 3), 90, np.uint8))
    ]
    again = draw_plots(run, read_image=lambda _: np.full((46, 70, 3), 90, np.uint8))
    names = [path.name for path in again]
    assert [name for name in names if name.startswith("worst")] == ["worst_test.png", "worst_val.png"]
    assert [path.read_bytes() for path in again] == first
    with pytest.raises(UserError, match="has not been scored"):
        draw_plots(tmp_path, read_image=read)


def test_hostile_names_in_pictures(tmp_path: Path) -> None:
    names = ["<script>&\"'", "$x^2$ \\frac", "\x00\x1b[0m\uffff", "\u6f22\u5b57", "a" * 300, "b" * 300]
    table = many_cases(3, 3, 4)
    table = replace(table, case=np.array(names)[np.repeat(np.arange(6), 4)])
    for number, figure in enumerate([case_figure(table, 0.5), worst_figure(table, lambda _: None)]):
        _, svg = save_picture(figure, tmp_path / str(number), ("png", "svg"))
        told = " ".join(svg_texts(svg))
        for name in ("<script>&\"'", "$x^2$ \\frac", "\u6f22\u5b57"):
            assert (f"{name} (4)" if number == 0 else name) in told
    assert len(shown("a" * 300)) < 30
    assert shown("a" * 28) == "a" * 28


@pytest.mark.parametrize("rows", [slice(0, 1), slice(0, 40)])
def test_a_shortened_run_s_few_images_of_one_class_are_drawn(rows: slice) -> None:
    table = made_up_table("test").rows(np.arange(2000)[rows])
    assert len(np.unique(table.malignant)) == 1
    names = [name for name, figure in part_figures(table, {}, 0.4, {"temperature": 2.0}, None) if figure.axes]
    assert names == list(DRAWN)
