"""Every score against an independent source: scikit-learn, or the definition written out."""

import warnings
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics
from sklearn.linear_model import LogisticRegression

from factories.predictions import units_of
from histo_lightning.data.breakhis.names import SUBTYPES
from histo_lightning.evaluation import all_scores, get_score, scores
from histo_lightning.evaluation.calibration import fit, logit, refit, sigmoid
from histo_lightning.evaluation.levels import Units

ATOL = 1e-12


@st.composite
def binary_units(draw: st.DrawFn, both: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Truths and probabilities; a coarse grid makes many ties."""
    n = draw(st.integers(2, 40))
    truth = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 1)))
    p = draw(
        st.one_of(
            hnp.arrays(np.float64, n, elements=st.floats(0, 1)),
            hnp.arrays(np.float64, n, elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])),
        )
    )
    assume(not both or 0 < truth.sum() < n)
    return truth, p


def value(name: str, units: Units, task: str = "binary") -> float:
    return get_score(name, task).value(units)


@given(binary_units())
def test_binary_scores_equal_scikit_learn(data: tuple[np.ndarray, np.ndarray]) -> None:
    truth, p = data
    called = (p >= 0.5).astype(np.int64)
    expected = {
        "accuracy": metrics.accuracy_score(truth, called),
        "micro_f1": metrics.f1_score(truth, called, average="micro"),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, called),
        "f1": metrics.f1_score(truth, called),
        "mcc": metrics.matthews_corrcoef(truth, called),
        "sensitivity": metrics.recall_score(truth, called),
        "specificity": metrics.recall_score(truth, called, pos_label=0),
        "auroc": metrics.roc_auc_score(truth, p),
        "auprc": metrics.average_precision_score(truth, p),
        "auprc_benign": metrics.average_precision_score(truth, 1 - p, pos_label=0),
        "brier": metrics.brier_score_loss(truth, p),
    }
    for name, wanted in expected.items():
        assert value(name, units_of(truth, p)) == pytest.approx(wanted, abs=ATOL), name
    assert value("log_loss", units_of(truth, p)) == pytest.approx(
        metrics.log_loss(truth, p), rel=1e-9, abs=1e-9
    )
    np.testing.assert_array_equal(
        scores.confusion(truth, called, 2), metrics.confusion_matrix(truth, called, labels=[0, 1])
    )


@pytest.mark.parametrize("only", [0, 1])
def test_one_class_leaves_scores_undefined(only: int) -> None:
    truth = np.full(4, only)
    here = units_of(truth, np.array([0.1, 0.4, 0.6, 0.9]))
    undefined = {s.name for s in all_scores(level="image") if np.isnan(s.value(here))}
    assert undefined == {
        "balanced_accuracy", "mcc", "auroc", "auprc", "auprc_benign", "calibration_intercept", "calibration_slope",
    } | ({"specificity"} if only else {"sensitivity", "f1"})  # fmt: skip
    assert scores.why_undefined(truth) == f"only {('benign', 'malignant')[only]} cases here"


@given(binary_units(), st.integers(1, 4), st.randoms(use_true_random=False))
def test_auroc_counts_only_pairs_of_one_fold(
    data: tuple[np.ndarray, np.ndarray], folds: int, random: object
) -> None:
    truth, p = data
    fold = np.array([random.randrange(folds) for _ in truth])  # type: ignore[attr-defined]
    right = pairs = 0.0
    for b, m in product(np.flatnonzero(truth == 0), np.flatnonzero(truth == 1)):
        if fold[b] == fold[m]:
            pairs += 1
            right += 1.0 if p[b] < p[m] else 0.5 if p[b] == p[m] else 0.0
    expected = right / pairs if pairs else float("nan")
    assert value("auroc", units_of(truth, p, fold)) == pytest.approx(expected, abs=ATOL, nan_ok=True)


@given(binary_units(both=False), st.randoms(use_true_random=False))
def test_ece_is_its_definition_and_blind_to_row_order(
    data: tuple[np.ndarray, np.ndarray], random: object
) -> None:
    truth, p = data
    shuffled = np.array(random.sample(range(len(p)), len(p)))  # type: ignore[attr-defined]
    assert scores.ece(truth, p) == pytest.approx(scores.ece(truth[shuffled], p[shuffled]), abs=ATOL)
    bins = scores.bin_index(p)
    assert len(np.unique(bins)) <= 5
    gaps = [(bins == b).mean() * abs(truth[bins == b].mean() - p[bins == b].mean()) for b in np.unique(bins)]
    assert scores.ece(truth, p) == pytest.approx(sum(gaps), abs=ATOL)
    for first, second in product(range(len(p)), repeat=2):
        if p[first] == p[second]:
            assert bins[first] == bins[second], "a tie was torn apart"


def test_ece_bins_have_equal_mass() -> None:
    p = np.random.default_rng(0).random(70)
    assert np.bincount(scores.bin_index(p)).tolist() == [14] * 5
    order = np.argsort(p)
    assert (np.diff(scores.bin_index(p)[order]) >= 0).all()


def test_expected_ece_of_a_calibrated_model_by_simulation() -> None:
    random = np.random.default_rng(1)
    p = random.beta(0.6, 0.4, 70)
    drawn = [scores.ece((random.random(70) < p).astype(np.int64), p) for _ in range(4000)]
    assert scores.ece_if_calibrated(p) == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / np.sqrt(4000))


def test_ece_of_certain_and_right_predictions_is_zero() -> None:
    truth = np.array([0, 0, 1, 1, 1])
    assert scores.ece(truth, truth.astype(float)) == 0
    assert scores.ece_if_calibrated(truth.astype(float)) == 0


def joint_fit(truth: np.ndarray, x: np.ndarray, weights: np.ndarray | None = None) -> LogisticRegression:
    return LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(
        x[:, None], truth, sample_weight=weights
    )


@pytest.mark.parametrize("seed", range(5))
def test_calibration_slope_equals_scikit_learn(seed: int) -> None:
    random = np.random.default_rng(seed)
    p = random.random(120)
    truth = (random.random(120) < sigmoid(0.7 + 0.6 * logit(p))).astype(np.int64)
    intercept, slope = (value(f"calibration_{name}", units_of(truth, p)) for name in ("intercept", "slope"))
    assert slope == pytest.approx(joint_fit(truth, logit(p)).coef_[0, 0], rel=1e-4)
    # At the intercept the mean of the moved probabilities is the observed frequency: its score equation.
    assert sigmoid(logit(p) + intercept).mean() == pytest.approx(truth.mean(), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_all_draws_of_a_refit_equal_scikit_learn_one_by_one(seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.normal(size=80)
    truth = (random.random(80) < sigmoid(0.5 + 0.8 * x)).astype(np.int64)
    design = np.column_stack([np.ones(80), x])
    weights = random.integers(0, 4, size=(80, 6)).astype(float)
    start = fit(truth, np.zeros(80), design)
    assert start is not None
    found = refit(truth, np.zeros(80), design, weights, start)
    for b in range(6):
        model = joint_fit(truth, x, weights[:, b])
        np.testing.assert_allclose(
            found[:, b], [model.intercept_[0], model.coef_[0, 0]], rtol=1e-3, atol=1e-4
        )


def test_calibration_of_separated_or_constant_predictions_is_undefined() -> None:
    truth = np.array([0, 0, 0, 1, 1, 1])
    separated, constant = (
        units_of(truth, p) for p in (np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.8]), np.full(6, 0.8))
    )
    assert np.isnan(value("calibration_slope", separated))
    assert np.isnan(value("calibration_slope", constant))
    assert value("calibration_intercept", constant) == pytest.approx(-np.log(4))
    design = np.column_stack([np.ones(6), [-3.0, -2, -1, -1.5, 2, 3]])
    start = fit(truth, np.zeros(6), design)
    assert start is not None
    separating = np.array([[1.0, 1, 1, 0, 1, 1], np.ones(6)]).T
    found = refit(truth, np.zeros(6), design, separating, start)
    assert np.isnan(found[:, 0]).all()
    np.testing.assert_allclose(found[:, 1], start)


@st.composite
def eight_class_units(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    n = draw(st.integers(2, 40))
    truth = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 7)))
    called = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 7)))
    assume(len(np.unique(truth)) > 1)
    return truth, called


@given(eight_class_units())
@settings(max_examples=200)
def test_eight_class_scores_equal_scikit_learn(data: tuple[np.ndarray, np.ndarray]) -> None:
    truth, called = data
    here = np.unique(truth)
    level = units_of(truth, np.eye(8)[called])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes")
        balanced = metrics.balanced_accuracy_score(truth, called)
    expected = {
        "accuracy": metrics.accuracy_score(truth, called),
        "micro_f1": metrics.f1_score(truth, called, average="micro"),
        "balanced_accuracy": balanced,
        "f1": metrics.f1_score(truth, called, labels=here, average="macro", zero_division=0),
        "mcc": metrics.matthews_corrcoef(truth, called),
        "auroc": np.mean([metrics.roc_auc_score(truth == k, called == k) for k in here]),
    }
    recall = metrics.recall_score(truth, called, labels=here, average=None, zero_division=np.nan)
    expected |= {f"recall_{SUBTYPES[k]}": recall[i] for i, k in enumerate(here)}
    for name, wanted in expected.items():
        assert value(name, level, "subtype") == pytest.approx(wanted, abs=ATOL), name
    for k in set(range(8)) - set(here.tolist()):
        assert np.isnan(value(f"recall_{SUBTYPES[k]}", level, "subtype"))
