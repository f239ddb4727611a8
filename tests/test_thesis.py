"""docs/thesis.md: every number of the thesis has a row, and what the page says of thesis and package is so."""

import re
import warnings
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision
from sklearn.metrics import f1_score
from torch import nn
from torch.optim.lr_scheduler import StepLR

from factories.configs import composed as composed_of
from factories.configs import configs_of
from factories.pages import run_blocks
from histo_lightning.classifier import Classifier
from histo_lightning.classifier.metrics import TrainingMetrics
from histo_lightning.classifier.optimizers import build_optimizer
from histo_lightning.config.schema import Config
from histo_lightning.models import build_network, load_weights
from histo_lightning.models.schedules import Step

ROOT = Path(__file__).resolve().parents[1]
THESIS = ROOT / "docs" / "thesis.md"
COMMAND = re.compile(r"^python -m histo_lightning\.train (.+)$", re.MULTILINE)
NUMBERS = (
    [f"2.{i}" for i in range(1, 18)] + [f"A.{i}" for i in range(1, 17)] + [f"1.{i}" for i in range(13, 18)]
)


def rows() -> list[list[str]]:
    """The cells of the rows that map the thesis."""
    text = THESIS.read_text(encoding="utf-8").partition("## Slips")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


# The map


def test_every_number_of_the_thesis_has_one_row_in_its_order() -> None:
    mapped = [number for cells in rows() for number in cells[0].split(", ")]
    assert [number for number in mapped if number not in ("number", "none")] == NUMBERS
    assert all(len(cells) == 4 and cells[1] for cells in rows())


def test_every_row_says_where_its_subject_is() -> None:
    without = [cells[0] for cells in rows() if "](" not in cells[2] and cells[2] != "the same"]
    assert set(without) == {"number", "A.7", "A.11", "A.14, A.15, A.16"}


