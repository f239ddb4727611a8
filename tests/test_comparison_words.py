"""The sentences of a comparison: the protocol's form, both ways, and nothing that the data cannot say."""

from dataclasses import replace

import pytest
from scipy import stats

from histo_lightning.evaluation.comparison import compare_arms
from histo_lightning.evaluation.conclusion import Setting, equivalence, sentence
from histo_lightning.evaluation.named_scores import named_score
from test_comparison import three

SETTING = Setting(
    score=named_score("case_auroc"),
    magnifications=4,
    cases=70,
    benign=16,
    replicates=5,
    split_repeats=False,
    simultaneous=True,
    equal_budget=True,
)


def test_the_sentence_is_the_protocols() -> None:
    assert sentence("ResNet-50", "ResNet-18", 0.012, 0.0205, (-0.030, 0.054), SETTING) == (
        "Case-level AUROC, mean over 4 magnifications: at equal budget ResNet-50 minus ResNet-18 is +1.2 points "
        "(simultaneous 95 % interval -3.0 to +5.4; 70 cases, 16 benign; 5 seeds). A gain above 5.4 and a loss above 3.0 "
        "points are not compatible with these data at that level; differences below about 6 points could not have "
        "been detected reliably. For this recipe, budget and laboratory."
    )


def test_sentences_point_both_ways_on_either_side_of_zero() -> None:
    up = sentence("a", "b", 0.04, 0.01, (0.02, 0.06), SETTING)
    assert "A gain above 6.0 points, a gain below 2.0 points and any loss are not compatible" in up
    down = sentence("a", "b", -0.04, 0.005, (-0.05, -0.03), SETTING)
    assert "A loss above 5.0 points, a loss below 3.0 points and any gain are not compatible" in down
    assert "differences below about 1.5 points" in down
    errors = replace(
        SETTING, score=named_score("image_log_loss"), simultaneous=False, equal_budget=False, magnifications=1
    )
    loss = sentence("a", "b", 0.02, 0.01, (-0.001, 0.041), errors)
    assert loss.startswith(
        "Image-level log loss: a minus b is +0.020 (exploratory 95 % interval -0.001 to +0.041;"
    )
    assert "An increase above 0.041 and a decrease above 0.001 are not compatible" in loss
    assert "below about 0.030 could" in loss
    assert "Lower is better" in loss
    assert "points" not in loss


def test_no_sentence_says_what_the_data_cannot() -> None:
    for score in ("case_auroc", "image_log_loss", "slide_balanced_accuracy"):
        found = compare_arms(three(), reference="r18", score=score)
        for pair in found["pairs"]:
            text = " ".join([pair["words"], *(item["words"] for item in pair["equivalence"])]).lower()
            assert "for this recipe, budget and laboratory" in text
            assert "25 cases, 10 benign; 4 seeds" in text
            for word in ("best", "patient", "are equal", "no difference", "significant"):
                assert word not in text


def test_equivalence_judges_what_can_be_shown() -> None:
    score = named_score("case_auroc")
    wide = equivalence(0.0, 0.02, 20, 0.01, score)
    assert wide.words == "equivalence within +-1 point cannot be shown with these cases"
    assert (wide.p_region, wide.largest_reachable) == pytest.approx((2 * stats.t.cdf(0.5, 20) - 1,) * 2)
    shown = equivalence(0.004, 0.008, 12, 0.03, score)
    expected = stats.t.cdf(0.026 / 0.008, 12) - stats.t.cdf(-0.034 / 0.008, 12)
    assert shown.p_region == pytest.approx(expected)
    assert shown.words.startswith("equivalence within +-3 points is supported")
    off = equivalence(0.04, 0.01, 12, 0.05, score)
    assert off.largest_reachable is not None
    assert off.largest_reachable > 0.95
    assert off.words.startswith("equivalence within +-5 points is not shown")
    assert equivalence(0.0, 0.001, 12, 0.01, named_score("case_brier")).words.startswith(
        "equivalence within +-0.01 is"
    )
