"""Scores of an epoch against scikit-learn's, and what a missing class leaves undefined."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from torch.nn import functional

from histo_lightning.classifier.metrics import EvaluationMetrics, TrainingMetrics


def table(seed: int, count: int = 60, classes: int = 2):
    generator = np.random.default_rng(seed)
    cases = generator.integers(0, 12, count)
    labels = (cases % classes).astype(np.int64)  # a case has one class
    logits = generator.normal(size=(count, classes)) + np.eye(classes)[labels]
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(labels), torch.tensor(cases)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([2, 3]))
def test_epoch_metrics_equal_scikit_learn_s(seed: int, classes: int) -> None:
    logits, labels, cases = table(seed, classes=classes)
    metric = EvaluationMetrics(classes)
    index = torch.arange(60)
    for rows in (*index.split(17), index[50:57]):  # the last ones a second time: a batch that was filled up
        metric.update(logits[rows], labels[rows], cases[rows], rows)
    found = {name: float(value) for name, value in metric.compute().items()}
    p = functional.softmax(logits.double(), dim=1).numpy()
    y, case = labels.numpy(), cases.numpy()
    assert found["loss"] == pytest.approx(reference.log_loss(y, p, labels=list(range(classes))), rel=1e-4)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(y, p.argmax(1)), abs=1e-6)
    assert found["balanced_accuracy"] == pytest.approx(
        reference.balanced_accuracy_score(y, p.argmax(1)), abs=1e-6
    )
    case_p = np.array([p[case == c].mean(axis=0) for c in np.unique(case)])
    case_y = np.array([y[case == c][0] for c in np.unique(case)])
    if classes == 2:
        assert found["auroc"] == pytest.approx(reference.roc_auc_score(y, p[:, 1]), abs=1e-5)
        assert found["case_auroc"] == pytest.approx(reference.roc_auc_score(case_y, case_p[:, 1]), abs=1e-5)
    else:
        assert found["auroc"] == pytest.approx(reference.roc_auc_score(y, p, multi_class="ovr"), abs=1e-5)
    losses = -np.log(p[np.arange(60), y])
    by_case = {c: losses[case == c].mean() for c in np.unique(case)}
    by_class = [np.mean([by_case[c] for c in by_case if c % classes == k]) for k in range(classes)]
    assert found["case_log_loss"] == pytest.approx(np.mean(by_class), rel=1e-4)


def test_training_metrics_weigh_every_image_the_same() -> None:
    logits, labels, _ = table(3)
    metric = TrainingMetrics()
    for rows in torch.arange(60).split(23):
        metric.update(functional.cross_entropy(logits[rows], labels[rows]), logits[rows], labels[rows], None)
    found = metric.compute()
    p = functional.softmax(logits.double(), dim=1).numpy()
    assert float(found["loss"]) == pytest.approx(reference.log_loss(labels, p), rel=1e-5)
    assert float(found["accuracy"]) == pytest.approx(reference.accuracy_score(labels, p.argmax(1)), abs=1e-7)


def test_a_missing_class_makes_auroc_undefined_and_nothing_else() -> None:
    logits, labels, cases = table(1)
    metric = EvaluationMetrics(2)
    chosen = labels == 1
    metric.update(logits[chosen], labels[chosen], cases[chosen], torch.arange(int(chosen.sum())))
    found = metric.compute()
    assert math.isnan(found["auroc"])
    assert math.isnan(found["case_auroc"])
    assert all(
        math.isfinite(found[name]) for name in ("loss", "accuracy", "balanced_accuracy", "case_log_loss")
    )