def test_names_in_code_that_the_thesis_page_points_to_exist() -> None:
    """``[file.py](...): `name`, `name``` and the names beside it stand in that file."""
    rows = re.findall(r"\[(\w+\.py)\]\(([^)]+)\): ((?:`\w+`(?:, )?)+)", THESIS.read_text(encoding="utf-8"))
    assert rows
    for _, target, names in rows:
        text = (THESIS.parent / target).read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)`", names):
            assert f"def {name}(" in text, name


# Chapter 2


@pytest.fixture(scope="module")
def page() -> SimpleNamespace:
    """The page's names after its blocks have run."""
    return SimpleNamespace(**run_blocks(THESIS))


def test_the_tree_of_2_2_is_read_with_the_thesis_s_settings() -> None:
    config = composed_of("experiment=thesis", "dataset=folders", "dataset.root=/data/40mag")
    assert (config.dataset.name, config.split.name) == ("folders", "folders")
    assert (config.epochs, config.batch_size, config.image_size) == (300, 32, 224)
    assert (config.sampler, config.class_weights, config.label_smoothing) == ("shuffle", "none", 0.0)
    assert composed_of("experiment=thesis", "trainer.precision=32-true").trainer.precision == "32-true"


def thesis_head(width: int) -> nn.Module:
    """The head of 2.10."""
    layers = OrderedDict(
        fc1=nn.Linear(width, 512),
        relu=nn.ReLU(),
        dropout1=nn.Dropout(0.05),
        fc2=nn.Linear(512, 2),
        output=nn.LogSoftmax(dim=1),
    )
    return nn.Sequential(layers)


def test_the_network_of_2_4_to_2_10_gives_the_classifier_s_log_probabilities() -> None:
    theirs = torchvision.models.resnet18()
    theirs.fc = thesis_head(512)
    ours = Classifier("resnet18", head="mlp")
    state = {
        name.replace("fc.fc1", "fc.0").replace("fc.fc2", "fc.3"): value
        for name, value in theirs.state_dict().items()
    }
    ours.network.load_state_dict(state)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(ours.eval()(images), theirs.eval()(images), atol=1e-5)


def test_the_head_of_2_10_fits_the_deep_networks_only() -> None:
    with torch.device("meta"):
        widths = {
            name: build_network(name, 2).feature_dim
            for name in ("resnet18", "resnet34", "resnet50", "resnet101")
        }
    assert widths == {"resnet18": 512, "resnet34": 512, "resnet50": 2048, "resnet101": 2048}


def test_the_optimizer_of_2_14_gets_the_head_alone() -> None:
    settings = composed_of("experiment=thesis").optimizer
    classifier = Classifier("resnet18", head="mlp", freeze_backbone=True)
    (group,) = build_optimizer(classifier.network.parameters(), settings, fused=False).param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in classifier.network.fc.parameters()]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (1e-4, 0.09, 0.01)


def test_a_file_of_2_14_loads_without_its_head(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18()
    theirs.fc = thesis_head(512)
    torch.save(theirs.state_dict(), tmp_path / "trial.pth")
    network = build_network("resnet18", 2, head="mlp")
    assert load_weights(network, str(tmp_path / "trial.pth"), cache_dir=tmp_path) is False
    assert torch.equal(network.layer4[1].conv2.weight, theirs.layer4[1].conv2.weight)


def rates(step_first: bool, epochs: int = 102) -> list[float]:
    """The learning rate that each epoch trains with, as a factor of the first."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = StepLR(optimizer, step_size=50, gamma=0.1)
    factors = []
    for _ in range(epochs):
        if step_first:
            scheduler.step()
        factors.append(scheduler.get_last_lr()[0])
        optimizer.step()  # stands for the epoch's training
        if not step_first:
            scheduler.step()
    return factors


def test_stepping_first_as_in_2_11_drops_the_rate_an_epoch_early() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch itself warns of the order
        in_the_thesis = rates(step_first=True)
    assert [i for i in range(1, 102) if in_the_thesis[i] < in_the_thesis[i - 1]] == [49, 99]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = Step(optimizer, total_steps=102 * 7, steps_per_epoch=7, step_size=50)
    here = [schedule.factor(epoch * 7) for epoch in range(102)]
    assert here == pytest.approx(rates(step_first=False))
    assert [i for i in range(1, 102) if here[i] < here[i - 1]] == [50, 100]


def test_the_curve_of_2_13_is_a_mean_over_the_rest(page) -> None:
    losses = torch.tensor(page.losses, dtype=torch.float64)
    rest = losses.flip(0).cumsum(0) / torch.arange(1, len(losses) + 1)
    assert page.drawn == pytest.approx(rest.flip(0).tolist())


def test_images_are_counted_where_2_15_averages_batches() -> None:
    right, size = [24, 24, 1], [32, 32, 4]  # two full batches and a rest
    averaged = sum(r / n for r, n in zip(right, size, strict=True)) / len(size)
    metrics = TrainingMetrics()
    for count, images in zip(right, size, strict=True):
        labels = torch.zeros(images, dtype=torch.int64)
        logits = torch.stack([torch.zeros(images), (torch.arange(images) >= count).float() * 2 - 1], dim=1)
        metrics.update(torch.tensor(0.5), logits, labels)
    assert float(metrics.compute()["accuracy"]) == pytest.approx(sum(right) / sum(size))
    assert sum(right) / sum(size) - averaged > 0.13


def test_the_micro_f1_of_2_16_is_the_accuracy() -> None:
    generator = torch.Generator().manual_seed(0)
    truth, predicted = torch.randint(2, (2, 50), generator=generator)
    assert f1_score(truth, predicted, average="micro") == pytest.approx(
        float((truth == predicted).float().mean())
    )


def test_a_resnet_has_no_attribute_that_2_17_reads() -> None:
    with torch.device("meta"):
        network = torchvision.models.resnet50()
    assert not hasattr(network, "class_to_idx")
    assert not hasattr(network, "epochs")


# The commands


def composed(command: str) -> list[Config]:
    """The config of every run that a command of a page starts; the launcher has no part in it."""
    return configs_of(*(text for text in command.split() if not text.startswith("hydra/")))


def test_the_thesis_page_s_commands_compose_and_differ_in_what_it_says() -> None:
    text = THESIS.read_text(encoding="utf-8").replace("\\\n", "")
    commands = COMMAND.findall(text)
    found = [config for command in commands if not command.startswith("-m") for config in composed(command)]
    assert [(c.model["freeze_backbone"], c.optimizer["momentum"]) for c in found] == [
        (True, 0.09),
        (False, 0.09),
        (False, 0.9),
    ]
    assert {(c.model["name"], c.magnification, c.epochs, c.image_size, c.split.name) for c in found} == {
        ("resnet50", "40x", 300, 224, "case_kfold")
    }
    sweeps = [command for command in commands if command.startswith("-m")]
    assert all(" split.fold=0,1,2,3,4 " in command for command in sweeps)
    # Of five folds the last: a hundred runs more would be composed.
    last = [composed(command.replace("split.fold=0,1,2,3,4", "split.fold=4")) for command in sweeps]
    sample, embedded, defaults, depths = last
    assert [len(sample), len(embedded), len(defaults), len(depths)] == [4, 4, 1, 16]
    arms = {(True, 0.09), (True, 0.9), (False, 0.09), (False, 0.9)}
    for runs in (sample, embedded, depths):
        assert {(c.model["freeze_backbone"], c.optimizer["momentum"]) for c in runs} == arms
        assert {(c.monitor, c.study.factor) for c in runs} == {("val_accuracy", "model.freeze_backbone")}
    assert {c.epochs for c in sample + embedded} == {300}
    assert {c.callbacks["early_stopping"]["patience"] for c in sample + embedded} == {30}
    assert {(c.image_size, c.batch_size, c.magnification) for c in sample + embedded + depths} == {
        (64, 16, "100x")
    }
    assert {(c.optimizer["name"], c.monitor, c.epochs) for c in defaults} == {
        ("adamw", "val_case_log_loss", 40)
    }
