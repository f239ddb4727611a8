"""Pictures and the report of a made-up run: from its tables alone, complete, escaped, self-contained."""

import base64
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from histo_lightning.callbacks.history import COLUMNS
from histo_lightning.data.breakhis.names import SUBTYPE_CLASS, SUBTYPES
from histo_lightning.errors import UserError
from histo_lightning.evaluation import Table, make_table, score_predictions, write_predictions
from histo_lightning.evaluation.intervals import wilson
from histo_lightning.evaluation.levels import units
from histo_lightning.evaluation.thresholds import fit_temperature, operating_point
from histo_lightning.report.case_picture import case_figure, case_order
from histo_lightning.report.contents import contents, in_words
from histo_lightning.report.figures import (
    confusion_figure,
    curve_figure,
    draw_plots,
    precision_recall_figure,
    read_history,
    roc_figure,
)
from histo_lightning.report.group_pictures import magnification_figure, subtype_figure, subtype_recalls
from histo_lightning.report.html import write_report
from histo_lightning.report.ranking_pictures import GRID, band, precision_recall_points
from histo_lightning.report.reliability_pictures import reliability_bins, reliability_figure
from histo_lightning.report.score_tables import score_table
from histo_lightning.report.style import new_figure, save_picture, shown
from histo_lightning.report.words import summary
from histo_lightning.report.worst_picture import draw_worst, worst_figure, worst_images
from histo_lightning.runs import read_json, write_atomic, write_json

DRAWN = ("roc", "confusion", "precision_recall", "reliability", "cases", "subtypes")  # of each part

# (subtype, slide number with section letters): the cases of each part; 22549AB and 22549CD are one case.
CASES = {
    "train": "A-22549AB A-22549CD F-14134 F-21998AB F-21998CD PT-22704 TA-16184 TA-3411F DC-2523 DC-2773 DC-3909 "
    "DC-4364 DC-5287 LC-12204 LC-15570 MC-10147 MC-12773 PC-15687B PC-9146 DC-11031 DC-13993",
    "val": "A-29960AB F-23222AB TA-15275 DC-14926 DC-15696 DC-16716 DC-17614 DC-17915 MC-13418DE PC-15704 LC-16196",
    "test": "F-9133 PT-29315EF TA-19854C DC-20629 DC-20636 DC-8168 DC-9461 MC-16456 MC-18842 MC-19979C PC-190EF "
    "LC-13412 DC-16448 DC-16875",
}


def made_up_table(
    part: str, task: str = "binary", *, named: bool = True, only: str = "", seed: int = 0
) -> Table:
    """Predictions of a part with case-wise difficulty; ``named=False``: names outside the grammar."""
    random = np.random.default_rng([seed, len(part)])
    rows: list[dict[str, Any]] = []
    logits = []
    classes = ("benign", "malignant") if task == "binary" else tuple(SUBTYPE_CLASS)
    for text in CASES[part].split():
        subtype, number = text.split("-")
        class_name = SUBTYPE_CLASS[subtype]
        if only and class_name != only:
            continue
        shift = random.normal(2.0 if part == "train" else 0.7, 1.4)
        for sequence in range(1, int(random.integers(8, 34))):
            name = f"SOB_{class_name[0].upper()}_{subtype}-14-{number}-100-{sequence:03d}.png"
            slide, case = f"{subtype}-14-{number}", "14-" + "".join(c for c in number if c.isdigit())
            rows.append(
                {
                    "image": name if named else f"picture {len(rows)}.png",
                    "path": f"some/{name}",
                    "class_name": class_name,
                    "subtype": subtype if named or task != "binary" else "",
                    "slide": slide if named else "",
                    "case": case if named else "",
                    "magnification": 100 if named else 0,
                }
            )
            right = classes.index(class_name if task == "binary" else subtype)
            row = random.normal(0, 1, len(classes))
            row[right] += shift
            logits.append(row)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return make_table(task, part=part, logits=np.array(logits), **columns)


