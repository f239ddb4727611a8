"""The page of a run and of an evaluation: complete, escaped, self-contained, and true to the tables."""

import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from factories.html import Page
from factories.report_runs import made_up_run, made_up_table, many_cases
from histo_lightning.data.breakhis.names import SUBTYPE_CLASS, SUBTYPES
from histo_lightning.errors import UserError
from histo_lightning.evaluation import score_predictions, write_predictions
from histo_lightning.evaluation.intervals import wilson
from histo_lightning.evaluation.remarks import remarks
from histo_lightning.report.pages import _environment
from histo_lightning.report.run_page import (
    contents_of,
    draw_evaluation,
    draw_plots,
    group_tables,
    write_evaluation,
    write_report,
)
from histo_lightning.report.words import SYNTHETIC
from histo_lightning.runs import read_json, write_atomic, write_json


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished binary run with its plots and report."""
    run = made_up_run(tmp_path_factory.mktemp("runs") / "plain", draws=400)
    draw_plots(run, read_image=lambda _: np.full((46, 70, 3), 90, np.uint8))
    write_report(run)
    return run


@pytest.fixture(scope="module")
def page(plain: Path) -> Page:
    return Page(plain / "report.html")


def changed(run: Path, **more: Any) -> Page:
    """The page after keys of ``metrics.json`` were set."""
    write_json(run / "metrics.json", read_json(run / "metrics.json") | more)
    return Page(write_report(run))


def test_the_report_is_one_file_that_needs_nothing(plain: Path, page: Page) -> None:
    assert page.is_self_contained()
    text = (plain / "report.html").read_text(encoding="utf-8")
    for words in ("default-src 'none'", "prefers-color-scheme: dark", 'name="viewport"'):
        assert words in text
    assert {path.read_bytes() for path in (plain / "plots").glob("*.png")} == set(page.images)
    assert len(page.images) == 14
    assert not list(plain.glob(".report*"))


def test_a_title_for_people_contents_and_links_to_the_files(plain: Path, page: Page) -> None:
    assert page.title == "ResNet-18, AdamW, 100X, fold 1 of 5"
    assert page.text.startswith(f"{page.title} plain, started 2025-11-22 20:41 UTC On 14 unseen cases")
    for setting in (
        "epochs 20, scored: 13",
        "learning rate 0.001",
        "batch 32",
        "image size 224",
        "data breakhis",
    ):
        assert setting in page.text
    anchors = [link[1:] for link in page.links if link.startswith("#")]
    text = (plain / "report.html").read_text(encoding="utf-8")
    assert len(anchors) == 8
    assert all(f'id="{anchor}"' in text for anchor in anchors)
    files = [link for link in page.links if not link.startswith("#")]
    assert "predictions/test.csv" in files
    assert all((plain / file).exists() for file in files)
    assert page.alts[:6] == [
        "Loss by epoch", "Accuracy by epoch", "ROC curves, test set", "ROC curves, validation set",
        "Score by case, test set", "Score by case, validation set",
    ]  # fmt: skip


def test_the_report_tells_the_numbers(plain: Path, page: Page) -> None:
    metrics, table = read_json(plain / "metrics.json"), made_up_table("test")
    scores = metrics["test"]
    case = scores["case"]["auroc"]
    assert (
        f"0.{round(100 * case['value'])} {case['low']:.2f} to {case['high']:.2f}" in page.text
    )  # the headline
    cells = page.row("AUROC")
    assert cells[0] == f"{scores['image']['auroc']['value']:.3f}"
    assert cells[2] == f"{case['value']:.3f} {case['low']:.2f} to {case['high']:.2f}"
    assert page.row("Accuracy")[0].split()[0] == f"{np.mean(table.label == table.predicted):.3f}"
    rate = scores["slide"]["patient_recognition_rate"]["value"]
    assert page.row("Patient recognition rate")[:2] == ["·", f"{rate:.3f}"]
    share = f"{table.malignant.mean():.3f}"
    assert page.row('— always "malignant"') == [share, f"{11 / 14:.3f}", f"{11 / 14:.3f}"]
    for words in (
        "On 14 unseen cases of the test set (3 benign)",
        'answering "malignant" every time would be right for 11.',
        "other cases from the same source, these trained models only",
        "Epoch 13 of 20 was scored; val_case_log_loss was watched.",
        "The test set was read once in this run.",
        "10.1109/TBME.2015.2496264",
        "lr: 0.001",
        "2a13439c0ffee",
        "torch 2.15.0",
        "so no case is in two sets. Test is fold 1, validation fold 2, train the other 3",
        "time in all 1 min 58 s time of training 1 min 33 s",
    ):
        assert words in page.text, words
    for words in ("patient-level", "stands", "part "):
        assert words not in page.text.lower(), words
    assert not {"nan", "none"} & set(page.text.lower().split())


def test_every_missing_value_and_interval_has_its_reason_on_the_page(plain: Path, page: Page) -> None:
    missing = [
        score["reason"]
        for part in ("val", "test")
        for level in ("image", "slide", "case")
        for score in read_json(plain / "metrics.json")[part][level].values()
        if isinstance(score, dict) and "value" in score and score["low"] is None
    ]
    assert missing
    assert all(reason in page.text for reason in missing)


def test_the_report_says_what_the_protocol_asks_for(plain: Path, page: Page) -> None:
    metrics, table = read_json(plain / "metrics.json"), made_up_table("test")
    train, val, test = (metrics[part]["image"]["auroc"]["value"] for part in ("train", "val", "test"))
    gap = f"{test - val:+.3f}".replace("-", "\N{MINUS SIGN}")
    assert page.row("AUROC by image") == [f"{train:.3f}", f"{val:.3f}", f"{test:.3f}", gap]
    network = [
        f"{metrics['test'][level][name]['value']:.3f}"
        for level in ("image", "case")
        for name in ("auroc", "balanced_accuracy")
    ]
    assert page.row("this network") == network
    assert page.row('always "malignant"') == ["0.500"] * 4
    assert page.row("mean colour of the image") == ["not computed"] * 4
    assert page.row("without case 14-21998") == ["not in this set", ""]
    without = {
        c: roc_auc_score(table.malignant[table.case != c], table.p_malignant[table.case != c])
        for c in set(table.case.tolist())
    }
    largest = max(without, key=lambda c: abs(without[c] - test))
    assert page.row(f"without case {largest} (largest change)")[0] == f"{without[largest]:.3f}"
    near = sum(abs(value - metrics["monitored"][12]) <= 0.02 for value in metrics["monitored"])
    assert f"{near} of 20 epochs lie within 0.02 of the scored one" in page.text
    point, warmth = metrics["operating_point"], metrics["temperature"]
    for words in (
        f"The threshold {point['threshold']:.3f} was chosen for a sensitivity of at least 0.950",
        f"a sensitivity of {point['sensitivity']:.3f} at a specificity of {point['specificity']:.3f}",
        "apparent, since the threshold was chosen on the same images",
        "8 malignant and 3 benign validation cases",
        f"Dividing the logits by {warmth['temperature']:.3f}",
        f"{warmth['log_loss_before']:.3f} before, {warmth['log_loss_after']:.3f} after (apparent)",
        "At the stored threshold 0.400",
    ):
        assert words in page.text, words


def test_baselines_choices_and_their_absence(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", draws=100)
    colour = {"part": "test", "image": {"auroc": 0.625, "balanced_accuracy": 0.5}}
    colour["case"] = {"auroc": 0.75, "balanced_accuracy": None}
    warmth = read_json(run / "metrics.json")["temperature"] | {
        "at_bound": True,
        "test": {"before": {"log_loss": 0.625}, "after": {"log_loss": 0.5}},
    }
    point = {"threshold": None, "reason": "no <malignant> image"}
    page = changed(run, baselines={"mean_colour": colour}, operating_point=point, temperature=warmth)
    assert page.row("mean colour of the image") == ["0.625", "0.500", "0.750", "–"]
    assert "The mean colour of the images alone ranks with probability 0.75." in page.text
    assert "None was chosen: no <malignant> image." in page.text
    assert "do not rely on it" in page.text
    assert page.row("Log loss", -1) == ["0.625", "0.500"]
    nothing = {"part": "test", "reason": "the colours cannot be fitted"}
    page = changed(run, baselines={"mean_colour": nothing}, operating_point=None, temperature=None)
    assert "None here: the colours cannot be fitted." in page.text
    assert "Temperature" not in page.text


@pytest.mark.parametrize("label", ["LEAKY", "CASE-LEAKY (123 images)", "GROUPING UNKNOWN"])
def test_the_label_is_wherever_scores_are(tmp_path: Path, label: str) -> None:
    kind = {"L": "image_random", "C": "official", "G": "folders"}[label[0]]
    run = made_up_run(tmp_path / "run", label=label, kind=kind, named=label[0] != "G", draws=100)
    assert Page(write_report(run)).labels == [label] * 3  # head, both sets of scores
    draw_plots(run)
    page = Page(write_report(run))
    assert page.labels == [label] * 4  # and the curves
    assert "unseen" not in page.text
    if label[0] == "G":
        assert "which come from an unknown number of cases" in page.text
        assert page.row("benign: cases") == ["unknown"] * 3
        assert page.row("benign: images")[0] == "172"  # known from the scores without any name
    else:
        assert "some of which the network was also trained on" in page.text
        assert "do not say how the network does on new cases" in page.text
    assert Page(write_report(made_up_run(tmp_path / "clean", draws=100))).labels == []


def test_drawn_images_and_shortened_runs_are_labelled(tmp_path: Path) -> None:
    short = "SHORTENED (limit_train_batches=2)"
    run = made_up_run(tmp_path / "run", draws=100, label="LEAKY", data="synthetic", shortened=short)
    page = Page(write_report(run))
    assert page.labels[:3] == [SYNTHETIC, short, "LEAKY"]
    assert page.title.startswith(f"{SYNTHETIC}: ResNet-18")
    assert "Spanhol" not in page.text


def test_judgements_in_words(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", draws=100)
    metrics = read_json(run / "metrics.json")
    for part, value in (("train", 0.99), ("val", 0.45), ("test", 0.7)):
        metrics[part]["image"]["auroc"]["value"] = value
    metrics["test"]["image"]["confusion"] = [[0, 60], [0, 180]]
    metrics["remarks"] = remarks(metrics, epochs=20, warmup_epochs=0)
    page = changed(run, **metrics)
    for words in (
        "The network ranks validation images worse than chance: AUROC 0.450.",
        "Train and test set are far apart: AUROC 0.99 against 0.70 by image.",
        "Validation and test set differ by 0.25 of AUROC",
        "It calls every image the same",
    ):
        assert words in page.text, words
    for part in ("train", "val", "test"):
        metrics[part]["image"]["auroc"]["value"] = 0.8
    metrics["test"]["image"]["confusion"] = [[30, 30], [10, 170]]
    assert "far apart" not in changed(run, **metrics).text


def test_hostile_names_and_texts_are_escaped(tmp_path: Path) -> None:
    attack = "<img src=x onerror=alert(1)>&\"'"
    run = made_up_run(tmp_path / "<script>alert(1)<&'", notes=(attack,), label=attack, kind=attack, draws=100)
    status = read_json(run / "status.json") | {"state": "failed", "error": attack, "git_commit": attack}
    write_json(run / "status.json", status | {"versions": {attack: attack}, "started": attack})
    split = read_json(run / "split.json")
    split["parts"]["val"] = [attack]
    write_json(run / "split.json", split | {"hash": attack})
    metrics = read_json(run / "metrics.json") | {"monitor": attack}
    metrics["test"]["case"]["auroc"] = {"value": None, "reason": attack}
    metrics["test"]["image"] |= {attack: {"value": None, "low": None, "high": None, "reason": attack}}
    write_atomic(run / "config.yaml", yaml.safe_dump({"dataset": {"root": f"</pre>{attack}"}}))
    draw_plots(run)
    page = changed(run, **metrics)
    assert page.is_self_contained()
    assert "<script" not in (run / "report.html").read_text(encoding="utf-8")
    assert page.text.count("alert(1)") >= 10


def test_the_test_set_left_unread_and_read_twice(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", test=False, draws=100)
    draw_plots(run)
    page = Page(write_report(run))
    assert page.text.count("The test set was left unread.") == 1
    assert "On 11 cases of the validation set (3 benign), on which the training was watched," in page.text
    assert "Scores on the test set" not in page.text
    assert "The test set was not read in this run." in page.text
    write_json(run / "status.json", read_json(run / "status.json") | {"test_read": 3})
    assert Page(write_report(run)).labels == ["The test set was read 3 times in this run."]


def test_a_part_of_one_class(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", only="malignant", draws=100)
    draw_plots(run)
    page = Page(write_report(run))
    assert (
        "no ranking of malignant above benign cases can be scored (only malignant cases here)." in page.text
    )
    assert "0 of 0" not in page.text
    assert page.row("benign: largest case")[1:] == ["none", "none"]
    assert "28 % (14-22549)" in page.row("benign: largest case")[0]


def test_few_images_of_a_shortened_run(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", draws=100)
    few = made_up_table("test").rows(np.arange(3))
    write_predictions(run / "predictions" / "test.csv", few)
    write_json(
        run / "metrics.json", read_json(run / "metrics.json") | {"test": score_predictions(few, draws=100)}
    )
    draw_plots(run)
    page = changed(run, shortened="SHORTENED (limit_test_batches=1)")
    assert "3 images" in page.text
    assert page.labels[0].startswith("SHORTENED")


def test_eight_classes(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", task="subtype", draws=100)
    draw_plots(run)
    page = Page(write_report(run))
    accuracy = read_json(run / "metrics.json")["test"]["image"]["accuracy"]["value"]
    assert f"Of the 8 subtypes it names the right one for {100 * accuracy:.0f} % of the images." in page.text
    recall = read_json(run / "metrics.json")["test"]["image"]["recall"]["DC"]
    assert page.row("ductal carcinoma, DC; cases: 6")[0].split()[0] == f"{recall['value']:.3f}"
    assert page.row("fibroadenoma, F; cases: 1")[0].split()[0].startswith("0.")
    assert page.text.count("no interval: fewer than 5 cases of a class here") <= 12
    assert page.text.count("Benign against malignant") == 2


def test_recall_by_subtype_by_hand() -> None:
    table = made_up_table("test")
    rows = {row[0]: row[1:] for row in group_tables(table)["Recall by subtype"].rows}
    assert list(rows) == [name for name in SUBTYPES if (table.subtype == name).any()]
    for subtype, (images, by_image, count, by_case) in rows.items():
        members = table.subtype == subtype
        cases = sorted(set(table.case[members].tolist()))
        means = np.array([table.p_malignant[members & (table.case == case)].mean() for case in cases])
        right = int(((means >= 0.5) == (SUBTYPE_CLASS[subtype] == "malignant")).sum())
        low, high = wilson(right, len(cases))
        assert (count, by_case) == (str(len(cases)), f"{right / len(cases):.3f} ({low:.2f} to {high:.2f})")
        share = np.mean(table.predicted[members] == table.label[members])
        assert (images, by_image) == (str(members.sum()), f"{share:.3f}")
    assert group_tables(made_up_table("test", "subtype")) == {}  # metrics.json has them
    assert group_tables(made_up_table("test", named=False)) == {}


def test_scores_by_magnification_are_those_of_its_images() -> None:
    table = many_cases(images=6)
    rows = {row[0]: row[1:] for row in group_tables(table)["Scores by magnification"].rows}
    assert list(rows) == ["40X", "100X", "200X"]
    scores = score_predictions(table.rows(table.magnification == 100))
    for cell, (level, name) in zip(
        rows["100X"],
        [(level, name) for level in ("case", "image") for name in ("auroc", "balanced_accuracy")],
        strict=True,
    ):
        score = scores[level][name]
        assert cell == f"{score['value']:.3f} ({score['low']:.2f} to {score['high']:.2f})"


def test_contents_of_a_part_by_hand() -> None:
    names = [f"SOB_B_F-14-21998{s}-100-{n:03d}.png" for s in ("AB", "CD") for n in (1, 2, 3)]
    names += ["SOB_B_A-14-22549AB-100-001.png", "SOB_B_A-14-22549AB-100-002.png"]
    names += ["SOB_M_DC-14-2523-100-001.png"]
    contents = contents_of(names)
    assert contents is not None
    assert contents["benign"] == ["8", "3", "2", f"{8**2 / (6**2 + 2**2):.1f}", "75 % (14-21998)"]
    assert contents["malignant"][2:4] == ["1", "1.0"]
    assert contents_of([*names, "holiday.png"]) is None
    assert contents_of([]) == {name: ["0", "0", "0", "0.0", "none"] for name in ("benign", "malignant")}


@pytest.mark.parametrize(
    ("split", "clean", "words"),
    [
        ({"kind": "case_kfold", "fold": 4, "folds": 5}, False, "Test is fold 4, validation fold 0"),
        (
            {"kind": "slide_kfold", "fold": 0, "folds": 5},
            False,
            "several slides can be in the train set and in the",
        ),
        (
            {"kind": "official", "fold": 3},
            False,
            "fold 3 of 5, which divides slides: slides of one case are in",
        ),
        ({"kind": "official", "fold": 3}, True, "were dropped from the train set"),
        ({"kind": "image_random"}, False, "Images were dealt at random"),
        ({"kind": "folders"}, False, "folders train, val and test"),
        ({"kind": "file"}, False, "read from a file"),
        ({"kind": "injection", "injection": {"probe": 9}, "shuffled_labels": True}, False, "never a result"),
        ({}, False, "not recorded"),
    ],
)
def test_the_protocol_in_words(split: dict[str, Any], clean: bool, words: str) -> None:
    source = '{% from "protocol.html" import protocol %}{{ protocol(split, {"clean": clean}) }}'
    text = _environment(False).from_string(source).render(split=split, clean=clean)
    assert words in " ".join(unescape(text).split())


def test_the_summary_without_an_interval() -> None:
    def summary(metrics: dict[str, Any]) -> str:
        source = '{% import "scores.html" as s %}{{ s.summary(metrics, "") }}'
        return " ".join(unescape(_environment(False).from_string(source).render(metrics=metrics)).split())

    case = {"n": 5, "confusion": [[1, 1], [0, 3]], "auroc": {"value": 0.5, "low": None, "reason": "few"}}
    text = summary({"test": {"case": case, "image": {"n": 9}}})
    assert "with probability 0.50 (no interval: few)." in text
    assert "calls 4 of 5 cases right, 1 of 2 benign and 3 of 3 malignant" in text
    assert summary({"val": None, "test": None}) == "No set of this run has been scored."


def test_missing_and_damaged_tables_are_said(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", draws=100)
    history = (run / "history.csv").read_text()
    for text, words in (
        ("", "holds no epoch"),
        (history.replace("412.5", "fast"), "a row is damaged"),
        (history + "20,0.1\n", "a row is damaged"),
    ):
        (run / "history.csv").write_text(text)
        for function in (draw_plots, write_report):
            with pytest.raises(UserError, match=rf"history\.csv: {words}"):
                function(run)
    (run / "history.csv").unlink()
    with pytest.raises(UserError, match=r"history\.csv: cannot be read"):
        draw_plots(run)
    (run / "metrics.json").write_text('{"schema":')
    for function in (draw_plots, write_report):
        with pytest.raises(UserError, match=r"metrics\.json: is damaged"):
            function(run)
    assert not (run / "report.html").exists()


def test_an_evaluation_s_page(tmp_path: Path) -> None:
    table = made_up_table("test")
    scores = score_predictions(table, draws=200, threshold=0.4)
    label, short = "SEEN CASES (9 images)", "SHORTENED"
    metrics = {
        "run": "my <run>", "dataset": "breakhis", "source": "a copy", "part": "unseen", "split_hash": "9f" * 32,
        "label": label, "scores": scores, "data": "synthetic", "shortened": short,
    }  # fmt: skip
    draw_evaluation(tmp_path, table, scores, 0.4, None, lambda _: None)
    page = Page(write_evaluation(tmp_path, metrics, table))
    assert page.is_self_contained()
    assert page.title == f"{SYNTHETIC}: Evaluation of my <run> on breakhis"
    assert page.labels == [SYNTHETIC, short, label] * 2
    assert "do not hold for new cases" in page.text
    assert f"{len(table)} images scored; split of the checkpoint 9f9f9f9f9f9f" in page.text
    assert page.row("AUROC")[0] == f"{scores['image']['auroc']['value']:.3f}"
    assert len(page.images) == 6
    assert "At the stored threshold 0.400" in page.text


def test_a_report_needs_neither_torch_nor_pyplot(plain: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from histo_lightning.report.run_page import draw_plots\n"
        "from histo_lightning.report.run_page import write_report\n"
        "draw_plots(Path(sys.argv[1])); write_report(Path(sys.argv[1]))\n"
        "print([m for m in ('torch', 'pytorch_lightning', 'matplotlib.pyplot') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(plain)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
