"""Comparing arms against hand computations, independent libraries, invariances, and input that must be refused."""

import json
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit
from statsmodels.stats.multitest import multipletests

from factories.replicates import FOLDS, changed, replicate, rows, seeds_of, three, without
from histo_lightning.data.breakhis.records import Record
from histo_lightning.evaluation import Table, make_table
from histo_lightning.evaluation.differences import Replicate, compare_levels
from histo_lightning.evaluation.levels import units
from histo_lightning.evaluation.registry import get_score, named_score, score_names

Floats = NDArray[np.float64]


def case_auroc_by_hand(r: Replicate, without: str = "") -> float:
    """Share of the case pairs of one fold that stand rightly."""
    means = {
        name: (r.table.p_malignant[r.table.case == name].mean(), r.fold[r.table.case == name][0])
        for name in np.unique(r.table.case)
        if name != without
    }
    truth = dict(zip(r.table.case, r.table.malignant, strict=True))
    points = []
    for (low, (p, k)), (high, (q, other)) in product(means.items(), means.items()):
        if truth[low] == 0 and truth[high] == 1 and k == other:
            points.append(1.0 if p < q else 0.5 if p == q else 0.0)
    return float(np.mean(points))


def test_the_difference_and_its_error_are_those_of_the_protocol() -> None:
    """Everything again with loops over cases, seeds and magnifications."""
    arms = {"a": seeds_of(0), "b": seeds_of(100, skill=1.5)}
    found = compare_levels(arms, reference="a")["pairs"][0]

    def difference(r: int, without: str = "") -> float:
        return float(
            np.mean(
                [
                    case_auroc_by_hand(arms["b"][m][r], without)
                    - case_auroc_by_hand(arms["a"][m][r], without)
                    for m in ("40x", "100x")
                ]
            )
        )

    each = [difference(r) for r in range(4)]
    assert found["difference"] == pytest.approx(np.mean(each))
    table = arms["a"]["40x"][0].table
    variances = []
    for c in (0, 1):
        names = np.unique(table.case[table.malignant == c])
        left = np.array([np.mean([difference(r, str(name)) for r in range(4)]) for name in names])
        variances.append((len(names) - 1) / len(names) * float(((left - left.mean()) ** 2).sum()))
    seeds = np.var(each, ddof=1) / 4
    se = np.sqrt(sum(variances) + seeds)
    df = se**4 / (variances[0] ** 2 / 9 + variances[1] ** 2 / 14 + seeds**2 / 3)
    assert found["se"] == pytest.approx(se)
    assert found["case_se"] == pytest.approx(np.sqrt(sum(variances)))
    assert found["seed_se"] == pytest.approx(np.sqrt(seeds))
    assert found["df"] == pytest.approx(df)
    assert found["p"] == pytest.approx(2 * stats.t.sf(abs(found["t"]), df))
    low, high = stats.t.interval(0.95, df, loc=np.mean(each), scale=se)
    assert (found["low"], found["high"]) == (pytest.approx(low), pytest.approx(high))
    assert found["minimum_detectable"] == pytest.approx(2.95 * se)
    # A family of one: the simultaneous interval is the interval.
    assert (found["simultaneous_low"], found["simultaneous_high"]) == (found["low"], found["high"])


@pytest.mark.parametrize("name", score_names())
def test_a_named_score_is_the_runs_own(name: str) -> None:
    level, score = named_score(name)
    assert f"{level}_{score.name}" == name
    assert score is get_score(score.name)
    r = replicate(5)
    here = units(r.table, level, fold=r.fold)
    found = compare_levels({"a": {"40x": [r]}, "b": {"40x": [replicate(6)]}}, reference="a", score=name)
    assert found["arms"]["a"]["value"] == pytest.approx(score.value(here), rel=1e-12)


def test_arms_report_their_own_score_and_its_spreads() -> None:
    arms = three()
    found = compare_levels(arms, reference="r18", score="slide_auroc")["arms"]["r34"]

    def slide(r: Replicate, *, pooled: bool = False) -> float:
        here = units(r.table, "slide", fold=r.fold)
        return get_score("auroc").value(here.as_one_fold() if pooled else here)

    by_seed = np.array([[slide(r) for r in block] for block in arms["r34"].values()])
    assert found["value"] == pytest.approx(by_seed.mean())
    assert found["value"] == found["within_fold_auroc"]
    assert found["by_magnification"]["100x"] == pytest.approx(by_seed[1].mean())
    assert found["seed_sd"] == pytest.approx(by_seed.mean(axis=0).std(ddof=1))
    pooled = [slide(r, pooled=True) for block in arms["r34"].values() for r in block]
    assert found["pooled_auroc"] == pytest.approx(np.mean(pooled))
    by_fold = [
        np.mean([slide(rows(r, r.fold == k)) for block in arms["r34"].values() for r in block])
        for k in range(FOLDS)
    ]
    assert found["fold_sd"] == pytest.approx(np.std(by_fold, ddof=1))
    assert "pooled_auroc" not in compare_levels(arms, reference="r18", score="image_brier")["arms"]["r34"]