def made_up_run(
    folder: Path,
    *,
    task: str = "binary",
    test: bool = True,
    named: bool = True,
    only: str = "",
    label: str = "",
    epochs: int = 20,
    kind: str = "case_kfold",
    notes: tuple[str, ...] = (),
    draws: int = 200,
) -> Path:
    """A run folder without a run: every table that the report reads."""
    parts = ("train", "val", "test") if test else ("train", "val")
    tables = {
        part: made_up_table(part, task, named=named, only="" if part == "train" else only)
        for part in ("train", "val", "test")
    }
    scores = {
        part: score_predictions(
            tables[part],
            intervals=part != "train",
            draws=draws,
            threshold=0.4 if part != "train" and draws > 300 else None,
        )
        if part in parts
        else None
        for part in tables
    }
    for part in parts[1:]:
        write_predictions(folder / "predictions" / f"{part}.csv", tables[part])
    random = np.random.default_rng(7)
    best = int(epochs * 0.6)
    lines = [",".join(COLUMNS)]
    for epoch in range(epochs):
        fall = np.exp(-epoch / 6)
        train, val = (
            0.15 + 0.5 * fall,
            0.33 + 0.3 * fall + 0.012 * max(0, epoch - best) + random.normal(0, 0.02),
        )
        cells = [
            epoch,
            1e-3 * fall,
            train,
            0.97 - 0.3 * fall,
            val,
            0.86 - 0.2 * fall + random.normal(0, 0.015),
        ]
        cells += [0.8, "" if only else 0.9, "" if only else 0.88, 412.5]
        lines.append(",".join(str(cell) for cell in cells))
    write_atomic(folder / "history.csv", "\n".join(lines) + "\n")
    facts = {
        "schema": 1,
        "best_epoch": best,
        "epochs": epochs,
        "train_seconds": 93.2,
        "monitor": "val_case_log_loss",
    }
    point = operating_point(tables["val"]) if only != "benign" else {"threshold": None, "reason": "none"}
    facts |= {"operating_point": point, "temperature": fit_temperature(tables["val"])}
    monitored = {"monitored": [0.7 * float(np.exp(-e / 9)) + 0.3 for e in range(epochs)]}
    write_json(folder / "metrics.json", facts | monitored | {"split": label} | scores)
    split = {"kind": kind, "label": label, "seed": 0, "fold": 1, "folds": 5, "repeat": 0, "group": "case"}
    split |= {"hash": "9f" * 32, "notes": list(notes)}
    images = {part: table.image.tolist() for part, table in tables.items()}
    cases = {part: sorted(set(table.case.tolist()) - {""}) for part, table in tables.items()}
    write_json(folder / "split.json", split | {"parts": images, "cases": cases})
    status = {
        "state": "finished",
        "error": None,
        "started": "2025-11-22T20:41:07+00:00",
        "seconds": 118.4,
        "versions": {"histo_lightning": "0.1.0", "python": "3.11.7", "torch": "2.15.0", "numpy": "2.3.5"},
        "git_commit": "2a13439c0ffee",
        "test_read": 1 if test else 0,
    }
    write_json(folder / "status.json", status)
    config = {
        "model": {"name": "resnet18", "stem": "standard"},
        "magnification": "100x",
        "task": task,
        "seed": 0,
    }
    config |= {"optimizer": {"name": "adamw", "lr": 1e-3}, "epochs": epochs, "dataset": {"name": "breakhis"}}
    write_atomic(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished binary run with its plots and report."""
    run = made_up_run(tmp_path_factory.mktemp("runs") / "plain", draws=400)
    draw_plots(run)
    write_report(run)
    return run


def lines_of(figure: Figure, panel: int = 0) -> dict[str, tuple[Any, Any]]:
    return {str(line.get_label()): line.get_data() for line in figure.axes[panel].get_lines()}


def text_of(page: str) -> str:
    """What a reader sees: the body without tags, white space collapsed."""
    body = page.split("<body>")[1]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


# --- pictures ----------------------------------------------------------------------------------------------------


def test_all_pictures_are_written_whole_and_the_same_each_time(plain: Path) -> None:
    found = sorted((plain / "plots").iterdir())
    expected = {f"{name}_{part}" for name in DRAWN for part in ("val", "test")} | {"loss", "accuracy"}
    # No temporary file either, and no magnifications: the run has one.
    assert {path.name for path in found} == {f"{name}.{kind}" for name in expected for kind in ("png", "svg")}
    before = [path.read_bytes() for path in found]
    for path in (path for path in found if path.suffix == ".png"):
        with Image.open(path) as picture:
            picture.load()
            assert picture.info["dpi"][0] == pytest.approx(150, abs=0.1)
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20, f"{path.name} is blank"
    assert sorted(draw_plots(plain)) == found
    assert [path.read_bytes() for path in found] == before


@pytest.mark.parametrize("quantity", ["loss", "accuracy"])
def test_curves_show_the_table(plain: Path, quantity: str) -> None:
    history = read_history(plain / "history.csv")
    lines = lines_of(curve_figure(history, quantity, best_epoch=12, baseline=0.7))
    rows = np.genfromtxt(plain / "history.csv", delimiter=",", names=True)
    for part, label in (("train", "training"), ("val", "validation")):
        x, y = lines[label]
        assert x.tolist() == list(range(1, 21))
        assert y.tolist() == rows[f"{part}_{quantity}"].tolist()
    assert list(lines["epoch 13 (scored)"][0]) == [13, 13]
    (mark,) = [data for data in lines.values() if len(data[0]) == 1]
    assert (mark[0][0], mark[1][0]) == (13, rows[f"val_{quantity}"][12])
    assert list(lines['always "malignant" (validation)'][1]) == [0.7, 0.7]


def test_undefined_values_are_gaps_and_one_epoch_is_a_point(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "one", epochs=1, only="malignant", test=False, draws=100)
    history = read_history(run / "history.csv")
    assert np.isnan(history["val_auroc"]).all()
    figure = curve_figure(history, "loss", 0)
    assert lines_of(figure)["training"][0].tolist() == [1]
    assert [line.get_marker() for line in figure.axes[0].get_lines()][:2] == ["o", "o"]
    names = ["loss", "accuracy", *(f"{name}_val" for name in DRAWN)]
    assert [path.stem for path in draw_plots(run)] == [name for name in names for _ in ("png", "svg")]


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
    assert titles == [f"{len(table)} images, test part", "14 cases, test part"]


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


# --- more pictures -----------------------------------------------------------------------------------------------


def svg_texts(path: Path) -> list[str]:
    """All texts of an SVG; raises where it is no XML."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return ["".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")]


