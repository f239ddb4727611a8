"""The list of scores, and scores of a stranger's own module."""

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from factories.predictions import check_plain_json, random_table
from histo_lightning.errors import UserError
from histo_lightning.evaluation import all_scores, get_score, registry, score, score_pooled, score_predictions
from histo_lightning.evaluation.levels import LEVELS, units
from histo_lightning.evaluation.registry import named_score, score_names

STRANGER = '''
import numpy as np
from histo_lightning.evaluation import score


@score(words="Youden's J", formula="sensitivity + specificity - 1 (Youden 1950)", bounds=(-1, 1))
def youden(labels, decisions, weights):
    """Sensitivity less the share of false alarms."""
    if len(set(labels)) < 2:
        return float("nan")
    benign, malignant = (np.average(decisions[labels == c], weights=weights[labels == c]) for c in (0, 1))
    return malignant - benign


@score(formula="max p - min p", levels=("image", "case"), better="")
def spread(probabilities):
    """Largest less smallest probability."""
    return np.ptp(probabilities)


@score(formula="mean of the largest probability", task="subtype")
def confidence(probabilities, weights):
    """How sure the network is."""
    return np.average(probabilities.max(axis=1), weights=weights)
'''


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module outside the package whose import registers three scores."""
    monkeypatch.setattr(registry, "_SCORES", dict(registry._SCORES))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_scores.py").write_text(STRANGER)
    yield importlib.import_module("my_scores")
    del sys.modules["my_scores"]


@pytest.mark.usefixtures("stranger")
def test_a_strangers_score_gets_a_value_and_an_interval_at_each_level() -> None:
    table = random_table(9, 12, 2)
    result = score_predictions(table, draws=200, threshold=0.3)
    check_plain_json(result)
    for level in LEVELS:
        found = result[level]
        for entries in (found, found["at_threshold"]):
            # J is twice the balanced accuracy less 1, and so is its BCa interval, which commutes with lines.
            expected = 2 * entries["balanced_accuracy"]["value"] - 1
            assert entries["youden"]["value"] == pytest.approx(expected)
            assert entries["youden"]["method"] == "expanded BCa over cases"
            assert entries["youden"]["low"] < expected < entries["youden"]["high"]
        if level == "image":
            assert found["youden"]["low"] == pytest.approx(2 * found["balanced_accuracy"]["low"] - 1)
            assert found["youden"]["high"] == pytest.approx(2 * found["balanced_accuracy"]["high"] - 1)
        assert found["youden"]["value"] != found["at_threshold"]["youden"]["value"]
    assert list(result["image"])[-4:] == ["spread", "always_malignant", "confusion", "at_threshold"]


@pytest.mark.usefixtures("stranger")
def test_a_score_without_weights_has_its_value_and_the_reason_against_an_interval() -> None:
    table = random_table(9, 12, 2)
    result = score_predictions(table, draws=150)
    assert result["image"]["spread"]["value"] == pytest.approx(np.ptp(table.p_malignant))
    assert result["image"]["spread"]["low"] is None
    assert result["image"]["spread"]["reason"] == "the score takes no weights, so cases cannot be drawn again"
    assert "spread" in result["case"]
    assert "spread" not in result["slide"], "it was registered for images and cases"


@pytest.mark.usefixtures("stranger")
def test_a_strangers_score_is_there_where_scores_are_listed() -> None:
    assert {"case_youden", "image_youden"} <= set(score_names())
    level, named = named_score("case_youden")
    assert (level, named.words, named.lower_is_better) == ("case", "Youden's J", False)
    here = units(random_table(9, 12, 2), "case")
    assert named.value(here) == pytest.approx(get_score("youden").value(here))
    with pytest.raises(UserError, match=r"did you mean case_youden\?"):
        named_score("case_youdem")
    for unnamed in ("image_spread", "image_ece", "case_calibration_slope", "case_patient_recognition_rate"):
        with pytest.raises(UserError, match=f"score={unnamed}: unknown"):
            named_score(unnamed)


@pytest.mark.usefixtures("stranger")
def test_a_strangers_score_where_something_is_unknown_or_of_eight_classes() -> None:
    table = random_table(9, 12, 2, "subtype")
    result = score_predictions(table, draws=150)
    assert result["case"]["confidence"]["low"] < result["case"]["confidence"]["value"]
    assert "youden" in result["case"]["binary"]
    assert "confidence" not in result["case"]["binary"]
    ungrouped = score_predictions(replace(table, case=np.full(len(table), "")))
    assert "GROUPING UNKNOWN" in ungrouped["image"]["confidence"]["reason"]
    assert ungrouped["case"]["confidence"]["value"] is None
    one_class = score_predictions(random_table(6, 0, 3), draws=150)
    assert one_class["image"]["youden"]["reason"] == "only benign cases here"
    check_plain_json(score_pooled([random_table(9, 12, 2)], draws=150))


def test_the_example_of_the_documentation_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_SCORES", dict(registry._SCORES))
    page = (Path(__file__).parents[3] / "docs" / "extend.md").read_text(encoding="utf-8")
    code = page[page.index("@score(") : page.index("@register_split\n")]
    exec(code, {"np": np, "score": score, "__name__": "example"})
    result = score_predictions(random_table(9, 12, 2), draws=150)
    for level in LEVELS:
        assert result[level]["youden"]["value"] == pytest.approx(
            2 * result[level]["balanced_accuracy"]["value"] - 1
        )
    one_class = score_predictions(random_table(0, 7, 2), draws=150)
    assert one_class["image"]["youden"]["value"] is None
    assert one_class["image"]["youden"]["reason"] == "only malignant cases here"


def test_a_division_by_zero_is_an_undefined_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_SCORES", dict(registry._SCORES))

    @score(formula="mean label of no unit")
    def empty(labels: np.ndarray, weights: np.ndarray) -> float:
        """Never defined."""
        return float(np.average(labels, weights=0 * weights))

    assert score_predictions(random_table(9, 12, 2), draws=150)["case"]["empty"]["value"] is None


def test_a_score_may_be_a_function_of_the_confusion_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_SCORES", dict(registry._SCORES))

    @score(formula="TN / (TN + FN)")
    def negative_predictive_value(confusion: np.ndarray) -> np.ndarray:
        """Share of benign among those called benign."""
        return confusion[..., 0, 0] / confusion[..., :, 0].sum(axis=-1)

    found = score_predictions(random_table(9, 12, 2), draws=150, threshold=0.3)["image"]
    for entries in (found, found["at_threshold"]):
        (tn, _), (fn, _) = entries["confusion"]
        assert entries["negative_predictive_value"]["value"] == pytest.approx(tn / (tn + fn))
        assert entries["negative_predictive_value"]["method"] == "expanded BCa over cases"


def test_a_module_may_register_its_scores_anew(stranger: ModuleType) -> None:
    count = len(all_scores())
    importlib.reload(stranger)
    assert len(all_scores()) == count


def test_every_score_says_what_it_is() -> None:
    for task in ("binary", "subtype"):
        names = [s.name for s in all_scores(task)]
        assert len(set(names)) == len(names) > 10
        for s in all_scores(task):
            assert s.meaning.endswith(".")
            assert s.formula
            assert s.title[0].isupper() or not s.title[0].isalpha()
            assert s.better in ("higher", "lower", "")
            assert s.bounds[0] < s.bounds[1]
            assert set(s.levels) <= set(LEVELS)
    assert get_score("brier").better == get_score("log_loss").better == "lower"
    assert (get_score("auroc").title, get_score("balanced_accuracy").title) == ("AUROC", "Balanced accuracy")
    assert get_score("nothing") is None


@pytest.mark.parametrize("task", ["binary", "subtype"])
def test_values_lie_within_their_bounds(task: str) -> None:
    for seed in range(5):
        table = random_table(7, 8, seed, task, signal=0.0)
        for level in LEVELS:
            here = units(table, level, binary=task == "binary")
            for s in all_scores(task, level):
                value = s.value(here)
                assert np.isnan(value) or s.bounds[0] <= value <= s.bounds[1], s.name


@pytest.mark.parametrize(
    ("name", "function", "words"),
    [
        ("auroc", lambda labels: 0.0, "evaluation.binary has a score of this name already"),
        ("confusion", lambda labels: 0.0, "the name is not possible"),
        ("my score", lambda labels: 0.0, "the name is not possible"),
        (
            "mine",
            lambda p: 0.0,
            "unknown argument p; a score takes labels, probabilities, decisions, weights",
        ),
        ("undocumented", lambda labels: 0.0, "no docstring"),
    ],
)
def test_impossible_scores_are_refused(name: str, function, words: str) -> None:
    before = list(registry._SCORES)
    if name != "undocumented":
        function.__doc__ = "Something."
    with pytest.raises(UserError, match=words) as caught:
        score(name=name, formula="none")(function)
    assert "\n" not in str(caught.value)
    assert list(registry._SCORES) == before


def test_the_order_of_metrics_json_stays() -> None:
    result = json.loads(json.dumps(score_predictions(random_table(6, 7), intervals=False)))
    scores = [
        "accuracy",
        "balanced_accuracy",
        "f1",
        "mcc",
        "sensitivity",
        "specificity",
        "brier",
        "log_loss",
        "auroc",
    ]
    scores += ["auprc", "auprc_benign", "calibration_intercept", "calibration_slope", "ece"]
    rates = ["", "_benign", "_malignant"]
    for level in LEVELS:
        slide = [f"patient_recognition_rate{rate}" for rate in rates] if level == "slide" else []
        assert list(result[level]) == [
            "n", "units", "cases", "kish", *scores, *slide, "micro_f1", "always_malignant", "confusion", "at_threshold",
        ]  # fmt: skip
