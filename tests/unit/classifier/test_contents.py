"""Checkpoints from strangers: whatever they hold, one line or a network that works; no code, no network, no memory."""

import copy
import io
import os
import resource
import sys
import zipfile
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from histo_lightning.classifier import Classifier
from histo_lightning.config.exits import guard
from histo_lightning.errors import UserError
from histo_lightning.inference.trained import Trained

TARGETS = (
    *("os.system", "builtins.eval", "subprocess.Popen", "torch.hub.load", "torch.optim.adam.torch.hub.load"),
    *("histo_lightning.models.weights.load_weights", "histo_lightning.models.weights._download"),
    *(
        "torchvision.models.get_model",
        "torchvision.models.segmentation.fcn_resnet50",
        "torchvision.models.vit_b_16",
    ),
    *(
        "histo_lightning.models.resnet.ResNet",
        "torch.nn.Linear",
        "torch.optim.LBFGS",
        "antigravity.x",
        ".",
        "",
    ),
)
EVENTS = (
    "os.system",
    "subprocess.Popen",
    "socket.connect",
    "socket.getaddrinfo",
    "os.exec",
    "os.posix_spawn",
)
heard: list[str] | None = None


def listen(event: str, arguments: object) -> None:
    if heard is not None and event in EVENTS:
        heard.append(event)


sys.addaudithook(listen)


@pytest.fixture(scope="module")
def honest() -> dict[str, Any]:
    """The content of a checkpoint of a small network."""
    torch.manual_seed(0)
    classifier = Classifier(model={"_target_": "torchvision.models.shufflenet_v2_x0_5"})
    about = {
        "config": {
            "dataset": {"name": "synthetic", "short_side": None},
            "split": {"name": "case_kfold", "fold": 0},
            "augment": {"crop_scale": [1.0, 1.0], "crop_ratio": [1.0, 1.0]},
            "image_size": 64,
            "magnification": "40x",
            "task": "binary",
        },
        "class_to_idx": {"benign": 0, "malignant": 1},
        "input_size": [3, 64, 96],
        "output_size": 2,
        "batch_size": 8,
        "transforms": "",
        "normalisation": {"mean": [0.8, 0.6, 0.7], "std": [0.1, 0.1, 0.1]},
        "split_hash": "a",
        "train_cases": ["x"],
        "val_cases": [],
        "seen_cases": ["x"],
        "seen_pixels": [],
        "threshold": 0.4,
        "operating_point": {"threshold": 0.4},
        "temperature": {"temperature": 1.5},
        "format": 2,
        "version": "0.2.0",
        "epoch": 3,
        "shortened": "",
    }
    return {
        "state_dict": classifier.state_dict(),
        "hyper_parameters": dict(classifier.hparams),
        "histo_lightning": about,
    }


def load(content: Any, path: Path) -> np.ndarray:
    torch.save(content, path)
    trained = Trained.load(path, torch.device("cpu"))
    assert trained.sides == (64, 96) or trained.about["input_size"] != [3, 64, 96]
    return trained.probabilities(np.zeros((1, 64, 96, 3), np.uint8))


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


NASTY = st.one_of(
    st.sampled_from([None, True, -1, 0, 3, 2**31, 2**63, 10**400, -0.5, 1e308, float("nan"), float("inf")]),
    st.sampled_from(["", "x" * 5000, "\x1b[31m", "${oc.env:HOME}", "${jobs_at_once:}", "../..", "\udcff", b"bytes"]),
    st.sampled_from([nested(30), nested(200), [], {}, {1: 2}, ["a"], [1, "2", None], [10**9] * 4, {"a": {}}]),
    st.sampled_from([torch.zeros(0), torch.full((2,), torch.nan), torch.zeros(1).expand(10**12), torch.eye(2).to_sparse()]),
    st.sampled_from(TARGETS).map(lambda target: {"_target_": target, "source": "http://127.0.0.1:9/x", "num_layers": 10**7}),
    st.sampled_from(TARGETS).map(lambda target: {"_target_": target}),
    st.recursive(st.none() | st.integers() | st.floats() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)),
)  # fmt: skip


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every entry of nested dicts and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(deeper for key, item in inner for deeper in places(item, (*way, key)))][not way :]


def changed(content: dict[str, Any], way: tuple[Any, ...], value: Any, *, removed: bool) -> dict[str, Any]:
    parts = {key: content[key] if key == "state_dict" else copy.deepcopy(content[key]) for key in content}
    parts["state_dict"] = dict(parts["state_dict"])
    inner: Any = parts
    for key in way[:-1]:
        inner = inner[key]
    if removed:
        del inner[way[-1]]
    else:
        inner[way[-1]] = value
    return parts