def test_an_svg_is_xml_and_its_text_is_text(plain: Path) -> None:
    texts = {path.stem: svg_texts(path) for path in (plain / "plots").glob("*.svg")}
    assert len(texts) == 14
    for name, said in (
        ("loss", "Loss by epoch"),
        ("roc_test", "ROC, test part"),
        ("precision_recall_val", "Precision and recall, validation part"),
        ("reliability_test", "By case, test part"),
        ("subtypes_test", "DC (m)"),
        ("confusion_test", "malignant"),
    ):
        assert said in texts[name], name
    table = made_up_table("test")
    for case in np.unique(table.case):
        assert f"{case} ({(table.case == case).sum()})" in texts["cases_test"]
    svg = (plain / "plots" / "roc_test.svg").read_text(encoding="utf-8")
    assert "<dc:date>" not in svg
    assert "</text>" in svg


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


def many_cases(malignant: int = 54, benign: int = 16, images: int = 9) -> Table:
    """A table of many cases, as large as the real set's."""
    random = np.random.default_rng(3)
    rows = [
        (
            "malignant" if k < malignant else "benign",
            ("DC", "LC", "MC", "PC") if k < malignant else ("A", "F", "PT", "TA"),
            k,
        )
        for k in range(malignant + benign)
        for _ in range(images)
    ]
    hard = {k: random.normal(1, 1.4) for _, _, k in rows}
    shift = np.array([hard[k] * (1 if name == "malignant" else -1) for name, _, k in rows])
    return make_table(
        "binary",
        image=[f"{i}.png" for i in range(len(rows))],
        path=[f"{i}.png" for i in range(len(rows))],
        class_name=[name for name, _, _ in rows],
        subtype=[kinds[k % 4] for _, kinds, k in rows],
        slide=[f"{kinds[k % 4]}-14-{20000 + k}" for _, kinds, k in rows],
        case=[f"14-{20000 + k}" for _, _, k in rows],
        magnification=[(40, 100, 200)[i % 3] for i in range(len(rows))],
        part="test",
        logits=np.column_stack([np.zeros(len(rows)), shift + random.normal(0, 1.2, len(rows))]),
    )


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
    assert (tied.p.tolist(), tied.share.tolist(), tied.size.tolist()) == ([0.25], [0.5], [10])


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


