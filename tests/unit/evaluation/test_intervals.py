"""Intervals against published values, second implementations, and scipy's bootstrap."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from factories.predictions import random_table
from histo_lightning.evaluation import Table
from histo_lightning.evaluation.intervals import (
    EXPANDED_BCA,
    Z,
    acceleration,
    bca,
    case_weights,
    expanded_z,
    mover_mean,
    newcombe_auroc,
    wilson,
)
from histo_lightning.evaluation.levels import Units, units
from histo_lightning.evaluation.registry import all_scores, get_score
from histo_lightning.evaluation.scores import Statistic, auroc_of
from histo_lightning.evaluation.summary import score_units


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_newcombes_published_table(successes: int, n: int, low: float, high: float) -> None:
    """Newcombe 1998, Stat Med 17:857-872, table I, method 3."""
    assert wilson(successes, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipy(data: tuple[int, int]) -> None:
    successes, n = data
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson(successes, n) == (
        pytest.approx(expected.low, abs=1e-9),
        pytest.approx(expected.high, abs=1e-9),
    )


def test_mover_gives_newcombes_published_difference() -> None:
    """Newcombe 1998, Stat Med 17:873-890, table II, method 10: 56/70 - 48/80 is .0524 to .3339.

    A difference a - b is twice the mean of a and -b, whose interval is (-upper, -lower) of b's.
    """
    first, second = wilson(56, 70), wilson(48, 80)
    low, high = mover_mean(56 / 70, -48 / 80, first, (-second[1], -second[0]))
    assert (2 * low, 2 * high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


def newcombe_by_bisection(auroc: float, m: int, n: int) -> tuple[float, float]:
    """Method 5 from its definition: bisect |t - auroc| = z sqrt(V(t)) on either side."""
    star = (m + n) / 2 - 1

    def gap(t: float) -> float:
        variance = t * (1 - t) * (1 + star * (1 - t) / (2 - t) + star * t / (1 + t)) / (m * n)
        return abs(t - auroc) - stats.norm.ppf(0.975) * np.sqrt(variance)

    def bisect(outside: float, inside: float) -> float:
        for _ in range(200):
            middle = (outside + inside) / 2
            outside, inside = (middle, inside) if gap(middle) > 0 else (outside, middle)
        return outside

    return (bisect(0.0, auroc) if auroc > 0 else 0.0, bisect(1.0, auroc) if auroc < 1 else 1.0)


@given(st.floats(0.001, 0.999), st.integers(1, 200), st.integers(1, 200))
def test_newcombe_equals_its_definition(auroc: float, m: int, n: int) -> None:
    np.testing.assert_allclose(newcombe_auroc(auroc, m, n), newcombe_by_bisection(auroc, m, n), atol=1e-6)


@pytest.mark.parametrize(("m", "n"), [(16, 54), (3, 11), (1, 1), (5, 5)])
def test_newcombe_at_the_ends(m: int, n: int) -> None:
    low, high = newcombe_auroc(1.0, m, n)
    assert high == 1.0
    assert low == pytest.approx(newcombe_by_bisection(1.0, m, n)[0], abs=1e-6)
    assert low < 0.99
    assert newcombe_auroc(0.0, m, n) == (pytest.approx(0, abs=1e-12), pytest.approx(1 - low, abs=1e-9))


def test_expansion_by_hand() -> None:
    """kappa 9.5: sqrt(9.5/8.5) t_(8.5, .975)."""
    assert expanded_z(9.5) == pytest.approx(np.sqrt(9.5 / 8.5) * stats.t.ppf(0.975, 8.5))
    assert expanded_z(1e7) == pytest.approx(Z, rel=1e-5)


def test_weights_draw_as_many_cases_in_each_class() -> None:
    case_class = np.array([0] * 16 + [1] * 54)
    weights = case_weights(case_class, 2000, 0)
    assert (weights[:, :16].sum(axis=1) == 16).all()
    assert (weights[:, 16:].sum(axis=1) == 54).all()
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.1)
    np.testing.assert_allclose(weights.var(axis=0)[:16], 15 / 16, atol=0.15)
    np.testing.assert_array_equal(weights, case_weights(case_class, 2000, 0))
    assert (weights != case_weights(case_class, 2000, 1)).any()


def weighted(here: Units, task: str = "binary") -> dict[str, Statistic]:
    """Every score of a level that has an interval, as a function of case weights."""
    return {s.name: s.statistic(here) for s in all_scores(task, here.level) if not s.no_interval}


def repeated(table: Table, weights: np.ndarray) -> np.ndarray:
    """Row indices of a table whose cases stand as often as the weights say."""
    cases = np.unique(table.case)
    return np.concatenate(
        [np.tile(np.flatnonzero(table.case == case), int(w)) for case, w in zip(cases, weights, strict=True)]
    )


@pytest.mark.parametrize("level", ["image", "slide", "case"])
@pytest.mark.parametrize("seed", range(3))
def test_a_draw_scores_like_the_repeated_rows(level: str, seed: int) -> None:
    """Weighted formulas against plain scores of a table in which cases really stand several times."""
    table = random_table(7, 9, seed)
    here = units(table, level)
    weights = case_weights(here.case_class, 4, seed)
    for name, statistic in weighted(here).items():
        drawn = statistic(weights)
        for b in range(4):
            rows = np.repeat(np.arange(len(here)), weights[b][here.case].astype(int))
            taken = Units(
                level,
                *(
                    getattr(here, f)[rows]
                    for f in ("truth", "probabilities", "decision", "correct_share", "fold", "case")
                ),
                here.cases,
                here.case_class,
                True,
            )
            expected = get_score(name).value(taken)
            assert drawn[b] == pytest.approx(expected, rel=1e-5, abs=1e-5, nan_ok=True), (name, b)


def test_an_image_draw_equals_scikit_learn_on_the_repeated_rows() -> None:
    table = random_table(6, 8, 3)
    here = units(table, "image")
    weights = case_weights(here.case_class, 5, 0)
    statistics = weighted(here)
    for b in range(5):
        rows = repeated(table, weights[b])
        truth, p = table.label[rows], table.p_malignant[rows]
        found = {name: statistic(weights)[b] for name, statistic in statistics.items()}
        assert found["auroc"] == pytest.approx(metrics.roc_auc_score(truth, p))
        assert found["auprc"] == pytest.approx(metrics.average_precision_score(truth, p))
        assert found["mcc"] == pytest.approx(metrics.matthews_corrcoef(truth, table.predicted[rows]))
        assert found["brier"] == pytest.approx(metrics.brier_score_loss(truth, p))


def test_an_eight_class_draw_equals_scikit_learn_on_the_repeated_rows() -> None:
    table = random_table(25, 25, 1, "subtype")
    here = units(table, "image", binary=False)
    weights = case_weights(here.case_class, 3, 0)
    for b in range(3):
        rows = repeated(table, weights[b])
        truth, called = table.label[rows], table.predicted[rows]
        found = {name: statistic(weights)[b] for name, statistic in weighted(here, "subtype").items()}
        assert found["accuracy"] == found["micro_f1"] == pytest.approx(metrics.accuracy_score(truth, called))
        assert found["mcc"] == pytest.approx(metrics.matthews_corrcoef(truth, called))
        assert found["f1"] == pytest.approx(
            metrics.f1_score(truth, called, labels=np.unique(truth), average="macro")
        )
        assert found["log_loss"] == pytest.approx(
            metrics.log_loss(truth, here.probabilities[rows], labels=range(8))
        )
        one = (truth == 4).astype(int)
        assert found["recall_DC"] == pytest.approx(metrics.recall_score(one, called == 4))


def singletons(benign: int, malignant: int, seed: int) -> Table:
    """Each case one image."""
    return random_table(benign, malignant, seed, most=1, signal=0.7)


@pytest.mark.parametrize("seed", range(3))
def test_bca_of_single_images_equals_scipy(seed: int) -> None:
    """Un-expanded, AUROC of two samples; both bootstraps are random, so the ends agree to sampling error."""
    table = singletons(30, 40, seed)
    here = units(table, "image")
    statistic = auroc_of(here, here.truth == 1, here.p)
    count = len(here.cases)
    left_out = statistic(np.ones((count, count)) - np.eye(count))
    by_class = [left_out[here.case_class == c] for c in (0, 1)]
    value = float(statistic(np.ones((1, count)))[0])
    ours = bca(value, statistic(case_weights(here.case_class, 20_000, seed)), acceleration(by_class))

    def auroc(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        pairs = (x[..., :, None] < y[..., None, :]) + 0.5 * (x[..., :, None] == y[..., None, :])
        return pairs.mean(axis=(-2, -1))

    p = table.p_malignant
    expected = stats.bootstrap(
        (p[table.label == 0], p[table.label == 1]),
        auroc,
        n_resamples=20_000,
        batch=500,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    assert ours == (pytest.approx(expected.low, abs=0.006), pytest.approx(expected.high, abs=0.006))


def test_bca_of_a_mean_equals_scipy_given_the_same_draws() -> None:
    """One sample, one class: the same resamples give the same ends."""
    x = np.random.default_rng(5).gamma(1.0, size=25)
    draws = stats.bootstrap(
        (x,), np.mean, n_resamples=5000, method="BCa", rng=np.random.default_rng(0), vectorized=True
    )
    left_out = np.array([np.delete(x, i).mean() for i in range(25)])
    ours = bca(float(x.mean()), draws.bootstrap_distribution, acceleration([left_out]))
    expected = draws.confidence_interval
    assert ours == (pytest.approx(expected.low, rel=1e-9), pytest.approx(expected.high, rel=1e-9))


def test_expansion_widens() -> None:
    draws = np.random.default_rng(0).normal(size=4000)
    plain, wide = bca(0.0, draws, 0.02), bca(0.0, draws, 0.02, expanded_z(9.5))
    assert wide[0] < plain[0] < plain[1] < wide[1]


def test_acceleration_weighs_classes_as_the_protocol_does() -> None:
    left_out = [np.array([0.9, 0.8, 0.85, 0.7, 0.88]), np.array([0.81, 0.83, 0.79, 0.82, 0.6, 0.84, 0.9])]
    influences = [(n - 1) / n * (sum(t) / n - x) for t, n in ((left_out[0], 5), (left_out[1], 7)) for x in t]
    expected = sum(i**3 for i in influences) / (6 * sum(i**2 for i in influences) ** 1.5)
    assert acceleration(left_out) == pytest.approx(expected)
    assert acceleration([np.ones(5), np.ones(6)]) == 0


def test_ties_count_half_in_the_bias() -> None:
    draws = np.repeat([0.0, 1.0, 2.0], [30, 50, 20])
    z0 = stats.norm.ppf((30 + 80) / 2 / 100)
    expected = [np.quantile(draws, stats.norm.cdf(2 * z0 + z)) for z in (-1.0, 1.0)]
    assert bca(1.0, draws, 0.0, 1.0) == (pytest.approx(expected[0]), pytest.approx(expected[1]))
    assert expected[0] != expected[1]


@pytest.mark.parametrize(
    ("level", "score"), [("image", "auroc"), ("image", "sensitivity"), ("slide", "auroc")]
)
def test_the_expansion_uses_kish_by_image_and_cases_by_slide(level: str, score: str) -> None:
    here = units(random_table(9, 12, 2), level)
    found = score_units(here, draws=400, seed=7)[score]
    sizes = np.bincount(here.case)[here.case_class == (1 if score == "sensitivity" else 0)]
    kappa = sizes.sum() ** 2 / (sizes**2).sum() if level == "image" else 9
    statistic = weighted(here)[score]
    left_out = statistic(1 - np.eye(21))
    expected = bca(
        float(statistic(np.ones((1, 21)))[0]),
        statistic(case_weights(here.case_class, 400, 7)),
        acceleration([left_out[here.case_class == c] for c in (0, 1)]),
        np.sqrt(kappa / (kappa - 1)) * stats.t.ppf(0.975, kappa - 1),
    )
    assert (found["low"], found["high"]) == (pytest.approx(expected[0]), pytest.approx(expected[1]))


def test_bca_survives_draws_on_one_side_and_strong_skew() -> None:
    draws = np.linspace(0, 1, 500)
    assert bca(-1.0, draws, 0.0)[0] == pytest.approx(0, abs=1e-9)
    assert bca(2.0, draws, 0.0)[1] == pytest.approx(1)
    for a in (-5.0, 5.0):
        low, high = bca(0.5, draws, a)
        assert 0 <= low <= 1
        assert 0 <= high <= 1


def test_case_level_gets_closed_forms_and_the_rest_the_bootstrap() -> None:
    here = units(random_table(9, 12, 2), "case")
    found = score_units(here, draws=300)
    tp = int(((here.truth == 1) & (here.decision == 1)).sum())
    tn = int(((here.truth == 0) & (here.decision == 0)).sum())
    assert (found["sensitivity"]["low"], found["sensitivity"]["high"]) == wilson(tp, 12)
    assert (found["specificity"]["low"], found["specificity"]["high"]) == wilson(tn, 9)
    assert (found["accuracy"]["low"], found["accuracy"]["high"]) == wilson(tp + tn, 21)
    assert (found["auroc"]["low"], found["auroc"]["high"]) == newcombe_auroc(found["auroc"]["value"], 9, 12)
    assert (found["balanced_accuracy"]["low"], found["balanced_accuracy"]["high"]) == mover_mean(
        tp / 12, tn / 9, wilson(tp, 12), wilson(tn, 9)
    )
    methods = {
        found[n]["method"] for n in ("accuracy", "sensitivity", "specificity", "balanced_accuracy", "auroc")
    }
    assert methods == {"Wilson", "MOVER of two Wilson intervals", "Newcombe method 5"}
    assert {found[n]["method"] for n in ("brier", "log_loss", "auprc")} == {EXPANDED_BCA}
    assert (found["auroc"]["cases"], found["auroc"]["cases_smaller_class"], found["auroc"]["kish"]) == (
        21,
        9,
        9,
    )
    assert (found["auroc"]["draws"], found["brier"]["draws"]) == (None, 300)
    assert found["ece"]["low"] is None
    assert found["ece"]["reason"]


def test_every_image_interval_holds_its_value_and_says_what_it_rests_on() -> None:
    here = units(random_table(9, 12, 2), "image")
    for name, found in score_units(here, draws=300).items():
        if name == "ece":
            continue
        assert found["low"] is not None, (name, found["reason"])
        assert found["low"] <= found["value"] <= found["high"], name
        assert found["cases"] == {"sensitivity": 12, "specificity": 9}.get(name, 21)
        assert found["kish"] < found["cases_smaller_class"]


def test_fewer_than_five_cases_have_no_bootstrap_interval() -> None:
    table = random_table(4, 12, 1)
    found = {level: score_units(units(table, level), draws=200) for level in ("image", "case")}
    assert found["image"]["auroc"]["low"] is None
    assert "4 benign" in found["image"]["auroc"]["reason"]
    assert found["image"]["specificity"]["low"] is None
    assert found["image"]["sensitivity"]["low"] is not None, "sensitivity rests on malignant cases alone"
    assert found["case"]["auroc"]["method"] == "Newcombe method 5"
    assert "4 benign" in found["case"]["brier"]["reason"]


def test_zero_spread_has_no_bootstrap_interval() -> None:
    table = random_table(6, 8, 1)
    perfect = replace(table, p_malignant=table.label.astype(float), predicted=table.label)
    image = score_units(units(perfect, "image"), draws=200)
    assert image["auroc"]["low"] is None
    assert "zero spread" in image["auroc"]["reason"]
    case = score_units(units(perfect, "case"), draws=200)
    assert case["auroc"]["high"] == 1.0
    assert 0.5 < case["auroc"]["low"] < 0.99
    assert (case["sensitivity"]["low"], case["sensitivity"]["high"]) == wilson(8, 8)


def test_slides_of_a_case_stay_together() -> None:
    """A draw weighs both slides of a case alike: the statistic takes one weight a case."""
    table = random_table(6, 6, 4)
    here = units(table, "slide")
    assert len(here) > len(here.cases)
    statistic = weighted(here)["patient_recognition_rate"]
    for c in range(len(here.cases)):
        weights = np.zeros((1, len(here.cases)))
        weights[0, c] = 1
        assert statistic(weights)[0] == pytest.approx(here.correct_share[here.case == c].mean())


def test_eight_class_intervals_leave_out_rare_classes() -> None:
    table = random_table(30, 40, 6, "subtype", signal=1.5)
    rare = (table.subtype == "A") & (table.case != table.case[table.subtype == "A"][0])
    here = units(table.rows(~rare), "case", binary=False)
    found = score_units(here, "subtype", draws=300)
    assert found["balanced_accuracy"]["low"] is None
    assert "of A" in found["balanced_accuracy"]["reason"]
    assert found["balanced_accuracy_headline"]["low"] is not None
    assert found["recall_A"]["method"] == "Wilson"
    assert found["recall_A"]["cases"] == 1
    image = score_units(units(table.rows(~rare), "image", binary=False), "subtype", draws=300)
    assert image["recall_A"]["low"] is None
    assert image["recall_DC"]["method"] == EXPANDED_BCA
