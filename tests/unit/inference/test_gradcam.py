"""Grad-CAM: the map of an independent implementation, for our networks and for others."""

import numpy as np
import pytest
import torch
import torchvision
from captum.attr import LayerGradCam
from torch import nn

from histo_lightning.classifier import Classifier
from histo_lightning.errors import UserError
from histo_lightning.inference.predict import overlay
from histo_lightning.models.gradcam import attribution, scaled_heat

SMALL = {"_target_": "histo_lightning.models.resnet.resnet10", "stem": "small", "zero_init_residual": False}


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(3)
    network = Classifier(SMALL, 3)
    network.train()
    with torch.no_grad():  # running statistics that fit the images
        network.logits(torch.rand(16, 3, 64, 96))
    return network.eval()


def test_grad_cam_is_captum_s(classifier: Classifier) -> None:
    images = torch.rand(4, 3, 64, 96, generator=torch.manual_seed(0))
    targets = torch.tensor([0, 1, 2, 1])
    reference = LayerGradCam(classifier.network, classifier.network.layer4)
    expected = reference.attribute(images, target=targets, relu_attributions=True)[:, 0]
    found = attribution(classifier.network, images, targets)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-6)
    assert float(found.max()) > 0


def test_heat_is_scaled_and_a_map_without_evidence_changes_nothing() -> None:
    maps = torch.tensor([[[0.0, 1.0], [2.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    found = scaled_heat(maps, 20, 30)
    assert found.shape == (2, 20, 30)
    assert (found[0].max(), found[0].min()) == (1.0, 0.0)
    assert not found[1].any()
    field = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    pair = overlay(field, found[1])
    assert np.array_equal(pair[:, :30], field)
    assert np.array_equal(pair[:, 30:], field)
    assert not np.array_equal(overlay(field, found[0])[:, 30:], field)


@pytest.mark.parametrize("frozen", [False, True])
def test_grad_cam_of_torchvision_s_network_is_captum_s(frozen: bool) -> None:
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=3).eval().requires_grad_(not frozen)
    images, targets = torch.rand(2, 3, 64, 96), torch.tensor([2, 0])
    expected = LayerGradCam(network, network.layer4).attribute(
        images.clone().requires_grad_(), target=targets, relu_attributions=True
    )
    assert torch.allclose(attribution(network, images, targets), expected[:, 0], atol=1e-6)


class Small(nn.Module):
    """A network as a user may write it: a layer that works in place after its map, and no name that we know."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 3, stride))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.answer = nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.answer(self.pool(nn.functional.relu(self.body(images), inplace=True)).flatten(1))


def test_grad_cam_of_a_user_s_network_is_the_map_of_its_last_layer_with_pixels() -> None:
    """After global average pooling Grad-CAM is the class activation map of Zhou et al. 2016, over the pixels' number."""
    torch.manual_seed(0)
    network, images = Small().eval(), torch.rand(2, 3, 12, 15)
    with torch.no_grad():
        maps = torch.relu(network.body(images))
        weights = network.answer.weight[[1, 0]]
        expected = torch.einsum("bk,bkhw->bhw", weights, maps).clamp(min=0) / maps[0, 0].numel()
    assert torch.allclose(attribution(network, images, torch.tensor([1, 0])), expected, atol=1e-7)


def test_a_network_without_a_map_is_refused_and_ours_keeps_its_map_of_one_pixel(
    classifier: Classifier,
) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    for network in (flat, Small(stride=99)):
        with pytest.raises(UserError, match=r"gradcam=true: no layer of (Sequential|Small) gives a map"):
            attribution(network, torch.rand(1, 3, 8, 8), torch.tensor([0]))
    assert attribution(classifier.network, torch.rand(1, 3, 8, 8), torch.tensor([0])).shape == (1, 1, 1)