def test_recall_by_subtype_by_hand() -> None:
    table = made_up_table("test")
    recalls = subtype_recalls(table, "case", draws=100)
    assert list(recalls) == [name for name in SUBTYPES if (table.subtype == name).any()]
    for subtype, bar in recalls.items():
        members = table.subtype == subtype
        cases = sorted(set(table.case[members].tolist()))
        means = np.array([table.p_malignant[members & (table.case == case)].mean() for case in cases])
        right = int(((means >= 0.5) == (SUBTYPE_CLASS[subtype] == "malignant")).sum())
        assert (bar.count, bar.value) == (len(cases), right / len(cases))
        assert (bar.low, bar.high) == pytest.approx(wilson(right, len(cases)))
    by_image = subtype_recalls(table, "image", draws=100)
    ductal = table.subtype == "DC"
    assert by_image["DC"].value == np.mean(table.predicted[ductal] == 1)
    assert by_image["DC"].low is not None  # six cases; the others have fewer than five
    assert by_image["F"].low is None
    eight = subtype_recalls(made_up_table("test", "subtype"), "image", draws=100)
    scores = score_predictions(made_up_table("test", "subtype"), draws=100)["image"]["recall"]
    for subtype, bar in eight.items():
        assert bar.value == pytest.approx(scores[subtype]["value"])
        assert bar.low == scores[subtype]["low"]
    unknown = subtype_figure(made_up_table("test", named=False), draws=50)
    assert "subtypes of these images are unknown" in unknown.axes[0].texts[0].get_text()


def test_scores_by_magnification_are_those_of_its_images(tmp_path: Path) -> None:
    table = many_cases(images=6)
    figure = magnification_figure(table, draws=300)
    for m, bars in zip((40, 100, 200), np.array(figure.axes[0].patches).reshape(2, 3).T, strict=True):
        scores = score_predictions(table.rows(table.magnification == m), draws=300)
        for bar, level in zip(bars, ("case", "image"), strict=True):
            assert bar.get_height() == pytest.approx(scores[level]["auroc"]["value"])
        ends = [tuple(line.get_ydata()) for line in figure.axes[0].get_lines()]
        for level in ("case", "image"):
            found = scores[level]["auroc"]
            assert any(pair == pytest.approx((found["low"], found["high"])) for pair in ends)
    run = made_up_run(tmp_path / "run", test=False, epochs=2, draws=100)
    write_predictions(run / "predictions" / "val.csv", replace(table, part=np.full(len(table), "val")))
    assert {path.name for path in draw_plots(run)} >= {"magnifications_val.png", "magnifications_val.svg"}


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
    assert len(worst_figure(table.rows(np.arange(3)), read).axes) == 4
    eight = made_up_table("test", "subtype")
    p = np.exp(eight.logits) / np.exp(eight.logits).sum(axis=1, keepdims=True)
    own = -np.log(p[np.arange(len(p)), eight.label])
    np.testing.assert_allclose(own[worst_images(eight)], np.sort(own)[::-1][:12])
    assert "called" in worst_figure(eight, read).axes[0].get_title()
    run = made_up_run(tmp_path / "run", draws=100, epochs=2)
    first = [path.read_bytes() for path in draw_worst(run, lambda _: np.full((46, 70, 3), 90, np.uint8))]
    again = draw_worst(run, lambda _: np.full((46, 70, 3), 90, np.uint8))
    assert [path.name for path in again] == ["worst_test.png", "worst_test.svg"]
    assert [path.read_bytes() for path in again] == first
    assert "The worst errors, test" in write_report(run).read_text(encoding="utf-8")
    with pytest.raises(UserError, match="has not been scored"):
        draw_worst(tmp_path, read)