def test_per_magnification_lines_are_the_comparison_at_that_magnification_and_holm_runs_over_the_table() -> (
    None
):
    arms = three()
    found = compare_levels(arms, reference="r18")
    alone = compare_levels({n: {"100x": a["100x"]} for n, a in arms.items()}, reference="r18")
    for pair, single in zip(found["pairs"], alone["pairs"], strict=True):
        line = pair["by_magnification"]["100x"]
        assert (line["difference"], line["se"], line["p"]) == (
            pytest.approx(single["difference"]),
            pytest.approx(single["se"]),
            pytest.approx(single["p"]),
        )
    p = [line["p"] for pair in found["pairs"] for line in pair["by_magnification"].values()]
    adjusted = [line["p_holm"] for pair in found["pairs"] for line in pair["by_magnification"].values()]
    assert adjusted == pytest.approx(multipletests(p, method="holm")[1])
    assert [pair["p_holm"] for pair in found["pairs"]] == pytest.approx(
        multipletests([pair["p"] for pair in found["pairs"]], method="holm")[1]
    )


def test_simultaneous_intervals_lie_between_one_comparison_and_bonferroni() -> None:
    found = compare_levels(three(), reference="r18")
    for pair in found["pairs"]:
        bonferroni = stats.t.ppf(1 - 0.05 / 4, pair["df"]) * pair["se"]
        half = (pair["high"] - pair["low"]) / 2
        wide = (pair["simultaneous_high"] - pair["simultaneous_low"]) / 2
        assert half < wide <= bonferroni * (1 + 1e-9)
        assert pair["p"] <= pair["p_simultaneous"] <= 2 * pair["p"]
        assert (pair["p_simultaneous"] < 0.05) == (
            pair["simultaneous_low"] > 0 or pair["simultaneous_high"] < 0
        )


def test_an_exploratory_family_has_no_simultaneous_interval() -> None:
    found = compare_levels(three(), reference="r18", primary=False)
    for pair in found["pairs"]:
        assert pair["simultaneous_low"] is pair["simultaneous_high"] is pair["p_simultaneous"] is None
        assert "exploratory 95 % interval" in pair["words"]
    assert found["draws"] == 0


def test_ranks_are_over_the_folds_with_seeds_and_magnifications_averaged() -> None:
    arms = three()
    found = compare_levels(arms, reference="r18")["friedman"]
    blocks = np.array(
        [
            [
                np.mean([case_auroc_by_hand(rows(r, r.fold == k)) for b in a.values() for r in b])
                for a in arms.values()
            ]
            for k in range(FOLDS)
        ]
    )
    expected = stats.friedmanchisquare(*blocks.T)
    assert found["descriptive"] is True
    assert found["blocks"] == FOLDS
    assert found["statistic"] == pytest.approx(expected.statistic)
    ranks = stats.rankdata(-blocks, axis=1).mean(axis=0)
    assert found["mean_ranks"] == pytest.approx(dict(zip(arms, ranks, strict=True)))


def test_secondary_lines_use_the_folds_of_the_mean_score() -> None:
    arms = {"a": seeds_of(0), "b": seeds_of(100, skill=1.5)}
    found = compare_levels(arms, reference="a")["pairs"][0]
    differences = np.array(
        [
            np.mean([case_auroc_by_hand(rows(r, r.fold == k)) for b in arms["b"].values() for r in b])
            - np.mean([case_auroc_by_hand(rows(r, r.fold == k)) for b in arms["a"].values() for r in b])
            for k in range(FOLDS)
        ]
    )
    factor = 1 / 5 + 1 / 3  # 25 cases in folds of 5: 5 / (25 - 10)
    line = found["nadeau_bengio"]
    assert line["variance_factor"] == pytest.approx(factor)
    assert line["t"] == pytest.approx(differences.mean() / np.sqrt(factor * differences.var(ddof=1)))
    assert line["df"] == 4
    low, high = stats.t.interval(0.95, 4, differences.mean(), np.sqrt(factor * differences.var(ddof=1)))
    assert (line["low"], line["high"]) == (pytest.approx(low), pytest.approx(high))
    assert sum(found["bayes"][key] for key in ("p_worse", "p_equivalent", "p_better")) == pytest.approx(1)


