"""Whole-batch augmentation on the training device.

Random numbers hash (seed, epoch, sample, channel): the same for any number of workers or devices, and after a resume.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from histo_lightning.config.checks import nearest
from histo_lightning.config.schema import AugmentConfig
from histo_lightning.config.targets import check_arguments
from histo_lightning.config.tree import option
from histo_lightning.data.pixels.stains import BASIS, UNMIXING
from histo_lightning.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_SPLITMIX_64 = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_GOLDEN, _MIX_1, _MIX_2 = (number - 2**64 for number in _SPLITMIX_64)  # as int64


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mixed(x: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele, Lea & Flood 2014) on int64 with wrap-around."""
    x = (x ^ _shifted(x, 30)) * _MIX_1
    x = (x ^ _shifted(x, 27)) * _MIX_2
    return x ^ _shifted(x, 31)


def uniform(seed: int, epoch: int, samples: Tensor, channels: int) -> Tensor:
    """Uniform numbers in [0, 1), float32, samples x channels, from the arguments alone; ``samples``: int64 identifiers."""
    # Filled on the device: torch.tensor would copy from the host, and wait.
    start = torch.full((), seed * 1_000_003 + epoch, dtype=torch.int64, device=samples.device)
    key = _mixed(start * _GOLDEN)
    rows = _mixed(key + (samples.to(torch.int64) + 1) * _GOLDEN)
    columns = torch.arange(1, channels + 1, dtype=torch.int64, device=samples.device) * _GOLDEN
    bits = _shifted(_mixed(rows[:, None] + columns[None, :]), 40)
    return bits.to(torch.float32) * 2.0**-24


Augmentation = str | Mapping[str, Any] | AugmentConfig
Step = Callable[..., Tensor]
STEPS: dict[str, Step] = {}
NUMBERS_A_STEP = 8


def augmentation_step(name: str) -> Callable[[Step], Step]:
    """Register a function as the step ``augment.steps.<name>``; steps run in the order of the config, before the colours.

    It changes training images: uint8 B x S x S x 3, and uniform numbers in [0, 1), float32 B x 8 -> uint8 or float32 in
    [0, 255], B x S x S x 3. Its keyword arguments are what ``augment.steps.<name>`` gives.
    """

    def register(step: Step) -> Step:
        STEPS[name] = step
        return step

    return register


def check_steps(steps: Mapping[str, Any]) -> None:
    """Raise UserError where a step does not exist or does not take its arguments."""
    for name, options in {name: options for name, options in steps.items() if options is not None}.items():
        if name not in STEPS:
            known = ", ".join(sorted(STEPS)) or "none (a module of your own registers one; see imports)"
            hint = nearest(name, list(STEPS))
            raise UserError(f"augment.steps.{name}: no such step; allowed are {known}{hint}")
        if not isinstance(options, Mapping):
            raise UserError(f"augment.steps.{name}={options}: give its arguments, or {{}} for none")
        filled = list(inspect.signature(STEPS[name]).parameters)[:2]
        check_arguments(STEPS[name], options, f"augment.steps.{name}", filled=filled)


@dataclass
class Recipe(AugmentConfig):
    """What is done to a batch: the keys of ``conf/augment``, and ``size``, the side of the training square in pixels."""

    size: int = 112

    @property
    def crops_at_native_scale(self) -> bool:
        return tuple(self.crop_scale) == (1.0, 1.0) == tuple(self.crop_ratio) and not self.rotation_degrees

    def text(self) -> str:
        """The transforms in words, for checkpoints and reports."""
        scale, ratio, centre = tuple(self.crop_scale), tuple(self.crop_ratio), f"centre square of {self.size}"
        crop = f"random crop of scale {scale} and ratio {ratio}, resized to {self.size}"
        if self.crops_at_native_scale:
            crop = f"random crop of {self.size} at native scale"
        colours = ("brightness", "contrast", "channel_gain", "stain_gain", "stain_shift")
        changes = {
            centre if self.name == "none" else crop: True,
            "eight orientations": self.dihedral,
            "horizontal flip": self.horizontal_flip,
            f"rotation up to {self.rotation_degrees:g} degrees": self.rotation_degrees,
            **{f"{name.replace('_', ' ')} {getattr(self, name):g}": getattr(self, name) for name in colours},
            **{f"{name} {options}": options is not None for name, options in self.steps.items()},
        }
        train = ", ".join(text for text, on in changes.items() if on)
        return f"train: {train}; evaluation: {'whole field' if self.evaluate == 'field' else centre}"