def test_hostile_names_in_pictures(tmp_path: Path) -> None:
    names = ["<script>&\"'", "$x^2$ \\frac", "\x00\x1b[0m\uffff", "\u6f22\u5b57", "a" * 300, "b" * 300]
    table = many_cases(3, 3, 4)
    table = replace(table, case=np.array(names)[np.repeat(np.arange(6), 4)])
    figures = [case_figure(table, 0.5), worst_figure(table, lambda _: None), subtype_figure(table, draws=50)]
    for number, figure in enumerate(figures):
        _, svg = save_picture(figure, tmp_path / str(number))
        texts = svg_texts(svg)
        if number == 0:
            told = " ".join(texts)
            for said in ("<script>&\"' (4)", "$x^2$ \\frac (4)", "\u6f22\u5b57 (4)"):
                assert said in told
    assert len(shown("a" * 300)) < 30
    assert shown("a" * 28) == "a" * 28
    figure, (axes,) = new_figure(2, 2)
    axes.set_title("plain")
    assert [path.name for path in save_picture(figure, tmp_path / "name.with.dots")] == [
        "name.with.dots.png",
        "name.with.dots.svg",
    ]


# --- what a reader may trust -------------------------------------------------------------------------------------


def test_the_report_says_what_the_protocol_asks_for(plain: Path) -> None:
    metrics, table = read_json(plain / "metrics.json"), made_up_table("test")
    told = text_of((plain / "report.html").read_text(encoding="utf-8"))
    train, val, test = (metrics[part]["image"]["auroc"]["value"] for part in ("train", "val", "test"))
    gap = f"{test - val:+.3f}".replace("-", "\N{MINUS SIGN}")
    assert f"AUROC by image {train:.3f} {val:.3f} {test:.3f} {gap}" in told
    network = [
        metrics["test"][level][name]["value"]
        for level in ("image", "case")
        for name in ("auroc", "balanced_accuracy")
    ]
    assert f"this network {' '.join(f'{value:.3f}' for value in network)}" in told
    assert "always “malignant” 0.500 0.500 0.500 0.500" in told
    assert "Mean colour was not computed in this run." in told
    assert "mean colour of the image not computed" in told
    assert "without case 14-21998 not in this part" in told
    without = {
        c: roc_auc_score(table.malignant[table.case != c], table.p_malignant[table.case != c])
        for c in set(table.case.tolist())
    }
    largest = max(without, key=lambda c: abs(without[c] - test))
    assert f"without case {largest} (largest change) {without[largest]:.3f}" in told
    near = sum(abs(value - metrics["monitored"][12]) <= 0.02 for value in metrics["monitored"])
    assert f"{near} of 20 epochs lie within 0.02 of the scored one" in told
    point, warmth = metrics["operating_point"], metrics["temperature"]
    for said in (
        f"The threshold {point['threshold']:.3f} was chosen for a sensitivity of at least 0.950",
        f"a sensitivity of {point['sensitivity']:.3f} at a specificity of {point['specificity']:.3f}",
        "apparent, since the threshold was chosen on the same images",
        "8 malignant and 3 benign validation cases",
        f"Dividing the logits by {warmth['temperature']:.3f}",
        f"{warmth['log_loss_before']:.3f} before, {warmth['log_loss_after']:.3f} after (apparent)",
        f"Sensitivity by case {metrics['test']['case']['sensitivity']['value']:.3f}",
        "At the stored threshold 0.400",
    ):
        assert said in told, said