@hypothesis.settings(max_examples=int(os.environ.get("HISTO_TRIALS", "30")), derandomize=True, database=None,
                     suppress_health_check=list(hypothesis.HealthCheck))  # fmt: skip
@hypothesis.given(data=st.data())
def test_whatever_a_checkpoint_holds(honest: dict[str, Any], tmp_path_factory, data: Any) -> None:
    global heard
    weights = list(honest["state_dict"])[:3]
    ways = [way for way in places(honest) if way[:1] != ("state_dict",)] + [
        ("state_dict", name) for name in weights
    ]
    content = honest
    for _ in range(data.draw(st.integers(1, 2))):
        way = data.draw(
            st.sampled_from([way for way in ways if way in places(content) or way[0] == "state_dict"])
        )
        content = changed(content, way, data.draw(NASTY), removed=data.draw(st.integers(0, 9)) == 0)
        ways = [other for other in ways if other[: len(way)] != way]
    heard = []
    try:
        assert np.isfinite(load(content, tmp_path_factory.getbasetemp() / "nasty.ckpt")).all()
    except UserError as error:
        assert len(str(error)) < 1500  # noqa: PT017
    finally:
        said, heard = heard, None
    assert said == []


@pytest.mark.parametrize(
    ("way", "value", "message"),
    [
        (("histo_lightning", "normalisation", "mean"), "0.5", r"normalisation=.*'0.5'.*: is of another type"),
        (("histo_lightning", "normalisation", "std"), [0.1, 0.0, 0.1], "three deviations above 0"),
        (("histo_lightning", "threshold"), 2, "threshold=2: allowed is a number from 0 to 1"),
        (("histo_lightning", "input_size"), [3, -64, 96], "input_size="),
        (("histo_lightning", "input_size"), [3, 10**6, 10**6], "input_size="),
        (("histo_lightning", "class_to_idx"), {"benign": 0, "malignant": 7}, "class_to_idx="),
        (("histo_lightning", "config", "image_size"), -3, r"config\.image_size=-3: allowed is a number"),
        (("histo_lightning", "config", "augment", "crop_scale"), [5.0, 1.0], r"config\.augment\.crop_scale"),
        (("histo_lightning", "config", "task"), "${oc.env:HOME}", "refers to another"),
        (("hyper_parameters", "num_classes"), -2, "num_classes=-2: allowed is a number from 2"),
        (("hyper_parameters", "hidden"), 10**12, "hidden=1000000000000: allowed"),
        (("hyper_parameters", "model"), {"_target_": "torchvision.models.vit_b_16", "image_size": 10**9, "patch_size": 1}, ""),
        (("hyper_parameters", "model"), {"_target_": "torchvision.models.segmentation.fcn_resnet50"}, "brings its own weights"),
        (("hyper_parameters", "model"), {"_target_": "torchvision.models.resnet18", "pretrained": True}, "brings its own weights"),
        (("hyper_parameters", "optimizer"), {"_target_": "os.system"}, "optimizer._target_"),
        (("state_dict", "network.conv1.0.weight"), torch.full((24, 3, 3, 3), torch.nan), "network.conv1.0.weight: is not finite"),
        (("state_dict", "network.conv1.0.weight"), torch.zeros(1).expand(10**12), "no memory of its own"),
        (("histo_lightning", "transforms"), nested(200), "too deep"),
    ],
)  # fmt: skip
def test_the_key_is_named(honest: dict[str, Any], tmp_path: Path, way: Any, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"bad.ckpt: .*{message}"):
        load(changed(honest, way, value, removed=False), tmp_path / "bad.ckpt")


def test_bombs_take_no_memory(
    honest: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"a": torch.zeros(4)}, buffer := io.BytesIO())
    entries = [(one, zipfile.ZipFile(buffer).read(one)) for one in zipfile.ZipFile(buffer).namelist()]
    with zipfile.ZipFile(tmp_path / "zeros.ckpt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for name, content in entries:
            bomb.writestr(name, bytes(2**28) if name.endswith("data/0") else content)
    with zipfile.ZipFile(tmp_path / "deep.ckpt", "w") as bomb:
        for name, content in entries:
            bomb.writestr(
                name, b"\x80\x02" + b"]" * 10**6 + b"a" * (10**6 - 1) + b"." if "pkl" in name else content
            )
    flipped = bytearray((torch.save(honest, tmp_path / "f.ckpt"), (tmp_path / "f.ckpt").read_bytes())[1])
    flipped[len(flipped) // 2] ^= 1
    (tmp_path / "flipped.ckpt").write_bytes(flipped)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, reason in (("zeros", "compressed"), ("deep", "too deep"), ("flipped", "checksum")):
        path = tmp_path / f"{name}.ckpt"
        assert guard(lambda path=path: Trained.load(path, torch.device("cpu")) and 0) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert f"{name}.ckpt" in said
        assert reason in said
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
