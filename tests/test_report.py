"""Pictures and the report of a made-up run: from its tables alone, complete, escaped, self-contained."""

import base64
import io
import json
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import confusion_matrix, roc_auc_score, roc_curve

from histo_lightning.callbacks.history import COLUMNS
from histo_lightning.data.names import SUBTYPE_CLASS, SUBTYPES
from histo_lightning.errors import UserError
from histo_lightning.evaluation import Table, make_table, score_predictions, write_predictions
from histo_lightning.report.contents import contents, in_words
from histo_lightning.report.figures import (
    confusion_figure,
    curve_figure,
    draw_plots,
    read_history,
    roc_figure,
)
from histo_lightning.report.html import write_report
from histo_lightning.report.score_tables import score_table
from histo_lightning.report.words import summary
from histo_lightning.runs import read_json, write_atomic, write_json

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
        part: score_predictions(tables[part], intervals=part != "train", draws=draws)
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
    names = ["accuracy", "confusion_test", "confusion_val", "loss", "roc_test", "roc_val"]
    found = sorted((plain / "plots").iterdir())
    assert [path.name for path in found] == [f"{name}.png" for name in names]  # no temporary file either
    before = [path.read_bytes() for path in found]
    for path in found:
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
    names = ["loss", "accuracy", "roc_val", "confusion_val"]
    assert [path.stem for path in draw_plots(run)] == names


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
    drawn = {path.read_bytes() for path in (plain / "plots").iterdir()}
    assert set(outside.images) == drawn
    assert len(outside.images) == 6
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
    assert said in in_words(split, clean)


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