def recipe_of(augment: Augmentation, size: int, normalisation: str | None) -> Recipe:
    """The recipe of an option of ``conf/augment``, or of its keys; UserError where an option, key or step is unknown."""
    if isinstance(augment, AugmentConfig):
        augment = asdict(augment)
    keys = option("augment", augment) if isinstance(augment, str) else dict(augment)
    known = sorted(field.name for field in fields(AugmentConfig))
    if unknown := [name for name in keys if name not in known]:
        raise UserError(f"augment: {unknown[0]!r} is no key of it; allowed are {', '.join(known)}")
    if normalisation is not None:
        keys["normalisation"] = normalisation
    check_steps(keys.get("steps") or {})
    return Recipe(**keys, size=size)


def _native_crops(images: Tensor, u: Tensor, recipe: Recipe) -> Tensor:
    """Random windows in one of the eight orientations, at native scale: B x H x W x 3 -> B x S x S x 3, by one gather."""
    (batch, height, width, _), size = images.shape, recipe.size
    index = torch.int32 if batch * height * width < 2**31 else torch.int64
    top = (u[:, 0] * (height - size + 1)).to(index)
    left = (u[:, 1] * (width - size + 1)).to(index)
    bits = (u[:, 6] * 8).long()
    flip, mirror, transpose = (((bits >> bit) & 1).bool()[:, None] for bit in range(3))
    if not recipe.dihedral:
        flip, transpose = torch.zeros_like(flip), torch.zeros_like(transpose)
        mirror = (u[:, 5:6] < 0.5) & recipe.horizontal_flip
    steps = torch.arange(size, dtype=index, device=images.device)
    starts = torch.arange(batch, dtype=index, device=images.device)[:, None] * (height * width)
    rows = (top[:, None] + torch.where(flip, size - 1 - steps, steps)) * width + starts
    columns = left[:, None] + torch.where(mirror, size - 1 - steps, steps)
    # The source of output pixel (y, x) in the flattened images is along_y[y] + along_x[x].
    along_y, along_x = torch.where(transpose, columns, rows), torch.where(transpose, rows, columns)
    source = (along_y[:, :, None] + along_x[:, None, :]).flatten()
    return images.reshape(-1, 3).index_select(0, source).view(batch, size, size, 3)


