"""Grad-CAM: where a network looked, as heat maps over its images and a page that shows them.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from histo_lightning.errors import UserError
from histo_lightning.models.resnet import ResNet
from histo_lightning.report.pages import thumbnail, write_page
from histo_lightning.runs import write_atomic

EMBEDDED = 300  # images on the page; all are in the folder
WIDTH = 560  # pixels of an embedded pair
STRENGTH = 0.55  # of the heat where the evidence is strongest


class HeatMap(NamedTuple):
    """An image of the page: ``picture`` is the pair of field and overlay, uint8 H x W x 3; ``file`` is relative."""

    path: str
    caption: str
    picture: NDArray[np.uint8]
    file: str


def attribution(network: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Maps of the evidence for a class, float32 B x h x w, not negative, not scaled.

    They come from ``layer4`` of our ResNet, else from the last direct child whose output is B x C x h x w with more than
    one pixel; raises UserError where there is none.

    Args:
        network: in evaluation mode; images to logits.
        images: float32 B x 3 x H x W, as the network sees them.
        targets: int64 B, the class whose logit is explained.
    """
    maps: list[Tensor] = []
    own = isinstance(network, ResNet)

    def watch(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and (own or output[0, 0].numel() > 1):
            maps.append(output)

    layers = [network.layer4] if isinstance(network, ResNet) else list(network.children())
    handles = [layer.register_forward_hook(watch) for layer in layers]
    try:
        with torch.enable_grad():  # of the images, so that a frozen network has slopes too
            logits = network(images.detach().requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    if not maps:
        raise UserError(
            f"gradcam=true: no layer of {type(network).__name__} gives a map of features (B x C x H x W, more than one "
            "pixel); leave gradcam out, or use a larger image_size"
        )
    (slopes,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), maps[-1])
    return (slopes.mean(dim=(2, 3), keepdim=True) * maps[-1].detach()).sum(dim=1).clamp(min=0)


def scaled_heat(maps: Tensor, height: int, width: int) -> NDArray[np.float32]:
    """Maps B x h x w scaled to [0, 1] each (all 0 where there is no evidence) and enlarged to B x height x width."""
    peak = maps.amax(dim=(1, 2), keepdim=True)
    scaled = maps / torch.where(peak > 0, peak, torch.ones_like(peak))
    large = nn.functional.interpolate(scaled[:, None], (height, width), mode="bilinear", align_corners=False)
    return large[:, 0].cpu().numpy()


def overlay(field: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A field (uint8 H x W x 3) beside itself under a heat map (float32 H x W in [0, 1]): uint8 H x 2W x 3.

    Without evidence the field is unchanged: the colour's share grows with the heat.
    """
    colours = colormaps["inferno"](heat)[:, :, :3] * 255
    share = STRENGTH * heat[:, :, None]
    mixed = field * (1 - share) + colours * share
    return np.concatenate([field, mixed.round().clip(0, 255).astype(np.uint8)], axis=1)


def write_overlay(path: Path, field: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Write the pair as PNG, atomically, and give it back."""
    pair, file = overlay(field, heat), io.BytesIO()
    Image.fromarray(pair).save(file, "png")
    write_atomic(path, file.getvalue())
    return pair


def write_gallery(path: Path, maps: Sequence[HeatMap], classes: Sequence[str]) -> None:
    """One self-contained page with the first 300 pairs; ``classes`` are the network's."""
    pictures = [thumbnail(one.picture, Path(one.path).name, WIDTH) for one in maps[:EMBEDDED]]
    entries = list(zip(maps, pictures, strict=False))
    write_page(path, "gallery.html", title="Grad-CAM", entries=entries, count=len(maps), names=classes)
