"""Grad-CAM (Selvaraju et al. 2017, ICCV): where a network looked, as a weighted sum of its last map of features."""

from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from histo_lightning.errors import UserError
from histo_lightning.models.resnet import ResNet


def attribution(network: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Maps of the evidence for a class, float32 B x h x w, not negative, not scaled.

    They come from ``layer4`` of our ResNet, else from the last direct child whose output is B x C x h x w with more than
    one pixel (UserError where there is none). ``network`` is in evaluation mode, ``images`` are float32 B x 3 x H x W as
    it sees them, ``targets`` (int64 B) the classes whose logits are explained.
    """
    maps: list[Tensor] = []
    resnet = isinstance(network, ResNet)

    def watch(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and (resnet or output[0, 0].numel() > 1):
            maps.append(output)

    layers = [network.layer4] if isinstance(network, ResNet) else list(network.children())
    with ExitStack() as hooks, torch.enable_grad():  # of the images, so that a frozen network has slopes too
        for layer in layers:
            hooks.enter_context(layer.register_forward_hook(watch))
        logits = network.forward(images.detach().requires_grad_())  # a compiled network as it was written
    if not maps:
        problem = f"no layer of {type(network).__name__} gives a map of features (B x C x H x W, more than one pixel)"
        raise UserError(f"gradcam=true: {problem}; leave gradcam out, or use a larger image_size")
    (slopes,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), maps[-1])
    return (slopes.mean(dim=(2, 3), keepdim=True) * maps[-1].detach()).sum(dim=1).clamp(min=0)


def scaled_heat(maps: Tensor, height: int, width: int) -> NDArray[np.float32]:
    """Maps B x h x w scaled to [0, 1] each (all 0 where there is no evidence) and enlarged to B x height x width."""
    peak = maps.amax(dim=(1, 2), keepdim=True)
    scaled = maps / torch.where(peak > 0, peak, torch.ones_like(peak))
    large = nn.functional.interpolate(scaled[:, None], (height, width), mode="bilinear", align_corners=False)
    return large[:, 0].cpu().numpy()