def _affine_crops(images: Tensor, u: Tensor, recipe: Recipe) -> Tensor:
    """RandomResizedCrop, flip and rotation, drawn as in torchvision, as one bilinear sampling: float32 in [0, 255], B x S x S x C."""
    height, width = images.shape[1:3]
    low, high = recipe.crop_scale
    area = (low + (high - low) * u[:, 0]) * height * width
    low, high = (math.log(ratio) for ratio in recipe.crop_ratio)
    ratio = torch.exp(low + (high - low) * u[:, 1])
    crop_width = torch.sqrt(area * ratio).clamp(max=width) / width  # shares of the field
    crop_height = torch.sqrt(area / ratio).clamp(max=height) / height
    signed = 2 * u - 1
    centre_x, centre_y = (1 - crop_width) * signed[:, 2], (1 - crop_height) * signed[:, 3]  # in [-1, 1]
    angle = signed[:, 4] * math.radians(recipe.rotation_degrees)
    mirror = torch.where((u[:, 5] < 0.5) & recipe.horizontal_flip, -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    # Output -> turned back in the square -> mirrored -> placed in the field: the order of the thesis's transforms.
    first = torch.stack([crop_width * mirror * cos, -crop_width * mirror * sin, centre_x], dim=1)
    second = torch.stack([crop_height * sin, crop_height * cos, centre_y], dim=1)
    shape = [len(images), 3, recipe.size, recipe.size]
    grid = functional.affine_grid(torch.stack([first, second], dim=1), shape, align_corners=False)
    channels_first = images.permute(0, 3, 1, 2).float()
    sampled = functional.grid_sample(channels_first, grid, "bilinear", "reflection", align_corners=False)
    return sampled.permute(0, 2, 3, 1)


@cache
def _stain_bases(device: torch.device) -> list[Tensor]:
    return [torch.from_numpy(basis).float().to(device) for basis in (BASIS, UNMIXING)]


def _stained(images: Tensor, u: Tensor, recipe: Recipe) -> Tensor:
    """Jitter haematoxylin and eosin: HED amounts times 1 +- gain, plus +- shift, in optical density (Tellez 2018)."""
    basis, inverse = _stain_bases(images.device)
    signed = 2 * u - 1
    gain = 1 + functional.pad(recipe.stain_gain * signed[:, 0:2], (0, 1))
    shift = functional.pad(recipe.stain_shift * signed[:, 2:4], (0, 1))
    mixing = inverse[None] @ torch.diag_embed(gain) @ basis[None]
    # Of the densities -log(x / 255), mixed: the logarithm of what they let through. Products of several pixels take half the time.
    white, together = math.log(255), math.gcd(16, images[0, :, :, 0].numel())
    offset = white - white * mixing.sum(dim=1, keepdim=True) - (shift @ basis)[:, None]
    blocks = torch.einsum("ij,bkl->bikjl", torch.eye(together, device=images.device), mixing)
    logs = images.clamp_(min=1).log_().reshape(len(images), -1, 3 * together)
    mixed = torch.baddbmm(offset.repeat(1, 1, together), logs, blocks.reshape(len(images), 3 * together, -1))
    return mixed.clamp_(max=white).exp_().view(images.shape)


def augment(
    images: Tensor, samples: Tensor, recipe: Recipe, mean: Tensor, std: Tensor, *, seed: int, epoch: int
) -> Tensor:
    """Augment and normalise a training batch: uint8 B x H x W x 3 -> float32 B x 3 x size x size, channels_last.

    ``samples``: int64, B, an identifier for each image. ``mean, std``: float32, 3, in units of [0, 1].
    """
    if recipe.name == "none":
        return normalise(images, mean, std, recipe.size)
    steps = [(STEPS[name], options) for name, options in recipe.steps.items() if options is not None]
    u = uniform(seed, epoch, samples, 16 + NUMBERS_A_STEP * len(steps))
    crops = images if recipe.crops_at_native_scale else _affine_crops(images, u, recipe)
    if recipe.crops_at_native_scale or recipe.dihedral:
        crops = _native_crops(crops, u, recipe)
    for number, (step, options) in enumerate(steps):
        start = 16 + NUMBERS_A_STEP * number
        crops = step(crops, u[:, start : start + NUMBERS_A_STEP], **options)
    if recipe.stain_gain or recipe.stain_shift:
        crops = _stained(crops.float(), u[:, 7:11], recipe)
    # Brightness, contrast, channel gains and normalisation as one gain and one offset a channel.
    signed = 2 * u[:, 11:16] - 1
    brightness, contrast = 1 + recipe.brightness * signed[:, 0:1], 1 + recipe.contrast * signed[:, 1:2]
    scale = brightness * contrast * (1 + recipe.channel_gain * signed[:, 2:5]) / 255
    offset = (1 - contrast) * mean  # contrast turns about the training mean
    return _coloured(crops, scale / std, (offset - mean) / std)


def _coloured(images: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """``image * scale + offset`` (each B x 3 or 1 x 3): B x H x W x 3 -> float32 B x 3 x H x W, channels_last."""
    batch, height, width, _ = images.shape
    pixels = images.contiguous().view(batch, height, width * 3).float()
    # Repeated along a row: an inner loop over three channels would take three times as long.
    gain, shift = scale.repeat(1, width)[:, None, :], offset.repeat(1, width)[:, None, :]
    torch.addcmul(shift, pixels, gain, out=pixels)  # in place: fresh memory costs more than the arithmetic
    return pixels.view(batch, height, width, 3).permute(0, 3, 1, 2)  # nothing moves in memory


def normalise(images: Tensor, mean: Tensor, std: Tensor, size: int | None = None) -> Tensor:
    """uint8 B x H x W x 3 -> float32 B x 3 x H x W (channels_last), normalised; with ``size`` the centre square."""
    if size is not None:
        top, left = (images.shape[1] - size) // 2, (images.shape[2] - size) // 2
        images = images[:, top : top + size, left : left + size]
    return _coloured(images, (1 / (255 * std))[None], (-mean / std)[None])


def evaluation_view(images: Tensor, recipe: Recipe, mean: Tensor, std: Tensor) -> Tensor:
    """What validation and test see: the whole field, or its centre square; float32, B x 3 x H x W."""
    return normalise(images, mean, std, None if recipe.evaluate == "field" else recipe.size)
