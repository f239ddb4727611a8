"""Operating points and temperatures: from validation alone, and optimal by brute force."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from factories.predictions import random_table
from histo_lightning.errors import UserError
from histo_lightning.evaluation import Table, score_predictions
from histo_lightning.evaluation.calibration import apply_temperature, fit_temperature, operating_point


def validation(benign: int = 5, malignant: int = 9, seed: int = 0, task: str = "binary") -> Table:
    table = random_table(benign, malignant, seed, task)
    return replace(table, part=np.full(len(table), "val"))


def case_balanced_sensitivity(table: Table, threshold: float) -> float:
    cases = np.unique(table.case[table.malignant == 1])
    return float(np.mean([(table.p_malignant[table.case == case] >= threshold).mean() for case in cases]))


@given(st.integers(0, 30), st.sampled_from([0.5, 0.8, 0.9, 0.95, 1.0]))
@settings(max_examples=60, deadline=None)
def test_the_highest_threshold_that_reaches_the_sensitivity(seed: int, wanted: float) -> None:
    table = validation(seed=seed)
    found = operating_point(table, wanted)
    assert found["sensitivity"] == pytest.approx(case_balanced_sensitivity(table, found["threshold"]))
    assert found["sensitivity"] >= wanted - 1e-9
    above = table.p_malignant[table.p_malignant > found["threshold"]]
    if len(above):
        assert case_balanced_sensitivity(table, above.min()) < wanted
    assert (found["cases_malignant"], found["cases_benign"]) == (9, 5)
    assert found["weighting"] == "case-balanced"


def test_case_balance_keeps_a_big_case_from_deciding() -> None:
    table = validation(2, 2, seed=3)
    big = np.flatnonzero(table.case == "14-3")
    keep = np.concatenate([np.flatnonzero(table.case != "14-3"), big[:1]])
    scores = np.where(table.case == "14-3", 0.2, np.where(table.malignant == 1, 0.8, 0.1))
    for rows in (keep, np.arange(len(table))):
        assert operating_point(replace(table, p_malignant=scores).rows(rows), 0.5)[
            "threshold"
        ] == pytest.approx(0.8)


def test_unknown_grouping_weighs_images_and_says_so() -> None:
    table = validation()
    found = operating_point(replace(table, case=np.full(len(table), "")), 0.9)
    assert "GROUPING UNKNOWN" in found["weighting"]
    assert found["cases_malignant"] is None
    share = (table.p_malignant[table.malignant == 1] >= found["threshold"]).mean()
    assert found["sensitivity"] == pytest.approx(share)


def test_nothing_but_validation_may_choose() -> None:
    test = random_table(5, 9)
    mixed = replace(test, part=np.where(np.arange(len(test)) < 3, "test", "val"))
    for table, parts in ((test, "part test"), (mixed, "part test, val")):
        for fitted in (operating_point, fit_temperature):
            with pytest.raises(UserError, match=parts):
                fitted(table)
    assert operating_point(test, apparent=True)["apparent"] is True
    assert operating_point(validation())["apparent"] is False


def test_changed_test_images_leave_what_was_fitted_bit_identical() -> None:
    """The fits see the validation table only; a poisoned test table is refused, not mixed in."""
    before = (operating_point(validation()), fit_temperature(validation()))
    poisoned = replace(random_table(5, 9), p_malignant=np.zeros(len(random_table(5, 9))))
    score_predictions(poisoned, intervals=False, threshold=before[0]["threshold"])
    assert (operating_point(validation()), fit_temperature(validation())) == before


@pytest.mark.parametrize("sensitivity", [0.0, -1.0, 1.01, float("nan")])
def test_impossible_sensitivities_are_refused(sensitivity: float) -> None:
    with pytest.raises(UserError, match="sensitivity="):
        operating_point(validation(), sensitivity)


def test_no_malignant_image_no_operating_point_and_no_benign_no_specificity() -> None:
    table = validation()
    with pytest.raises(UserError, match="no malignant image"):
        operating_point(table.rows(table.malignant == 0))
    assert operating_point(table.rows(table.malignant == 1))["specificity"] is None


@pytest.mark.parametrize("task", ["binary", "subtype"])
@pytest.mark.parametrize("scale", [0.5, 1.0, 6.0])
def test_temperature_is_scipys_minimum(task: str, scale: float) -> None:
    table = validation(task=task, seed=2)
    table = replace(table, logits=table.logits * scale)
    counts = {case: (table.case == case).sum() for case in np.unique(table.case)}
    weights = np.array([1 / counts[case] for case in table.case])

    def loss(temperature: float) -> float:
        chosen = log_softmax(table.logits / temperature, axis=1)[np.arange(len(table)), table.label]
        return float(-(weights * chosen).sum() / weights.sum())

    best = minimize_scalar(
        lambda t: loss(np.exp(t)), bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}
    )
    found = fit_temperature(table)
    assert found["temperature"] == pytest.approx(np.exp(best.x), rel=1e-4)
    assert found["log_loss_before"] == pytest.approx(loss(1.0))
    assert found["log_loss_after"] == pytest.approx(loss(found["temperature"]))
    assert found["log_loss_after"] <= found["log_loss_before"]
    assert found["at_bound"] is False


@pytest.mark.parametrize(("sign", "bound"), [(1.0, 0.05), (-1.0, 20.0)])
def test_without_an_optimum_the_temperature_stops_at_its_bound(sign: float, bound: float) -> None:
    table = validation()
    logits = np.column_stack([np.zeros(len(table)), np.where(table.label == 1, 1.0, -1.0) * sign])
    found = fit_temperature(replace(table, logits=logits))
    assert found["at_bound"] is True
    assert found["temperature"] == pytest.approx(bound, rel=1e-6)


def test_tempering_moves_probabilities_and_no_decision() -> None:
    table = validation()
    tempered = apply_temperature(table, 2.0)
    difference = table.logits[:, 1] - table.logits[:, 0]
    np.testing.assert_allclose(tempered.p_malignant, 1 / (1 + np.exp(-difference / 2)))
    np.testing.assert_array_equal(tempered.logits, table.logits)
    before, after = (score_predictions(t, intervals=False)["image"] for t in (table, tempered))
    assert before["auroc"] == after["auroc"]
    assert before["confusion"] == after["confusion"]
    np.testing.assert_allclose(apply_temperature(table, 1.0).p_malignant, table.p_malignant)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="temperature="):
            apply_temperature(table, wrong)
