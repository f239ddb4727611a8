"""Whether to compile: by what it costs and saves, measured once a network; short runs never."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from torch import nn
from torch._dynamo.testing import CompileCounter

from factories.configs import composed
from factories.runs import train_here
from histo_lightning.classifier import Classifier
from histo_lightning.classifier.hardware import Hardware
from histo_lightning.training import compiling, fit

SMALL = ("model=resnet10", "image_size=32", "batch_size=4", "trainer=cpu", "trainer.threads=1")


class Measured:
    """Made-up seconds of a step: 0.1 as it is, 0.06 compiled; of the first compiled one 40 more, from the second on 12."""

    def __init__(self) -> None:
        self.compiled = list[bool]()

    def __call__(self, network: nn.Module, images: torch.Tensor, trainer: Trainer) -> tuple[float, float]:
        assert images.shape == (4, 3, 32, 32)
        self.compiled.append(network._compiled_call_impl is not None)
        step = 0.06 if self.compiled[-1] else 0.1
        return step + (0, 40, 12)[min(sum(self.compiled), 2)], step


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    fake = Measured()
    monkeypatch.setattr(compiling, "_seconds", fake)
    return fake


def pays(folder: Path, steps: int, *overrides: str) -> bool:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    return compiling.pays(composed(*SMALL, *overrides), Classifier("resnet10"), trainer, steps, folder)


def test_what_is_saved_must_be_more_than_what_compiling_takes(tmp_path: Path, measured: Measured) -> None:
    assert not pays(tmp_path, 299)  # 29.9 s in all: compiling is not even measured
    assert measured.compiled == [False]
    assert pays(tmp_path, 301)  # 301 x .04 = 12.04 s
    assert measured.compiled == [False, True, True]  # the step was known
    assert not pays(tmp_path, 299)  # 11.96 s
    assert pays(tmp_path, 10_000)
    assert measured.compiled == [False, True, True]
    (kept,) = json.loads((tmp_path / "compile.json").read_text()).values()
    assert kept == pytest.approx({"step": 0.1, "compiled": 0.06, "compiling": 12.0})


def test_a_short_run_decides_as_before_when_a_longer_one_has_measured(
    tmp_path: Path, measured: Measured
) -> None:
    assert not pays(tmp_path, 299)
    pays(tmp_path, 1000)
    (key,), file = json.loads((tmp_path / "compile.json").read_text()), tmp_path / "compile.json"
    file.write_text(json.dumps({key: {"step": 0.1, "compiled": 0.06, "compiling": 1.0}}))  # it would pay now
    assert pays(tmp_path, 301)
    assert not pays(tmp_path, 299)


def test_another_network_is_measured_by_itself(tmp_path: Path, measured: Measured) -> None:
    pays(tmp_path, 1000)
    pays(tmp_path, 1000, "model.stem=deep")
    assert measured.compiled == [False, True, True] * 2
    assert len(json.loads((tmp_path / "compile.json").read_text())) == 2


@pytest.mark.parametrize("damage", ["", "[1]", "{", '{"x": 3}'])
def test_a_damaged_file_is_measured_again(tmp_path: Path, measured: Measured, damage: str) -> None:
    (tmp_path / "compile.json").write_text(damage)
    assert pays(tmp_path, 1000)
    assert measured.compiled == [False, True, True]
    assert pays(tmp_path, 1000)
    assert len(measured.compiled) == 3


def test_the_network_itself_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = CompileCounter()
    compiled = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled(module, backend=counter))
    monkeypatch.setattr(compiling, "LEAST_SECONDS", 0.0)
    classifier = Classifier("resnet10")
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    torch._dynamo.reset()
    compiling.pays(composed(*SMALL), classifier, trainer, 5, tmp_path)
    assert counter.frame_count == 2
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    assert all(parameter.grad is None for parameter in classifier.parameters())
    classifier.to(memory_format=torch.channels_last).network.compile()  # as a run does
    classifier.logits(torch.zeros(4, 3, 32, 32).to(memory_format=torch.channels_last)).sum().backward()
    assert counter.frame_count == 2  # the run uses what the measurement has compiled
    kept = next(iter(json.loads((tmp_path / "compile.json").read_text()).values()))
    assert 0 < kept["step"] < 30
    assert 0 < kept["compiled"] < 30


@pytest.mark.parametrize(
    ("asked", "questions", "expected"), [("auto", 1, 0), ("true", 0, 1), ("false", 0, 0)]
)
def test_a_run_asks_only_where_it_was_left_open(
    tmp_path: Path,
    cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    questions: int,
    expected: int,
) -> None:
    found, compiled = list[int](), list[nn.Module]()
    on_gpu = Hardware("cpu", "32-true", asked != "false", 1)  # as if it were one

    def refused(*given: Any) -> bool:
        found.append(given[3])
        return False

    monkeypatch.setattr(fit, "resolve", lambda trainer: on_gpu)
    monkeypatch.setattr(fit, "pays", refused)
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(module))
    train_here(tmp_path, cache_dir, f"trainer.compile={asked}", "epochs=2", "test=false")
    assert len(found) == questions
    assert all(count % 2 == 0 and count > 0 for count in found)  # of both epochs
    assert len(compiled) == expected
