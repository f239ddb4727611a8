"""Grad-CAM maps: where a classifier looked, as a weighting of its last stage's map.

Grad-CAM: Selvaraju et al. 2017, ICCV. Grad-CAM++: Chattopadhyay et al. 2018, WACV, with the closed form of its weights
for a class score passed through exp.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from histo_lightning.classifier import Classifier

METHODS = ("gradcam", "gradcam++")


def attribution(classifier: Classifier, images: Tensor, targets: Tensor, method: str = "gradcam") -> Tensor:
    """Maps of the evidence for a class.

    Args:
        classifier: in evaluation mode.
        images: float32 B x 3 x H x W, as the network sees them.
        targets: int64 B, the class whose logit is explained.
        method: one of :data:`METHODS`.

    Returns:
        float32 B x H/32 x W/32 (rounded up), not negative, not scaled.
    """
    network = classifier.network
    with torch.enable_grad():
        stage = network.forward_features(images).detach().requires_grad_(True)
        logits = network.fc(network.avgpool(stage).flatten(1))
        chosen = logits.gather(1, targets[:, None]).sum()
        (slopes,) = torch.autograd.grad(chosen, stage)
    stage = stage.detach()
    if method == "gradcam":
        weights = slopes.mean(dim=(2, 3), keepdim=True)
    else:
        total = stage.sum(dim=(2, 3), keepdim=True)
        below = 2 * slopes**2 + total * slopes**3
        alpha = slopes**2 / torch.where(below != 0, below, torch.ones_like(below))
        weights = (alpha * slopes.clamp(min=0)).sum(dim=(2, 3), keepdim=True)
    return (weights * stage).sum(dim=1).clamp(min=0)


def heat(maps: Tensor, height: int, width: int) -> NDArray[np.float32]:
    """Maps B x h x w scaled to [0, 1] each (all 0 where there is no evidence) and enlarged to B x height x width."""
    peak = maps.amax(dim=(1, 2), keepdim=True)
    scaled = maps / torch.where(peak > 0, peak, torch.ones_like(peak))
    large = torch.nn.functional.interpolate(
        scaled[:, None], size=(height, width), mode="bilinear", align_corners=False
    )
    return large[:, 0].cpu().numpy()