def test_baselines_choices_and_their_absence(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", draws=100)
    metrics = read_json(run / "metrics.json")
    colour = {"part": "test", "image": {"auroc": 0.6125, "balanced_accuracy": 0.5}}
    colour["case"] = {"auroc": 0.75, "balanced_accuracy": None}
    metrics |= {"baselines": {"mean_colour": colour}}
    metrics["operating_point"] = {"threshold": None, "reason": "no <malignant> image"}
    metrics["temperature"] |= {
        "at_bound": True,
        "test": {"before": {"log_loss": 0.625}, "after": {"log_loss": 0.5}},
    }
    write_json(run / "metrics.json", metrics)
    told = text_of(write_report(run).read_text(encoding="utf-8"))
    assert "mean colour of the image 0.613 0.500 0.750 \N{EN DASH}" in told.replace("0.612", "0.613")
    assert "The mean colour of the images alone ranks with probability 0.75." in told
    assert "None was chosen: no <malignant> image." in told
    assert "do not rely on it" in told
    assert "Log loss 0.625 0.500" in told
    metrics["baselines"]["mean_colour"] = {"part": "test", "reason": "the colours cannot be fitted"}
    for name in ("operating_point", "temperature"):
        del metrics[name]
    write_json(run / "metrics.json", metrics)
    told = text_of(write_report(run).read_text(encoding="utf-8"))
    assert "None here: the colours cannot be fitted." in told
    assert "Chosen on validation" not in told


# --- the report --------------------------------------------------------------------------------------------------


class Outside(HTMLParser):
    """Collects every tag, and every attribute and style that could reach beyond the file."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.reached: list[str] = []
        self.images: list[bytes] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if tag == "img" and name == "src":
                head, data = str(value).split(",", 1)
                assert head == "data:image/png;base64"
                self.images.append(base64.b64decode(data, validate=True))
            elif name in ("src", "href", "srcset", "action", "background") or name.startswith("on"):
                self.reached.append(f"{tag} {name}={value}")


def test_the_report_is_one_file_that_needs_nothing(plain: Path) -> None:
    page = (plain / "report.html").read_text(encoding="utf-8")
    outside = Outside()
    outside.feed(page)
    assert outside.reached == []
    assert outside.tags.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form"})
    assert not re.search(r"https?://|@import|url\(", page)
    assert "default-src 'none'" in page
    drawn = {path.read_bytes() for path in (plain / "plots").glob("*.png")}
    assert set(outside.images) == drawn
    assert len(outside.images) == 14
    for data in outside.images:
        Image.open(io.BytesIO(data)).verify()
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page
    assert not list(plain.glob(".report*"))


def test_the_report_tells_the_numbers(plain: Path) -> None:
    told = text_of((plain / "report.html").read_text(encoding="utf-8"))
    metrics, table = read_json(plain / "metrics.json"), made_up_table("test")
    case = metrics["test"]["case"]
    assert f"{case['auroc']['value']:.3f}" in told
    assert f"{case['auroc']['low']:.2f} to {case['auroc']['high']:.2f}" in told
    assert f"AUROC {metrics['test']['image']['auroc']['value']:.3f}" in told
    assert f"Accuracy {np.mean(table.label == table.predicted):.3f}" in told
    assert (
        f"Patient recognition rate · {metrics['test']['slide']['patient_recognition_rate']['value']:.3f}"
        in told
    )
    baseline = f"always “malignant” {table.malignant.mean():.3f} {11 / 14:.3f} {11 / 14:.3f}"
    assert baseline in told
    train = metrics["train"]["image"]["auroc"]["value"]
    assert f"AUROC by image {train:.3f} {metrics['val']['image']['auroc']['value']:.3f}" in told
    for said in (
        "On 14 unseen cases (3 benign)",
        'answering "malignant" every time would be right for 11.',
        "other cases from the same source, these trained models only",
        "Epoch 13 of 20 was scored; val_case_log_loss was watched.",
        "The test part was read once in this run.",
        "10.1109/TBME.2015.2496264",
        "lr: 0.001",
        "2a13439c0ffee",
        "torch 2.15.0",
        "so no case stands in two parts. Test is fold 1, validation fold 2, training the other 3",
    ):
        assert said in told, said
    assert "patient-level" not in told.lower()
    assert "nan" not in told.lower().split()
    assert "None" not in told.split()


def test_every_missing_value_and_interval_stands_with_its_reason(plain: Path) -> None:
    page = (plain / "report.html").read_text(encoding="utf-8")
    for part in ("val", "test"):
        for level in ("image", "slide", "case"):
            for score in read_json(plain / "metrics.json")[part][level].values():
                if isinstance(score, dict) and "value" in score and score["low"] is None:
                    assert score["reason"] in unescape(page)
    level = {
        "n": 3,
        "auroc": {"value": None, "reason": "only <benign> cases"},
        "accuracy": {"value": 0.5, "low": 0.25, "high": 0.75},
        "mcc": {"value": -0.125, "low": -0.5, "high": 0.25},
        "f1": {"value": 0.5, "low": None, "high": None, "reason": "two cases"},
        "new_score": {"value": 0.875, "low": 0.5, "high": 1.0},
    }
    made = score_table({"image": level, "slide": None, "case": {"reason": "cases are unknown"}})
    told = text_of("<body>" + made)
    assert 'title="only &lt;benign&gt; cases">a<' in made
    assert "a only <benign> cases" in told
    assert "AUROC – a · – b" in told
    assert "0.500 0.25 to 0.75" in told
    assert "−0.125 −0.50 to 0.25" in told
    assert "F1 0.500 c" in told
    assert "c no interval: two cases" in told
    assert "new_score 0.875" in told
    assert "by case unknown" in told


@pytest.mark.parametrize("label", ["LEAKY", "CASE-LEAKY (123 images)", "GROUPING UNKNOWN"])
def test_the_label_stands_wherever_scores_stand(tmp_path: Path, label: str) -> None:
    kind = {"L": "image_random", "C": "official", "G": "folders"}[label[0]]
    run = made_up_run(tmp_path / "run", label=label, kind=kind, named=label[0] != "G", draws=100)
    page = write_report(run).read_text(encoding="utf-8")
    assert page.count(f'<p class="label">{label}</p>') == 4  # head, protocol, both parts
    told = text_of(page)
    assert "unseen" not in told
    if label[0] == "G":
        assert "which come from an unknown number of cases" in told
        assert "cases unknown unknown unknown" in told
        assert "benign images 172" in told  # known from the scores without any name
    else:
        assert "some of which the network was also trained on" in told
        assert "do not say how the network does on new cases" in told
    plain_page = write_report(made_up_run(tmp_path / "clean", draws=100)).read_text(encoding="utf-8")
    assert 'class="label"' not in plain_page


def test_hostile_names_and_texts_are_escaped(tmp_path: Path) -> None:
    attack = "<img src=x onerror=alert(1)>&\"'"
    run = made_up_run(tmp_path / "<script>alert(1)<&'", notes=(attack,), label=attack, kind=attack, draws=100)
    status = read_json(run / "status.json") | {"state": "failed", "error": attack, "git_commit": attack}
    status |= {"versions": {attack: attack}, "started": attack}
    write_json(run / "status.json", status)
    split = read_json(run / "split.json")
    split["parts"]["val"] = [attack]
    write_json(run / "split.json", split | {"hash": attack})
    metrics = read_json(run / "metrics.json") | {"monitor": attack}
    metrics["test"]["case"]["auroc"] = {"value": None, "reason": attack}
    metrics["test"]["image"] |= {attack: {"value": None, "low": None, "high": None, "reason": attack}}
    write_json(run / "metrics.json", metrics)
    write_atomic(run / "config.yaml", yaml.safe_dump({"dataset": {"root": f"</pre>{attack}"}}))
    draw_plots(run)
    page = write_report(run).read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<img src=x" not in page
    outside = Outside()
    outside.feed(page)
    assert outside.reached == []
    assert text_of(page).count("alert(1)") >= 10


def test_the_test_part_left_unread_and_read_twice(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", test=False, draws=100)
    draw_plots(run)
    told = text_of(write_report(run).read_text(encoding="utf-8"))
    assert told.count("The test part was left unread.") == 1
    assert "On 11 validation cases (3 benign), on which the training was watched," in told
    assert "Scores on the test part" not in told
    assert "The test part was not read in this run." in told
    write_json(run / "status.json", read_json(run / "status.json") | {"test_read": 3})
    page = write_report(run).read_text(encoding="utf-8")
    assert '<p class="label">The test part was read 3 times' in page


def test_a_part_of_one_class(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", only="malignant", draws=100)
    draw_plots(run)
    told = text_of(write_report(run).read_text(encoding="utf-8"))
    assert "no ranking of malignant above benign cases can be scored (only malignant cases here)." in told
    assert "0 of 0" not in told
    assert "largest case 28 % 14-22549 none none" in told


def test_eight_classes(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", task="subtype", draws=100)
    draw_plots(run)
    told = text_of(write_report(run).read_text(encoding="utf-8"))
    accuracy = read_json(run / "metrics.json")["test"]["image"]["accuracy"]["value"]
    assert f"Of the 8 subtypes it names the right one for {100 * accuracy:.0f} % of the images." in told
    assert "ductal carcinoma, DC cases: 6" in told
    assert told.count("Benign against malignant") == 2


def test_contents_of_a_part_by_hand() -> None:
    names = [f"SOB_B_F-14-21998{s}-100-{n:03d}.png" for s in ("AB", "CD") for n in (1, 2, 3)]
    names += ["SOB_B_A-14-22549AB-100-001.png", "SOB_B_A-14-22549AB-100-002.png"]
    names += ["SOB_M_DC-14-2523-100-001.png"]
    found = contents(names)
    assert found is not None
    benign = found["benign"]
    assert (benign.images, benign.slides, benign.cases, benign.largest) == (8, 3, 2, "14-21998")
    assert benign.kish == pytest.approx(8**2 / (6**2 + 2**2))
    assert benign.largest_share == 6 / 8
    assert (found["malignant"].cases, found["malignant"].kish) == (1, 1.0)
    assert contents([*names, "holiday.png"]) is None
    empty = contents([])
    assert empty is not None
    assert empty["benign"].largest == ""


@pytest.mark.parametrize(
    ("split", "clean", "said"),
    [
        ({"kind": "case_kfold", "fold": 4, "folds": 5}, False, "Test is fold 4, validation fold 0"),
        (
            {"kind": "slide_kfold", "fold": 0, "folds": 5},
            False,
            "several slides can stand in training and in test",
        ),
        (
            {"kind": "official", "fold": 3},
            False,
            "fold 3 of 5, which divides slides: slides of one case stand",
        ),
        ({"kind": "official", "fold": 3}, True, "were dropped from training"),
        ({"kind": "image_random"}, False, "Images were dealt at random"),
        ({"kind": "folders"}, False, "folders train, val and test"),
        ({"kind": "file"}, False, "read from a file"),
        ({}, False, "not recorded"),
    ],
)
def test_the_protocol_in_words(split: dict[str, Any], clean: bool, said: str) -> None:
    assert said in in_words(split, {"clean": clean})


def test_the_summary_without_an_interval() -> None:
    case = {"n": 5, "confusion": [[1, 1], [0, 3]], "auroc": {"value": 0.5, "low": None, "reason": "few"}}
    told = summary({"test": {"case": case, "image": {"n": 9}}}, "")
    assert "with probability 0.50 (no interval: few)." in told
    assert "calls 4 of 5 cases right, 1 of 2 benign and 3 of 3 malignant" in told
    assert summary({"val": None, "test": None}, "") == "No part of this run has been scored."


def test_missing_and_damaged_tables_are_said(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", draws=100)
    history = (run / "history.csv").read_text()
    for text, said in (
        ("", "holds no epoch"),
        (history.replace("412.5", "fast"), "a row is damaged"),
        (history + "20,0.1\n", "a row is damaged"),
    ):
        (run / "history.csv").write_text(text)
        for function in (draw_plots, write_report):
            with pytest.raises(UserError, match=rf"history\.csv: {said}"):
                function(run)
    (run / "history.csv").unlink()
    with pytest.raises(UserError, match=r"history\.csv: cannot be read"):
        draw_plots(run)
    (run / "metrics.json").write_text(json.dumps({"schema": 1})[:-3])
    for function in (draw_plots, write_report):
        with pytest.raises(UserError, match=r"metrics\.json: is missing or damaged"):
            function(run)
    assert not (run / "report.html").exists()


def test_a_report_needs_neither_torch_nor_pyplot(plain: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from histo_lightning.report.figures import draw_plots\n"
        "from histo_lightning.report.html import write_report\n"
        "draw_plots(Path(sys.argv[1])); write_report(Path(sys.argv[1]))\n"
        "print([m for m in ('torch', 'pytorch_lightning', 'matplotlib.pyplot') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(plain)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