def test_better_is_lower_for_errors() -> None:
    arms = {"a": seeds_of(0, skill=0.5), "b": seeds_of(100, skill=3.0)}
    for score, sign in (("case_auroc", 1), ("case_log_loss", -1), ("image_brier", -1)):
        pair = compare_levels(arms, reference="a", score=score)["pairs"][0]
        assert np.sign(pair["difference"]) == sign
        assert pair["bayes"]["p_better"] > 0.9 > pair["bayes"]["p_worse"]
        ranks = compare_levels(arms, reference="a", score=score)["friedman"]["mean_ranks"]
        assert ranks["b"] < ranks["a"]


def plain(value: Any) -> Any:
    """Rounded, so that sums in another order are the same."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return round(value, 9) if isinstance(value, float) else value


def test_the_order_of_rows_replicates_arms_and_magnifications_is_moot() -> None:
    arms = three()
    expected = plain(compare_levels(arms, reference="r18", draws=300))
    random = np.random.default_rng(0)
    shuffled = changed(arms, lambda r: rows(r, random.permutation(len(r.table))))
    assert plain(compare_levels(shuffled, reference="r18", draws=300)) == expected
    turned = {n: {m: a[m][::-1] for m in reversed(a)} for n, a in arms.items()}
    assert plain(compare_levels(turned, reference="r18", draws=300)) == expected
    names = ("r50", "r18", "r34")
    found = plain(compare_levels({n: arms[n] for n in names}, reference="r18", draws=300))
    assert list(found["arms"]) == list(names)
    assert {p["arm"]: p for p in found["pairs"]} == {p["arm"]: p for p in expected["pairs"]}
    # Only the partition counts, not the folds' numbers (in one arm).
    renumbered = arms | {"r34": changed({"r34": arms["r34"]}, lambda r: r._replace(fold=4 - r.fold))["r34"]}
    assert plain(compare_levels(renumbered, reference="r18", draws=300)) == expected


def test_swapping_arm_and_reference_flips_the_signs() -> None:
    arms = {"a": seeds_of(0), "b": seeds_of(100, skill=1.5)}
    there, back = (compare_levels(arms, reference=name)["pairs"][0] for name in ("a", "b"))
    for key in ("difference", "t"):
        assert there[key] == pytest.approx(-back[key])
    for key in ("se", "df", "p", "p_holm"):
        assert there[key] == pytest.approx(back[key])
    assert (there["low"], there["simultaneous_high"]) == (
        pytest.approx(-back["high"]),
        pytest.approx(-back["simultaneous_low"]),
    )
    assert there["bayes"]["p_worse"] == pytest.approx(back["bayes"]["p_better"])
    assert there["nadeau_bengio"]["t"] == pytest.approx(-back["nadeau_bengio"]["t"])


def test_repeats_of_the_split_count_each_partition() -> None:
    """Seeds on one split are averaged by fold; repeats of the split give J = R K differences and no blocks."""

    def repeats(first: int, skill: float) -> dict[str, list[Replicate]]:
        return {"40x": [replicate(first + r, skill=skill, shift=r) for r in range(3)]}

    found = compare_levels({"a": repeats(0, 1.0), "b": repeats(100, 1.5)}, reference="a")
    assert found["replicates_are"] == "repeats of the split"
    pair = found["pairs"][0]
    assert pair["nadeau_bengio"]["df"] == 3 * FOLDS - 1
    assert pair["nadeau_bengio"]["variance_factor"] == pytest.approx(1 / 15 + 1 / 3)
    assert found["friedman"]["statistic"] is None
    assert "repeats of the split" in found["friedman"]["reason"]
    assert "3 repeats of the split" in pair["words"]
    assert "asks for at least 4" in found["notes"][0]


def test_one_seed_is_conditional() -> None:
    found = compare_levels({"a": seeds_of(0, seeds=1), "b": seeds_of(100, seeds=1)}, reference="a")
    pair = found["pairs"][0]
    assert pair["conditional"] == found["notes"][0]
    assert pair["conditional"].startswith("conditional on the fitted models; another training run may differ")
    assert (
        "Conditional on the fitted models; another training run may differ by more than this interval."
        in pair["words"]
    )
    assert pair["seed_se"] is None
    assert pair["se"] == pytest.approx(pair["case_se"])
    assert found["arms"]["a"]["seed_sd"] is None


def test_the_same_arm_twice_gives_reasons_instead_of_numbers() -> None:
    same = seeds_of(0)
    found = compare_levels({"a": same, "b": same, "c": seeds_of(100)}, reference="a")
    json.dumps(found, allow_nan=False)
    pair = found["pairs"][0]
    assert (pair["difference"], pair["se"]) == (0.0, 0.0)
    for key in ("df", "t", "p", "p_holm", "low", "high", "simultaneous_low", "minimum_detectable"):
        assert pair[key] is None, key
    assert "zero spread" in pair["reason"]
    assert "zero spread" in pair["words"]
    assert pair["nadeau_bengio"] is None
    assert all(item["p_region"] is None for item in pair["equivalence"])
    # The other comparison stands as if alone with its own family.
    assert found["pairs"][1]["simultaneous_low"] < found["pairs"][1]["difference"]


def test_two_folds_and_one_fold_leave_out_what_they_cannot_give() -> None:
    def merged(folds: int) -> dict[str, Any]:
        arms = changed({"a": seeds_of(0), "b": seeds_of(100)}, lambda r: r._replace(fold=r.fold % folds))
        return compare_levels(arms, reference="a")

    two, one = merged(2), merged(1)
    assert two["pairs"][0]["nadeau_bengio"] is None
    assert two["pairs"][0]["reason_over_folds"] == "fewer than 3 folds"
    assert two["friedman"]["p"] is not None
    assert one["friedman"]["reason"] == "fewer than 2 folds"
    assert one["pairs"][0]["p"] is not None
    assert one["arms"]["a"]["fold_sd"] is None
    json.dumps([one, two], allow_nan=False)


def test_a_fold_without_a_benign_case_is_told() -> None:
    """Four benign cases in five folds: the pooled score stands, lines over folds do not."""
    found = compare_levels({"a": seeds_of(0, benign=4), "b": seeds_of(100, benign=4)}, reference="a")
    assert found["friedman"]["reason"] == "the score is undefined in a fold"
    assert found["pairs"][0]["reason_over_folds"] == "the score is undefined in a fold"
    assert found["pairs"][0]["se"] > 0
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("score", score_names())
def test_every_score_gives_a_whole_answer(score: str) -> None:
    found = compare_levels(three(), reference="r18", score=score, draws=100)
    json.dumps(found, allow_nan=False)
    for pair in found["pairs"]:
        assert pair["simultaneous_low"] < pair["difference"] < pair["simultaneous_high"]
        assert pair["low"] <= pair["high"]
        assert 0 <= pair["p"] <= pair["p_holm"] <= 1


def test_a_case_missing_at_one_magnification_keeps_the_others_joint() -> None:
    """A copy may lack a case at 100x: leaving it out then changes 40x only."""
    arms = {
        n: {"40x": a["40x"], "100x": [without(r, "14-004") for r in a["100x"]]} for n, a in three().items()
    }
    found = compare_levels(arms, reference="r18", draws=200)
    assert found["cases"] == {"benign": 10, "malignant": 15}
    assert found["pairs"][0]["se"] > 0


def full_size(records: list[Record], seed: int) -> Replicate:
    random = np.random.default_rng(seed)
    names, case = np.unique([r.case for r in records], return_inverse=True)
    label = np.array([int(r.class_name == "malignant") for r in records])
    margin = 1 + random.normal(0, 1.4, len(names))[case] + random.normal(0, 1.4, len(records))
    logit = np.where(label == 1, margin, -margin)
    table: Table = make_table(
        "binary",
        image=[r.image for r in records],
        path=[r.path for r in records],
        class_name=[r.class_name for r in records],
        subtype=[r.subtype for r in records],
        slide=[r.slide for r in records],
        case=[r.case for r in records],
        magnification=[r.magnification for r in records],
        part="test",
        logits=np.column_stack([-logit / 2, logit / 2]),
    )
    np.testing.assert_allclose(table.p_malignant, expit(logit))
    return Replicate(table, (case % FOLDS).astype(np.int64))


def test_a_depth_study_of_the_full_set(census_records: list[Record]) -> None:
    """3 arms x 4 magnifications x 5 seeds on 7,786 images with 2,000 draws."""
    kept = [r for r in census_records if r.slide != "LC-14-13412"]
    assert len(kept) == 7786
    by_magnification = {f"{m}x": [r for r in kept if r.magnification == m] for m in (40, 100, 200, 400)}
    arms = {
        name: {m: [full_size(records, seed + r) for r in range(5)] for m, records in by_magnification.items()}
        for name, seed in (("r18", 0), ("r34", 10), ("r50", 20))
    }
    found = compare_levels(arms, reference="r18")
    assert found["cases"] == {"benign": 16, "malignant": 54}
    assert found["draws"] == 2000


def test_few_cases_fall_back_to_bonferroni_and_say_so() -> None:
    arms = {n: seeds_of(i, benign=3, malignant=4) for i, n in ((0, "r18"), (100, "r34"), (200, "r50"))}
    found = compare_levels(arms, reference="r18", draws=300)
    assert "by Bonferroni" in found["notes"][0]
    pair = found["pairs"][0]
    half = stats.t.ppf(1 - 0.05 / 4, pair["df"]) * pair["se"]
    assert pair["simultaneous_high"] == pytest.approx(pair["difference"] + half)
    assert "simultaneous 95 % interval" in pair["words"]
