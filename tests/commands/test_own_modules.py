"""A user's own module in the current folder: a network, a callback and an augmentation step, without an edit in ``src/``."""

import sys
from pathlib import Path

import pytest
import torch

from factories.forkserver import server
from factories.runs import SMALL, environment, read, run_folder
from histo_lightning.classifier import Classifier
from histo_lightning.config import targets
from histo_lightning.errors import UserError

MODULE = """
import torch
from pytorch_lightning import Callback
from torch import nn

from histo_lightning.data.augment import augmentation_step


class Tiny(nn.Module):
    def __init__(self, num_classes: int, width: int = 8) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, width, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.classifier(self.features(x))


class Diary(Callback):
    def __init__(self, file: str, words: str = "epoch") -> None:
        self.file, self.words = file, words

    def on_train_epoch_end(self, trainer, pl_module):
        with open(self.file, "a") as diary:
            diary.write(f"{self.words} {trainer.current_epoch}\\n")


@augmentation_step("darken")
def darken(images: torch.Tensor, numbers: torch.Tensor, *, low: float = 0.5) -> torch.Tensor:
    return images.float() * (low + (1 - low) * numbers[:, :1, None, None])
"""
OWN = """_target_: tiny_networks.Tiny
width: 6
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path):
    """One run with everything of the user's own, also a config file."""
    root = tmp_path_factory.mktemp("own")
    (root / "tiny_networks.py").write_text(MODULE)
    (root / "settings" / "model").mkdir(parents=True)
    (root / "settings" / "model" / "tiny.yaml").write_text(OWN)
    line = [
        *SMALL, "--config-dir", "settings", "imports=[tiny_networks]", "model=tiny",
        "+callbacks.diary._target_=tiny_networks.Diary", "callbacks.diary.file=diary.txt", "++augment.steps.darken.low=0.75",
    ]  # fmt: skip
    done = server().run(["-m", "histo_lightning.train", *line], root, environment(cache_dir))
    assert done.returncode == 0, done.stderr
    return root, run_folder(root)


def test_they_train_and_leave_their_marks(trained) -> None:
    root, folder = trained
    assert folder.name.startswith("tiny_adamw_40x")
    assert (root / "diary.txt").read_text() == "epoch 0\nepoch 1\n"
    metrics = read(folder / "metrics.json")
    assert metrics["cost"]["parameters"] == 6 * 27 + 6 + 6 * 2 + 2
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["model"] == {"_target_": "tiny_networks.Tiny", "width": 6}
    assert "darken {'low': 0.75}" in checkpoint["histo_lightning"]["transforms"]
    assert not any("imports" in key for key in checkpoint["hyper_parameters"])


def test_the_checkpoint_loads_with_its_module_and_not_without(
    trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, folder = trained
    path = folder / "checkpoints" / "best.ckpt"
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "path", [str(root), *sys.path])  # even where it could be found
    monkeypatch.setattr(targets, "NETWORK_MODULES", set(targets.NETWORK_MODULES))
    with pytest.raises(UserError, match=r"name its module in imports=\[\.\.\.\]"):
        Classifier.from_checkpoint(path)
    assert "tiny_networks" not in sys.modules
    classifier = Classifier.from_checkpoint(path, imports=["tiny_networks"])
    assert classifier.network.classifier.in_features == 6
    assert classifier(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
    del sys.modules["tiny_networks"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("model._target_=tiny_networks.Tiny",), "comes with imports="),
        (("imports=[tiny_networks]", "model=tiny", "model.wdth=3"), "model.wdth: Tiny has no such argument; did you mean 'width'"),
        (("imports=[tiny_networks]", "++augment.steps.darken.lw=1"), "augment.steps.darken.lw: darken has no such argument; did you mean 'low'"),
        (("imports=[tiny_networks]", "+callbacks.diary._target_=tiny_networks.Diary"), "callbacks.diary.file is missing: Diary needs it"),
        (("imports=[tiny_networks]", "+callbacks.diary._target_=tiny_networks.Tiny"), "is no Callback"),
        (("imports=[tiny_network]",), "imports=[tiny_network]: cannot be imported"),
    ],
)  # fmt: skip
def test_refusals(trained, line: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import re

    from factories.configs import read_line
    from histo_lightning.data import augment

    root, _ = trained
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "path", [str(root), *sys.path])
    monkeypatch.setattr(targets, "NETWORK_MODULES", set(targets.NETWORK_MODULES))
    monkeypatch.setattr(augment, "STEPS", dict(augment.STEPS))
    before = set(sys.modules)
    try:
        with pytest.raises(UserError, match=re.escape(message)):
            read_line("--config-dir", "settings", *line)
    finally:
        for name in {"tiny_networks"} & (set(sys.modules) - before):
            del sys.modules[name]
