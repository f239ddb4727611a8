"""Objects from ``_target_``: found by kind, not by a trusted beginning of a name, and called with checked arguments."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torchvision
from pytorch_lightning import Callback
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from histo_lightning.config import targets
from histo_lightning.config.targets import (
    arguments,
    build,
    check_arguments,
    class_of,
    import_modules,
    locate,
    network_factory,
)
from histo_lightning.errors import UserError
from histo_lightning.models.resnet import ResNet


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder; nothing of it is left afterwards."""
    name = "my_networks_of_a_test"
    (tmp_path / f"{name}.py").write_text("def tiny(num_classes=2):\n    return num_classes\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(targets, "NETWORK_MODULES", set(targets.NETWORK_MODULES))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_a_dotted_name_is_looked_up() -> None:
    assert locate("torch.optim.AdamW", "optimizer") is torch.optim.AdamW
    assert locate("os.system", "x") is os.system
    for name, message in (
        ("torch.optim.AdmW", "optimizer=torch.optim.AdmW: torch.optim has no 'AdmW'; did you mean 'AdamW'"),
        ("nowhere.Thing", "there is no module 'nowhere'; is it installed"),
        ("AdamW", "there is no module 'AdamW'"),
        ("torch.optim.Adam.nothing.at.all", "torch.optim.Adam has no 'nothing'"),
    ):
        with pytest.raises(UserError, match=message):
            locate(name, "optimizer")


def test_a_checkpoint_s_names_import_nothing_but_well_known_packages(own_module: str) -> None:
    with pytest.raises(UserError, match=r"name its module in imports=\[\.\.\.\]"):
        locate(f"{own_module}.tiny", "model._target_", imported_only=True)
    assert own_module not in sys.modules
    import_modules([own_module])
    assert locate(f"{own_module}.tiny", "model._target_", imported_only=True)() == 2


def test_a_module_that_fails_on_import_says_so(own_module: str) -> None:
    Path("broken_of_a_test.py").write_text("raise ValueError('no')\n")
    with pytest.raises(
        UserError, match=r"imports=\[broken_of_a_test\]: cannot be imported \(ValueError: no\)"
    ):
        import_modules(["broken_of_a_test"])
    with pytest.raises(UserError, match=r"importing broken_of_a_test fails"):
        locate("broken_of_a_test.x", "callbacks.x._target_")


@pytest.mark.parametrize(
    "target",
    [
        "torch.optim.adam.torch.hub.load",  # begins with torch.optim
        "torch.optim.adam.torch.optim.lr_scheduler.StepLR",
        "os.system",
        "builtins.eval",
        "torch.load",
        "torch.optim.optimizer.Optimizer.step",
        "torch.nn.Linear",
    ],
)
def test_only_a_subclass_of_the_base_is_taken(target: str) -> None:
    with pytest.raises(UserError, match=r"is no Optimizer; name a subclass of torch\.optim"):
        class_of({"_target_": target}, Optimizer, "optimizer")


def test_a_subclass_may_be_named_by_any_way_to_it() -> None:
    assert class_of({"_target_": "torch.optim.adam.Adam"}, Optimizer, "optimizer") is torch.optim.Adam
    kind = class_of({"_target_": "pytorch_lightning.callbacks.Timer"}, Callback, "callbacks.timer")
    assert issubclass(kind, Callback)
    for settings in ({}, {"_target_": 3}, {"_target_": None}):
        with pytest.raises(UserError, match=r"scheduler\._target_ is missing"):
            class_of(settings, LRScheduler, "scheduler")


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.hub.load",
        "torchvision.models.resnet.torch.hub.load",
        "torchvision.models._api.load_state_dict_from_url",
        "torchvision.datasets.folder.default_loader",
        "histo_lightning.models.networks.torch.load",
        "histo_lightning.runs.write_atomic",
        "torchvision.models.ResNet18_Weights.DEFAULT",
        "torch.nn.Linear",
        "builtins.print",
    ],
)
def test_what_is_defined_elsewhere_is_no_network(target: str) -> None:
    with pytest.raises(UserError, match=r"model\._target_=.*(is not a network of|has no)"):
        network_factory({"_target_": target})


def test_networks_of_ours_of_torchvision_and_of_imports(own_module: str) -> None:
    ours = network_factory({"_target_": "histo_lightning.models.resnet.resnet18"})
    assert isinstance(ours, partial)
    assert ours.func is ResNet
    assert (
        network_factory({"_target_": "torchvision.models.efficientnet_b0"})
        is torchvision.models.efficientnet_b0
    )
    with pytest.raises(UserError, match=r"comes with imports="):
        network_factory({"_target_": f"{own_module}.tiny"})
    import_modules([own_module])
    assert network_factory({"_target_": f"{own_module}.tiny"})() == 2


def sample(
    a: int,
    *,
    rate: float = 0.1,
    flag: bool = False,
    word: Literal["x", "y"] = "x",
    pair: tuple[float, float] = (0.9, 0.999),
    free: Any = None,
    either: float | str | None = None,
    untyped=3,
) -> dict[str, Any]:
    return locals()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a": 1, "rte": 2}, "k.rte: sample has no such argument; did you mean 'rate'.; it takes a, rate"),
        ({}, "k.a is missing: sample needs it"),
        ({"a": "one"}, "k.a=one: is of another type; allowed is a whole number"),
        ({"a": True}, "k.a=True: is of another type"),
        ({"a": 1.5}, "k.a=1.5"),
        ({"a": 1, "rate": "fast"}, "allowed is a number"),
        ({"a": 1, "rate": True}, "k.rate=True"),
        ({"a": 1, "flag": 1}, "allowed is true or false"),
        ({"a": 1, "word": "z"}, "allowed is 'x', or 'y'"),
        ({"a": 1, "pair": 3}, "allowed is a list"),
        ({"a": 1, "either": [1]}, "k.either"),
        ({"a": 1, "untyped": "3"}, "k.untyped=3: is of another type; allowed is a number|whole"),
        ({"a": 1, "free": {"_target_": "os.system"}}, "objects inside arguments are not built"),
    ],
)  # fmt: skip
def test_arguments_are_compared_with_the_signature(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_arguments(sample, given, "k")


def test_arguments_that_fit() -> None:
    for given in (
        {"a": 1, "rate": 1, "flag": True, "word": "y", "pair": [0.5, 0.9]},
        {"a": 1, "free": object(), "either": "auto", "untyped": 2.5},
        {"a": 1, "either": None},
    ):
        check_arguments(sample, given, "k")
    check_arguments(sample, {"rate": 0.5}, "k", filled=["a"])
    assert build(sample, {"pair": [0.5, 0.9]}, "k", a=4, elsewhere=1)["pair"] == (0.5, 0.9)
    assert build(sample, {"a": None}, "k", a=4)["a"] == 4
    assert build(sample, {"a": 5}, "k", a=4)["a"] == 5
    assert arguments({"_target_": "x", "name": "y", "lr": 1, "weights": 2}, leave=["weights"]) == {"lr": 1}


def test_what_the_callee_refuses_is_one_line() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(UserError, match=r"optimizer: SGD refuses its arguments \(Invalid learning rate: -1"):
        build(torch.optim.SGD, {"lr": -1.0}, "optimizer", params=[parameter])

    def needs_a_package() -> None:
        raise ModuleNotFoundError("No module named 'gold'", name="gold")

    with pytest.raises(UserError, match=r"logger.x: needs the package gold; install it"):
        build(needs_a_package, {}, "logger.x")
