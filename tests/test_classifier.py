"""The Classifier's parts: epoch metrics, schedules, freezing, checkpoints; against independent sources."""

import math

import numpy as np
import pytest
import torch
from histo_lightning.epoch_metrics import PartMetrics
from histo_lightning.models.optim import build_optimizer, build_scheduler, factor
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from torch.nn import functional

from histo_lightning.classifier import Classifier, load_state, read_checkpoint
from histo_lightning.classifier.metrics import TrainingMetrics
from histo_lightning.data.breakhis.records import record_of
from histo_lightning.data.sampling import Batches, EpochOrder
from histo_lightning.errors import UserError


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
    metric = PartMetrics(classes)
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
        metric.update(functional.cross_entropy(logits[rows], labels[rows]), logits[rows], labels[rows])
    found = metric.compute()
    p = functional.softmax(logits.double(), dim=1).numpy()
    assert float(found["loss"]) == pytest.approx(reference.log_loss(labels, p), rel=1e-5)
    assert float(found["accuracy"]) == pytest.approx(reference.accuracy_score(labels, p.argmax(1)), abs=1e-7)


def test_a_missing_class_makes_auroc_undefined_and_nothing_else() -> None:
    logits, labels, cases = table(1)
    metric = PartMetrics(2)
    chosen = labels == 1
    metric.update(logits[chosen], labels[chosen], cases[chosen], torch.arange(int(chosen.sum())))
    found = metric.compute()
    assert math.isnan(found["auroc"])
    assert math.isnan(found["case_auroc"])
    assert all(
        math.isfinite(found[name]) for name in ("loss", "accuracy", "balanced_accuracy", "case_log_loss")
    )


def rates(settings: dict, epochs: int = 8, steps: int = 5) -> list[float]:
    optimizer = build_optimizer([torch.nn.Parameter(torch.zeros(1))], {"name": "sgd", "lr": 1.0})
    schedule = build_scheduler(
        optimizer, settings, steps_per_epoch=steps, epochs=epochs, monitor="val/loss", mode="min"
    )
    found = []
    for _ in range(epochs * steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule["scheduler"].step()
    return found


def test_step_schedule_falls_where_torch_s_does() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.1)
    expected = []
    for _ in range(8):
        expected += [optimizer.param_groups[0]["lr"]] * 5
        optimizer.step()
        theirs.step()
    assert rates({"name": "step", "step_size": 3, "gamma": 0.1}) == pytest.approx(expected)


def test_cosine_schedule_equals_torch_s_after_the_warm_up() -> None:
    found = rates({"name": "cosine", "warmup_epochs": 2, "final_ratio": 0.1})
    assert found[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30, eta_min=0.1)
    for value in found[10:]:
        assert value == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()


def test_other_schedules() -> None:
    assert rates({"name": "constant", "warmup_epochs": 1})[4:] == pytest.approx([5 / 6] + [1.0] * 35)
    cycle = rates({"name": "onecycle", "pct_start": 0.25, "final_ratio": 0.001})
    assert max(cycle) == pytest.approx(1.0)
    assert cycle[-1] == pytest.approx(0.001, rel=0.01)
    assert factor({"name": "cosine", "warmup_epochs": 50, "final_ratio": 0.0}, 0, 4, 2) == pytest.approx(
        1 / 8
    )


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_optimizers_take_a_step_and_drop_unset_numbers(name: str) -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = build_optimizer(
        [parameter], {"name": name, "lr": 0.1, "momentum": None, "clip_norm": 1.0, "betas": None}
    )
    parameter.sum().backward()
    optimizer.step()
    assert (parameter < 1).all()


def test_a_frozen_backbone_trains_its_head_only() -> None:
    classifier = Classifier("resnet10", 2, head="mlp", freeze_backbone=True)
    optimizer = build_optimizer(classifier.network.parameters(), {"name": "sgd", "lr": 0.1})
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in classifier.network.fc.parameters()}
    classifier.train()
    assert classifier.network.bn1.training  # as in the thesis
    still = Classifier("resnet10", 2, freeze_backbone=True, frozen_norm="eval").train()
    assert not still.network.bn1.training
    free = Classifier("resnet10", 2)
    assert all(p.requires_grad for p in free.parameters())


def test_output_is_log_softmax_and_the_loss_its_nll() -> None:
    classifier = Classifier("resnet10", 2, class_weights=[0.5, 2.0])
    images, labels = torch.randn(6, 3, 32, 32), torch.tensor([0, 1, 0, 1, 1, 0])
    log_p = classifier(images)
    assert torch.allclose(log_p.exp().sum(dim=1), torch.ones(6), atol=1e-5)
    loss = classifier.training_step({"image": images, "label": labels}, 0)
    expected = functional.nll_loss(log_p, labels, weight=torch.tensor([0.5, 2.0]))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_case_balanced_sampling_draws_classes_and_cases_equally() -> None:
    names = [f"SOB_B_A-14-1-40-{i:03d}.png" for i in range(60)] + [
        f"SOB_B_A-14-2-40-{i:03d}.png" for i in range(6)
    ]
    names += [f"SOB_M_DC-14-{c}-40-{i:03d}.png" for c in range(3, 7) for i in range(8)]
    records = [record_of(name) for name in names]
    order = EpochOrder(records, [r.label for r in records], "case_balanced", seed=1)
    drawn = []
    for epoch in range(100):
        order.set_epoch(epoch)
        drawn += [records[i].case for i in order.indices()]
    share = {case: drawn.count(case) / len(drawn) for case in set(drawn)}
    assert share["14-1"] == pytest.approx(0.25, abs=0.02)
    assert share["14-2"] == pytest.approx(0.25, abs=0.02)
    assert all(share[f"14-{c}"] == pytest.approx(0.125, abs=0.02) for c in range(3, 7))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_batches_without_loss_or_duplicates(world: int) -> None:
    records = [record_of(f"SOB_B_A-14-1-40-{i:03d}.png") for i in range(23)]
    labels = [0] * 23
    whole = list(Batches(EpochOrder(records, labels, "shuffle", 0), 6, training=True))
    shares = [
        list(Batches(EpochOrder(records, labels, "shuffle", 0), 6, training=True, rank=r, world=world))
        for r in range(world)
    ]
    for i, batch in enumerate(whole):
        assert sorted(batch) == sorted(index for share in shares for index in share[i])
        assert len(batch) == 6


def test_bad_checkpoints_are_named(tmp_path) -> None:
    with pytest.raises(UserError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "none.ckpt")
    (tmp_path / "noise.ckpt").write_bytes(b"PK not a checkpoint")
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "noise.ckpt")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="not a checkpoint of histo_lightning"):
        read_checkpoint(tmp_path / "other.ckpt")
    torch.save(
        {"hyper_parameters": {}, "histo_lightning": {"format": 99, "version": "9.9"}}, tmp_path / "new.ckpt"
    )
    with pytest.raises(UserError, match=r"format is 99.*use histo_lightning 9\.9"):
        read_checkpoint(tmp_path / "new.ckpt")
    with pytest.raises(UserError, match="do not fit this network"):
        load_state(Classifier("resnet10", 2), Classifier("resnet18", 2).state_dict(), "x.ckpt")
