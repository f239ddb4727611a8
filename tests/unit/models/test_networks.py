"""Networks from their settings: ours with a head, torchvision's, a user's; what is refused before any work."""

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from histo_lightning.classifier import Classifier
from histo_lightning.config.tree import option
from histo_lightning.errors import UserError
from histo_lightning.models import build_network
from histo_lightning.models.networks import build_head, check_network, head_of, network_settings

SEGMENTS = {"_target_": "torchvision.models.segmentation.lraspp_mobilenet_v3_large"}


def images(batch: int = 2, side: int = 64) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(3))


def test_heads() -> None:
    mlp = build_head("mlp", 2048, 2)
    kinds = [type(layer).__name__ for layer in mlp.children()]
    assert kinds == ["Linear", "ReLU", "Dropout", "Linear"]
    assert sum(p.numel() for p in mlp.parameters()) == 2048 * 512 + 512 + 512 * 2 + 2
    assert mlp[2].p == 0.05
    assert (mlp.eval()(torch.full((4, 2048), -5.0)).exp().sum(1) - 1).abs().min() > 1e-3  # logits, no softmax
    assert isinstance(build_head("linear", 512, 8), nn.Linear)
    with pytest.raises(ValueError, match=r"unknown head 'conv'; heads are linear, mlp"):
        build_head("conv", 512, 2)


def test_build_network_puts_the_head_behind_the_backbone() -> None:
    network = build_network(
        {**option("model", "resnet50"), "stem": "deep"}, 2, head="mlp", hidden=16, dropout=0.3
    )
    assert network.fc[0].in_features == 2048
    assert network.fc[0].out_features == 16
    assert network.fc[2].p == 0.3
    assert network(images()).shape == (2, 2)
    assert not network.layer1[0].bn3.weight.any()  # zero-initialised by default
    assert not build_network("resnet10", 2).layer1[0].bn2.weight.any()
    assert network.layer1[0].downsample is not None
    assert (
        build_network({**option("model", "resnet10"), "zero_init_residual": False}, 2)
        .layer1[0]
        .bn2.weight.all()
    )


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small", "efficientnet_b0", "resnet18"])
def test_torchvision_s_networks_are_called_with_the_number_of_classes(name: str) -> None:
    torch.manual_seed(1)
    ours = build_network({"_target_": f"torchvision.models.{name}"}, 3).eval()
    torch.manual_seed(1)
    theirs = getattr(torchvision.models, name)(num_classes=3).eval()
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())
    assert ours(images(1)).shape == (1, 3)


@pytest.mark.parametrize(
    ("name", "features", "place"),
    [("resnet18", 512, "fc"), ("efficientnet_b0", 1280, "classifier.1"), ("mobilenet_v3_small", 1024, "classifier.3")],
)  # fmt: skip
def test_an_mlp_head_replaces_their_last_layer(name: str, features: int, place: str) -> None:
    with torch.device("meta"):
        network = build_network(
            {"_target_": f"torchvision.models.{name}"}, 2, head="mlp", hidden=16, dropout=0.2
        )
    head = network.get_submodule(place)
    assert [type(layer).__name__ for layer in head.children()] == ["Linear", "ReLU", "Dropout", "Linear"]
    assert (head[0].in_features, head[0].out_features, head[3].out_features) == (features, 16, 2)


def test_a_network_without_a_linear_layer_keeps_its_own_head() -> None:
    with pytest.raises(UserError, match=r"no fully connected layer to replace; use head=linear"):
        build_network({"_target_": "torchvision.models.squeezenet1_1"}, 2, head="mlp")


@pytest.mark.parametrize(
    ("name", "learns"), [("squeezenet1_1", "classifier."), ("efficientnet_b0", "classifier."), ("densenet121", "classifier.")]
)  # fmt: skip
def test_freezing_leaves_their_head_to_learn(name: str, learns: str) -> None:
    with torch.device("meta"):
        network = build_network({"_target_": f"torchvision.models.{name}"}, 2)
    names = {key for key, _ in head_of(network).named_parameters()}
    assert {f"{learns}{key}" for key in names} <= {key for key, _ in network.named_parameters()}
    frozen = Classifier({"_target_": "torchvision.models.squeezenet1_1"}, freeze_backbone=True)
    assert {key.split(".")[0] for key, p in frozen.network.named_parameters() if p.requires_grad} == {
        "classifier"
    }
    with pytest.raises(UserError, match=r"no head can be separated"):
        head_of(nn.ReLU())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("resnet19", "has no 'resnet19'; did you mean 'resnet18'"),
        ({"_target_": "torchvision.models.vgg11", "stem": "deep"}, "model.stem: belongs to histo_lightning's own"),
        ({"_target_": "torchvision.models.vgg11", "dropot": 0.1}, "model"),
        ({"_target_": "histo_lightning.models.resnet.resnet18", "stem": "tiny"}, "refuses its arguments"),
        ({"_target_": "histo_lightning.models.networks.network_settings", "model": "x"}, "has no such argument"),
        ({"_target_": "torchvision.models.list_models"}, "is not a network|has no such argument"),
    ],
)  # fmt: skip
def test_what_is_no_network_is_refused(settings: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_network(settings, 2)


def test_networks_are_tried_without_memory() -> None:
    check_network("resnet152", 8, 224)
    check_network({"_target_": "torchvision.models.vit_b_16", "image_size": 64}, 2, 64, head="linear")
    with pytest.raises(UserError, match=r"vit_b_16: fails on images of 64 x 64.*set image_size"):
        check_network({"_target_": "torchvision.models.vit_b_16"}, 2, 64)
    with pytest.raises(UserError, match=r"gives OrderedDict for 2 images, \(2, 2\) is needed"):
        check_network({**SEGMENTS, "weights_backbone": None}, 2, 96)
    assert network_settings("resnet10") == option("model", "resnet10")
