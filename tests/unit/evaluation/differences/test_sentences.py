"""The sentences of a comparison: the protocol's form, both ways, and nothing that the data cannot say."""

import pytest
from scipy import stats

from factories.replicates import three
from histo_lightning.evaluation.differences import compare_levels
from histo_lightning.evaluation.differences.sentences import equivalence, sentence
from histo_lightning.evaluation.registry import named_score

RECORD = {
    "score": "case_auroc",
    "magnifications": ["40x", "100x", "200x", "400x"],
    "cases": {"benign": 16, "malignant": 54},
    "replicates": 5,
    "replicates_are": "seeds",
    "primary": True,
}


def told(
    difference: float, se: float, low: float, high: float, *, equal: bool = True, **changes: object
) -> str:
    pair = {"arm": "ResNet-50", "reference": "ResNet-18", "difference": difference, "se": se}
    pair |= {"low": low, "high": high, "simultaneous_low": low, "simultaneous_high": high}
    return sentence(pair, RECORD | changes, equal_budget=equal)


def test_the_sentence_is_the_protocols() -> None:
    assert told(0.012, 0.0205, -0.030, 0.054) == (
        "Case-level AUROC, mean over 4 magnifications: at equal budget ResNet-50 minus ResNet-18 is +1.2 points "
        "(simultaneous 95 % interval -3.0 to +5.4; 70 cases, 16 benign; 5 seeds). A gain above 5.4 and a loss above 3.0 "
        "points are not compatible with these data at that level; differences below about 6 points could not have "
        "been detected reliably. For this recipe, budget and laboratory."
    )
    assert "(simultaneous 95 % interval -3.0 to +5.4; 70 cases, 16 benign; 1 seed)" in told(
        0.012, 0.0205, -0.030, 0.054, replicates=1
    )
    repeats = told(0.012, 0.0205, -0.030, 0.054, replicates=1, replicates_are="repeats of the split")
    assert "16 benign; 1 repeat of the split)" in repeats


def test_sentences_point_both_ways_on_either_side_of_zero() -> None:
    up = told(0.04, 0.01, 0.02, 0.06)
    assert "A gain above 6.0 points, a gain below 2.0 points and any loss are not compatible" in up
    down = told(-0.04, 0.005, -0.05, -0.03)
    assert "A loss above 5.0 points, a loss below 3.0 points and any gain are not compatible" in down
    assert "differences below about 1.5 points" in down
    changes = {"score": "image_log_loss", "primary": False, "magnifications": ["40x"]}
    loss = told(0.02, 0.01, -0.001, 0.041, equal=False, **changes)
    assert loss.startswith(
        "Image-level log loss: ResNet-50 minus ResNet-18 is +0.020 (exploratory 95 % interval -0.001 to +0.041;"
    )
    assert "An increase above 0.041 and a decrease above 0.001 are not compatible" in loss
    assert "below about 0.030 could" in loss
    assert "Lower is better" in loss
    assert "points" not in loss


def test_no_sentence_says_what_the_data_cannot() -> None:
    for score in ("case_auroc", "image_log_loss", "slide_balanced_accuracy"):
        found = compare_levels(three(), reference="r18", score=score)
        for pair in found["pairs"]:
            text = " ".join([pair["words"], *(item["words"] for item in pair["equivalence"])]).lower()
            assert "for this recipe, budget and laboratory" in text
            assert "25 cases, 10 benign; 4 seeds" in text
            for word in ("best", "patient", "are equal", "no difference", "significant"):
                assert word not in text


def test_equivalence_judges_what_can_be_shown() -> None:
    _, score = named_score("case_auroc")
    wide = equivalence(0.0, 0.02, 20, 0.01, score)
    assert wide["words"] == "equivalence within +-1 point cannot be shown with these cases"
    assert (wide["p_region"], wide["largest_reachable"]) == pytest.approx((2 * stats.t.cdf(0.5, 20) - 1,) * 2)
    shown = equivalence(0.004, 0.008, 12, 0.03, score)
    expected = stats.t.cdf(0.026 / 0.008, 12) - stats.t.cdf(-0.034 / 0.008, 12)
    assert shown["p_region"] == pytest.approx(expected)
    assert shown["words"].startswith("equivalence within +-3 points is supported")
    off = equivalence(0.04, 0.01, 12, 0.05, score)
    assert off["largest_reachable"] is not None
    assert off["largest_reachable"] > 0.95
    assert off["words"].startswith("equivalence within +-5 points is not shown")
    assert equivalence(0.0, 0.001, 12, 0.01, named_score("case_brier")[1])["words"].startswith(
        "equivalence within +-0.01 is"
    )
