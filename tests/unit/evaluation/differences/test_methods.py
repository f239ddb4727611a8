"""The parts of a comparison against scipy, statsmodels, scikit-posthocs, baycomp and published tables."""

import baycomp
import numpy as np
import pytest
import scikit_posthocs
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

from histo_lightning.evaluation.differences.methods import (
    correlated_t,
    friedman,
    holm,
    largest_deviations,
    paired,
    rotating_ratio,
    simultaneous_p,
    single_level,
)

Floats = NDArray[np.float64]


def test_the_jackknife_of_a_mean_is_the_textbook_variance() -> None:
    """With a mean over the cases of one class the jackknife is s^2 / n, and without spread over seeds t is Student's."""
    x = np.random.default_rng(0).normal(size=12)
    left = (x.sum() - x) / 11
    here = paired(np.array([x.mean()]), left[None], np.zeros(12, np.int64))
    expected = stats.ttest_1samp(x, 0)
    assert here.se == pytest.approx(stats.sem(x))
    assert here.df == pytest.approx(11)
    assert here.p == pytest.approx(expected.pvalue)


def test_two_classes_give_welchs_t() -> None:
    """A difference of two class means has one component a class: Welch's test, Satterthwaite's df."""
    random = np.random.default_rng(1)
    x, y = random.normal(size=7), random.normal(0.5, 3, size=11)
    value = x.mean() - y.mean()
    left = np.concatenate([(x.sum() - x) / 6 - y.mean(), x.mean() - (y.sum() - y) / 10])
    here = paired(np.array([value]), left[None], np.array([0] * 7 + [1] * 11))
    expected = stats.ttest_ind(x, y, equal_var=False)
    assert (here.t, here.df, here.p) == (
        pytest.approx(expected.statistic),
        pytest.approx(expected.df),
        pytest.approx(expected.pvalue),
    )


def test_holm_equals_statsmodels() -> None:
    random = np.random.default_rng(6)
    for count in (1, 2, 7, 20):
        p = np.round(random.uniform(0, 1, count) ** 3, 2)  # with ties
        np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])
        with_gap = holm(np.array([*p, np.nan]))
        np.testing.assert_allclose(with_gap[:-1], holm(p))
        assert np.isnan(with_gap[-1])


def normal_level(correlation: Floats, draws: int = 200_000) -> float:
    """The level of each of several comparisons whose deviations are normal over cases, without training noise."""
    random = np.random.default_rng(0)
    resampled = random.multivariate_normal(np.zeros(len(correlation)), correlation, draws).T
    count = len(correlation)
    largest = largest_deviations(
        resampled, np.zeros((count, 1)), np.full(count, 0.7), np.full(count, np.nan), 0
    )
    return single_level(largest, count, 0.95)


def test_max_t_meets_sidak_dunnett_and_one_comparison() -> None:
    independent = 1 - normal_level(np.eye(3))
    assert independent == pytest.approx(1 - 0.95 ** (1 / 3), rel=0.03)
    shared = np.full((2, 2), 0.5) + 0.5 * np.eye(2)
    # Dunnett 1955, two treatments and a control, known variance: |d| = 2.212.
    critical = -stats.norm.ppf((1 - normal_level(shared)) / 2)
    assert critical == pytest.approx(2.212, abs=0.015)
    assert stats.multivariate_normal(cov=shared).cdf(
        [critical] * 2, lower_limit=[-critical] * 2
    ) == pytest.approx(0.95, abs=0.002)
    together = normal_level(np.full((4, 4), 1.0) + 1e-9 * np.eye(4))
    assert 1 - together == pytest.approx(0.05, rel=0.03)


def test_training_noise_joins_the_family_with_its_own_correlation() -> None:
    """Case noise alone is fully shared, training noise independent and as large: between one and independent."""
    random = np.random.default_rng(1)
    common = random.normal(size=100_000)
    seeds = np.linalg.qr(random.normal(size=(8, 3)) - 0.0)[0].T
    seeds -= seeds.mean(axis=1, keepdims=True)
    seeds = np.linalg.inv(np.linalg.cholesky(np.cov(seeds))) @ seeds  # covariance exactly 1
    found = largest_deviations(np.stack([common] * 3), seeds, *[np.full(3, 1 / np.sqrt(8))] * 2, 0)
    half = np.full((3, 3), 0.5) + 0.5 * np.eye(3)
    critical = -stats.norm.ppf((1 - single_level(found, 3, 0.95)) / 2)
    inside = stats.multivariate_normal(cov=half, seed=0).cdf([critical] * 3, lower_limit=[-critical] * 3)
    assert inside == pytest.approx(0.95, abs=0.003)


def test_friedman_equals_scipy_and_nemenyi_scikit_posthocs() -> None:
    random = np.random.default_rng(3)
    for blocks in (random.normal(size=(5, 4)), np.round(random.normal(size=(5, 3)))):
        ranks = friedman(blocks)
        expected = stats.friedmanchisquare(*blocks.T)
        assert (ranks["statistic"], ranks["p"]) == (
            pytest.approx(expected.statistic),
            pytest.approx(expected.pvalue),
        )
        turned = friedman(-blocks, lower_is_better=True)
        np.testing.assert_allclose(turned["mean_rank"], ranks["mean_rank"])
        # Ranks further apart than the critical difference are those with p < .05.
        p = scikit_posthocs.posthoc_nemenyi_friedman(blocks).to_numpy()
        apart = np.abs(np.subtract.outer(ranks["mean_rank"], ranks["mean_rank"]))
        np.testing.assert_array_equal(apart > ranks["critical_difference"], p < 0.05)


