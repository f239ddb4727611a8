"""``score_predictions`` as others call it: shape, plain values, reasons, speed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from factories.predictions import as_columns, check_plain_json, random_table, whole_set
from histo_lightning.data.breakhis.names import SUBTYPES
from histo_lightning.data.breakhis.records import Record
from histo_lightning.errors import UserError
from histo_lightning.evaluation import score_predictions, write_predictions
from histo_lightning.evaluation.levels import units
from histo_lightning.evaluation.scores import ece

CONTRACT = [
    "accuracy",
    "balanced_accuracy",
    "auroc",
    "auprc",
    "auprc_benign",
    "f1",
    "mcc",
    "sensitivity",
    "specificity",
    "brier",
    "ece",
    "log_loss",
]
CALIBRATION = ["calibration_intercept", "calibration_slope"]


@pytest.mark.parametrize("task", ["binary", "subtype"])
@pytest.mark.parametrize("threshold", [None, 0.3])
def test_the_result_is_plain_json(task: str, threshold: float | None) -> None:
    table = random_table(8, 9, 0, task)
    result = score_predictions(table, threshold=threshold, draws=150)
    check_plain_json(result)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert list(result) == ["image", "slide", "case"]
    for level, found in result.items():
        binary = found if task == "binary" else found["binary"]
        expected = CONTRACT + CALIBRATION + (["patient_recognition_rate"] if level == "slide" else [])
        assert set(expected) <= binary.keys()
        assert ("patient_recognition_rate" in binary) == (level == "slide")
        assert np.shape(binary["confusion"]) == (2, 2)
        assert np.sum(binary["confusion"]) == binary["n"]
        assert (binary["at_threshold"] is None) == (threshold is None)
        if threshold is not None:
            assert binary["at_threshold"]["threshold"] == 0.3
            assert set(expected) <= binary["at_threshold"].keys()


def test_path_mapping_and_table_agree(tmp_path: Path) -> None:
    table = random_table(6, 7, 1)
    write_predictions(tmp_path / "p.csv", table)
    expected = score_predictions(table, draws=120)
    assert score_predictions(tmp_path / "p.csv", draws=120) == expected
    assert score_predictions(str(tmp_path / "p.csv"), draws=120) == expected
    assert score_predictions(as_columns(table), draws=120) == expected


def test_image_level_equals_scikit_learn() -> None:
    table = random_table(10, 20, 3)
    image = score_predictions(table, intervals=False, threshold=0.7)["image"]
    truth, p = table.label, table.p_malignant
    assert image["auroc"]["value"] == pytest.approx(metrics.roc_auc_score(truth, p))
    assert image["f1"]["value"] == pytest.approx(metrics.f1_score(truth, table.predicted))
    assert image["log_loss"]["value"] == pytest.approx(metrics.log_loss(truth, p))
    assert image["confusion"] == metrics.confusion_matrix(truth, table.predicted).tolist()
    moved = image["at_threshold"]
    assert moved["mcc"]["value"] == pytest.approx(metrics.matthews_corrcoef(truth, p >= 0.7))
    assert moved["confusion"] == metrics.confusion_matrix(truth, p >= 0.7).tolist()
    assert moved["confusion"] != image["confusion"]
    assert moved["auroc"] == image["auroc"]


def test_eight_classes_equal_scikit_learn() -> None:
    table = random_table(20, 25, 4, "subtype", signal=1.5)
    image = score_predictions(table, intervals=False)["image"]
    p = np.exp(table.logits) / np.exp(table.logits).sum(axis=1, keepdims=True)
    assert image["missing_classes"] == []
    assert image["auroc"]["value"] == pytest.approx(metrics.roc_auc_score(table.label, p, multi_class="ovr"))
    assert image["log_loss"]["value"] == pytest.approx(metrics.log_loss(table.label, p, labels=range(8)))
    assert image["mcc"]["value"] == pytest.approx(metrics.matthews_corrcoef(table.label, table.predicted))
    assert (
        image["confusion"] == metrics.confusion_matrix(table.label, table.predicted, labels=range(8)).tolist()
    )
    recall = metrics.recall_score(table.label, table.predicted, average=None)
    assert [image["recall"][s]["value"] for s in SUBTYPES] == pytest.approx(recall.tolist())
    malignant = table.label >= 4
    assert image["binary"]["auroc"]["value"] == pytest.approx(
        metrics.roc_auc_score(malignant, table.p_malignant)
    )
    headline = [i for i, s in enumerate(SUBTYPES) if image["recall"][s]["cases"] >= 5]
    assert image["headline_classes"] == [SUBTYPES[i] for i in headline]
    assert image["balanced_accuracy_headline"]["value"] == pytest.approx(recall[headline].mean())


def test_missing_subtypes_are_listed() -> None:
    table = random_table(20, 25, 4, "subtype")
    result = score_predictions(table.rows(~np.isin(table.subtype, ["PT", "LC"])), draws=120)
    assert result["case"]["missing_classes"] == ["PT", "LC"]
    assert result["case"]["recall"]["PT"]["value"] is None
    check_plain_json(result)


@pytest.mark.parametrize("task", ["binary", "subtype"])
@pytest.mark.parametrize("only", ["benign", "malignant"])
def test_a_part_of_one_class(task: str, only: str) -> None:
    table = random_table(6, 7, 2, task)
    result = score_predictions(table.rows(table.class_name == only), draws=120, threshold=0.4)
    check_plain_json(result)
    for found in result.values():
        binary = found if task == "binary" else found["binary"]
        assert binary["auroc"]["value"] is None
        assert binary["auroc"]["reason"] == f"only {only} cases here"
        assert binary["accuracy"]["value"] is not None


@pytest.mark.parametrize("task", ["binary", "subtype"])
def test_one_single_image(task: str) -> None:
    result = score_predictions(random_table(1, 0, 0, task, most=1), draws=120)
    check_plain_json(result)
    assert result["case"]["n"] == 1


@pytest.mark.parametrize("task", ["binary", "subtype"])
@pytest.mark.parametrize("column", ["slide", "case"])
def test_unknown_grouping_has_no_case_score_and_no_interval(task: str, column: str) -> None:
    table = random_table(8, 9, 0, task)
    cells = getattr(table, column).copy()
    cells[3] = ""
    known = score_predictions(table, intervals=False)
    result = score_predictions(replace(table, **{column: cells}), draws=120, threshold=0.4)
    check_plain_json(result)
    image = result["image"] if task == "binary" else result["image"]["binary"]
    expected = known["image"] if task == "binary" else known["image"]["binary"]
    for name in [name for name in CONTRACT + CALIBRATION if name != "ece"]:
        assert image[name]["value"] == pytest.approx(expected[name]["value"], rel=1e-12)
        assert image[name]["low"] is None
        assert "GROUPING UNKNOWN" in image[name]["reason"]
    for level in ("slide", "case"):
        assert result[level]["n"] == 0
        assert "GROUPING UNKNOWN" in result[level]["auroc"]["reason"]
        assert result[level]["auroc"]["value"] is None


def test_the_seed_decides_the_draws_and_the_row_order_nothing() -> None:
    table = random_table(8, 9, 0)
    first = score_predictions(table, draws=150, seed=1)
    assert score_predictions(table, draws=150, seed=1) == first
    assert score_predictions(table, draws=150, seed=2) != first
    shuffled = table.rows(np.random.default_rng(0).permutation(len(table)))
    again = score_predictions(shuffled, draws=150, seed=1)
    for name in CONTRACT:
        assert again["image"][name]["value"] == pytest.approx(first["image"][name]["value"])
        if name != "ece":
            assert again["image"][name]["low"] == pytest.approx(first["image"][name]["low"], abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"threshold": 1.5}, "threshold=1.5"),
        ({"threshold": float("nan")}, "threshold=nan"),
        ({"draws": 5}, "draws=5"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        score_predictions(random_table(5, 5), **arguments)


def test_image_ece_is_debiased_by_case() -> None:
    """Right on average, yet each bin holds few cases: the jackknife over cases takes that noise away."""
    random = np.random.default_rng(0)
    table = random_table(16, 54, 0, most=40)
    p = np.clip(np.full(len(table), table.label.mean()) + random.normal(0, 0.01, len(table)), 0, 1)
    noise = replace(table, p_malignant=p)
    image = score_predictions(noise, intervals=False)["image"]
    case = score_predictions(noise, intervals=False)["case"]
    assert image["ece"]["value"] < 0.05
    within = units(table, "image")
    keep = [within.case != c for c in range(70)]
    jackknife = [ece(within.truth[k], within.p[k]) for k in keep]
    expected = 70 * ece(within.truth, within.p) - 69 * np.mean(jackknife)
    assert expected > 0
    assert score_predictions(table, intervals=False)["image"]["ece"]["value"] == pytest.approx(expected)
    assert "if_calibrated" not in image["ece"]
    assert 0.03 < case["ece"]["if_calibrated"] < 0.15


def test_the_whole_set_with_all_draws(census_records: list[Record]) -> None:
    table = whole_set(census_records)
    result = score_predictions(table)
    assert result["image"]["n"] == 7909
    assert result["slide"]["n"] == 82
    assert result["case"]["n"] == 70
    baselines = [result[level]["always_malignant"]["accuracy"] for level in ("image", "slide", "case")]
    assert baselines == pytest.approx([0.686, 0.707, 0.771], abs=5e-4)
    assert result["slide"]["always_malignant"]["patient_recognition_rate"] == pytest.approx(58 / 82)
    assert result["image"]["cases"] == {"benign": 16, "malignant": 54}
    assert result["case"]["ece"]["if_calibrated"] == pytest.approx(0.066, abs=0.03)


def test_the_whole_set_by_subtype(census_records: list[Record]) -> None:
    table = whole_set([r for r in census_records if not r.slide.endswith("13412")], "subtype")
    result = score_predictions(table, draws=200)
    assert result["image"]["n"] == 7663
    assert result["case"]["headline_classes"] == ["F", "TA", "DC", "MC", "PC"]
    assert {s: r["cases"] for s, r in result["case"]["recall"].items()} == {
        "A": 2, "F": 7, "PT": 3, "TA": 6, "DC": 37, "LC": 3, "MC": 7, "PC": 6,
    }  # fmt: skip
    assert result["case"]["n"] == 71
    assert result["case"]["binary"]["n"] == 69