def test_the_critical_difference_is_demsars() -> None:
    """Demsar 2006, section 3.2.3: four classifiers on 14 data sets, q = 2.569, CD = 1.25."""
    blocks = np.random.default_rng(0).normal(size=(14, 4))
    assert friedman(blocks)["critical_difference"] == pytest.approx(1.25, abs=0.005)


def test_friedman_of_two_arms_and_of_tied_arms() -> None:
    won = friedman(np.array([[0.0, 1.0]] * 5))
    assert won["statistic"] == pytest.approx(5.0)  # (5 - 0)^2 / 5, the sign test's chi-square
    tied = friedman(np.ones((5, 3)))
    assert (tied["statistic"], tied["p"], tied["mean_rank"]) == (0.0, 1.0, [2.0, 2.0, 2.0])


def test_corrected_t_equals_baycomp_for_plain_k_fold() -> None:
    """There n_test / n_train = 1 / (K - 1); repeated runs count as J = runs K."""
    random = np.random.default_rng(4)
    for runs, folds in ((1, 5), (1, 10), (3, 5)):
        x = random.normal(0.8, 0.02, runs * folds)
        y = x + random.normal(0.01, 0.01, runs * folds)
        found = correlated_t(y - x, 1 / (folds - 1))
        assert found is not None
        expected = baycomp.CorrelatedTTest(x, y, rope=0.01, runs=runs)
        assert found["scale"] ** 2 == pytest.approx(expected.var)
        assert found["df"] == expected.df
        left, within, right = baycomp.CorrelatedTTest.probs(x, y, rope=0.01, runs=runs)
        # baycomp tells first the probability that x, the first model, is better.
        assert (found["below"], found["within"], found["above"]) == pytest.approx((left, within, right))
        assert found["p"] == pytest.approx(2 * stats.t.sf(abs(found["t"]), runs * folds - 1))


def test_rotating_validation_has_a_third_in_test_for_each_in_train() -> None:
    assert rotating_ratio(np.repeat(np.arange(5), 14)) == pytest.approx(1 / 3)
    fold = np.repeat(np.arange(3), [4, 5, 6])
    assert rotating_ratio(fold) == pytest.approx(np.mean([4 / 6, 5 / 4, 6 / 5]))


def test_without_usable_resamples_bonferroni_stands_in() -> None:
    resampled = np.random.default_rng(0).normal(size=(3, 200))
    resampled[1, :3] = np.nan  # 1.5 % undefined
    found = largest_deviations(resampled, np.zeros((3, 4)), np.ones(3), np.zeros(3), 0)
    assert not len(found)
    assert single_level(found, 3, 0.95) == pytest.approx(1 - 0.05 / 3)
    assert simultaneous_p(found, np.array([0.01, 0.5, np.nan]))[:2].tolist() == pytest.approx([0.03, 1.0])
    resampled[1, 1:3] = 0.0
    assert len(largest_deviations(resampled, np.zeros((3, 4)), np.ones(3), np.zeros(3), 0))


def interactions(wins: Floats) -> Floats:
    """(1, pairs) of one replicate's (benign, malignant) wins, by leaving cases out of the mean one by one."""
    weights = np.ones(wins.shape)

    def without(*gone: tuple[int, int]) -> float:
        kept = weights.copy()
        for axis, i in gone:
            kept[(slice(None),) * axis + (i,)] = 0
        return float((wins * kept).sum() / kept.sum())

    n, m = wins.shape
    return np.array(
        [
            without() - without((0, i)) - without((1, j)) + without((0, i), (1, j))
            for i in range(n)
            for j in range(m)
        ]
    )[None]


@pytest.mark.parametrize(("of_case", "most"), [(0.7, 1.05), (0.0, 1.5)])
def test_by_pairs_the_variance_of_an_auroc_is_unbiased_where_the_jackknife_is_not(
    of_case: float, most: float
) -> None:
    """Two-sample U-statistics with a known variance; the floor (one class's own) lifts it only where all is interaction."""
    random = np.random.default_rng(5)
    n, m, case_class = 8, 10, np.repeat([0, 1], [8, 10])
    jackknife, by_pairs = [], []
    for _ in range(600):
        wins = random.normal(size=(n, m)) + of_case * (random.normal(size=(n, 1)) + random.normal(size=m))
        left = [np.delete(wins, i, 0).mean() for i in range(n)]
        left += [np.delete(wins, j, 1).mean() for j in range(m)]
        value, left_out = np.array([wins.mean()]), np.array([left])
        jackknife.append(float(paired(value, left_out, case_class).case_se ** 2))
        by_pairs.append(float(paired(value, left_out, case_class, interactions(wins)).case_se ** 2))
    truth = of_case**2 * (1 / n + 1 / m) + 1 / (n * m)
    assert np.mean(jackknife) == pytest.approx(truth + 1 / (n * m), rel=0.06)
    assert 0.95 * truth <= np.mean(by_pairs) <= most * truth


def test_training_noise_of_cases_is_counted_once() -> None:
    """Runs that differ by noise of their cases alone: over cases it is in the mean already, so nothing is added for the runs."""
    random = np.random.default_rng(6)
    case_class, runs = np.repeat([0, 1], 40), 5
    shares = []
    for _ in range(200):
        scores = random.normal(size=(runs, 80))
        value = scores.mean(axis=1)
        left_out = (scores.sum(axis=1, keepdims=True) - scores) / 79
        plain = paired(value, left_out, case_class)
        once = paired(value, left_out, case_class, np.zeros((runs, 1)))
        assert once.seed_se <= plain.seed_se
        shares.append(float(once.se**2 / plain.se**2))
        assert once.case_se == pytest.approx(float(plain.case_se))
    assert np.mean(shares) < 0.75
