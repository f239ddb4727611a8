"""The ResNet family (He et al. 2016, table 1), written for this package, with torchvision's parameter names."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

Norm = Callable[[int], nn.Module]
STEMS = ("standard", "deep", "small")
STEM_CHANNELS = 64
STAGE_CHANNELS = (64, 128, 256, 512)


def _conv3x3(inputs: int, outputs: int, stride: int = 1, groups: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, groups, bias=False)


def _conv1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)


class _Block(nn.Module):
    """Convolutions, each with its normalisation, beside a shortcut; :class:`Bottleneck` has the arguments."""

    expansion: int  # channels that go out for each of ``channels``

    def __init__(
        self, inputs: int, channels: int, stride: int = 1, downsample: nn.Module | None = None, groups: int = 1,
        base_width: int = 64, dilation: int = 1, norm_layer: Norm = nn.BatchNorm2d,
    ) -> None:  # fmt: skip
        super().__init__()
        options = {"stride": stride, "groups": groups, "dilation": dilation}
        convolutions = self.convolutions(inputs, channels, channels * base_width // 64 * groups, **options)
        self.depth = len(convolutions)
        for number, convolution in enumerate(convolutions, start=1):
            self.add_module(f"conv{number}", convolution)
            self.add_module(f"bn{number}", norm_layer(convolution.out_channels))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def convolutions(self, inputs: int, channels: int, width: int, **options: int) -> list[nn.Conv2d]:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        for number in range(1, self.depth + 1):
            residual = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(residual))
            residual = self.relu(residual) if number < self.depth else residual
        residual += x if self.downsample is None else self.downsample(x)
        return self.relu(residual)  # type: ignore[no-any-return]


class BasicBlock(_Block):
    """Two 3x3 convolutions beside a shortcut: B x ``inputs`` x H x W -> B x ``channels`` x H/stride x W/stride.

    The stride is the first convolution's. ValueError or NotImplementedError where ``groups``, ``base_width`` or
    ``dilation`` differ from their defaults.
    """

    expansion = 1

    def convolutions(self, inputs: int, channels: int, width: int, **options: int) -> list[nn.Conv2d]:
        if options["groups"] != 1 or width != channels:
            raise ValueError("BasicBlock only supports groups=1 and base_width=64")
        if options["dilation"] > 1:
            raise NotImplementedError("Dilation > 1 not supported in BasicBlock")
        return [_conv3x3(inputs, channels, options["stride"]), _conv3x3(channels, channels)]


class Bottleneck(_Block):
    """1x1, 3x3 and 1x1 convolution beside a shortcut: B x ``inputs`` x H x W -> B x 4 ``channels`` x H/stride x W/stride.

    The 3x3 has the stride, as in torchvision ("ResNet 1.5"), not the first 1x1 as in the paper.

    Args:
        inputs, channels: channels that come in, and a quarter of those that go out.
        stride, groups, dilation: of the 3x3 convolution; downsample: the shortcut, None is the identity.
        base_width: channels of each group of the 3x3 where ``channels`` is 64; they grow with ``channels``.
        norm_layer: builds a normalisation from a number of channels.
    """

    expansion = 4

    def convolutions(self, inputs: int, channels: int, width: int, **options: int) -> list[nn.Conv2d]:
        middle = _conv3x3(width, width, **options)
        return [_conv1x1(inputs, width), middle, _conv1x1(width, channels * self.expansion)]


class ResNet(nn.Module):
    """Stem, four stages of residual blocks, global average pool, fc.

    Args:
        block, layers: the block of all stages, and how many of them each of the four stages has.
        zero_init_residual: start the last normalisation of each block at 0, so that each block starts as its shortcut.
        groups, width_per_group: groups of each 3x3 and channels of a group in the first stage (Bottleneck only).
        replace_stride_with_dilation: for stages 2, 3 and 4, whether dilation takes the place of the stride, which
            keeps the map larger (Bottleneck only).
        norm_layer: builds a normalisation from a number of channels.
        stem: ``standard``: 7x7 with stride 2, then a max-pool; ``deep`` (ResNet-D, He et al. 2019): three 3x3 in
            place of the 7x7 and an average pool in place of the stride in each shortcut; ``small``: one 3x3 with
            stride 1 and no max-pool, for small images (the map is four times larger on each side).

    ValueError or NotImplementedError for what does not exist.
    """

    def __init__(
        self, block: type[_Block], layers: Sequence[int], num_classes: int = 1000, zero_init_residual: bool = False,
        groups: int = 1, width_per_group: int = 64, replace_stride_with_dilation: Sequence[bool] | None = None,
        norm_layer: Norm = nn.BatchNorm2d, stem: str = "standard",
    ) -> None:  # fmt: skip
        super().__init__()
        dilate = (False,) * 3 if replace_stride_with_dilation is None else replace_stride_with_dilation
        if len(dilate) != 3:
            wanted = "None or a 3-element tuple"
            raise ValueError(f"replace_stride_with_dilation should be {wanted}, got {dilate}")
        if len(layers) != len(STAGE_CHANNELS):
            raise ValueError(f"layers should hold the blocks of {len(STAGE_CHANNELS)} stages, got {layers}")
        if stem not in STEMS:
            raise ValueError(f"stem should be one of {', '.join(STEMS)}, got {stem!r}")
        self.feature_dim = STAGE_CHANNELS[-1] * block.expansion
        self.conv1 = _stem_convolution(stem, norm_layer)
        self.bn1 = norm_layer(STEM_CHANNELS)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if stem == "small" else nn.MaxPool2d(3, stride=2, padding=1)
        make_block = partial(block, groups=groups, base_width=width_per_group, norm_layer=norm_layer)
        inputs, dilation, stages = STEM_CHANNELS, 1, []
        stage_options = zip(STAGE_CHANNELS, layers, (1, 2, 2, 2), (False, *dilate), strict=True)
        for channels, depth, stride, dilated in stage_options:
            outputs, first_dilation, shortcut = channels * block.expansion, dilation, None
            if dilated:
                dilation, stride = dilation * stride, 1
            if stride != 1 or inputs != outputs:
                shortcut = _shortcut(inputs, outputs, stride, norm_layer, pooled=stem == "deep")
            # The first block still sees a map without the new dilation: its 3x3 would otherwise skip neighbours.
            blocks = [make_block(inputs, channels, stride, shortcut, dilation=first_dilation)]
            blocks += [make_block(outputs, channels, dilation=dilation) for _ in range(1, depth)]
            stages.append(nn.Sequential(*blocks))
            inputs = outputs
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc: nn.Module = nn.Linear(self.feature_dim, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif zero_init_residual and isinstance(module, _Block):
                weight = getattr(getattr(module, f"bn{module.depth}"), "weight", None)
                if weight is None:
                    raise ValueError("zero_init_residual needs a norm_layer with a weight")
                nn.init.zeros_(weight)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images, float B x 3 x H x W -> the last stage's map, B x ``feature_dim`` x H/32 x W/32 (rounded up)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Images, float B x 3 x H x W, normalised -> logits, B x ``num_classes``."""
        return self.fc(self.avgpool(self.forward_features(x)).flatten(1))  # type: ignore[no-any-return]


def _stem_convolution(stem: str, norm_layer: Norm) -> nn.Module:
    if stem == "standard":
        return nn.Conv2d(3, STEM_CHANNELS, 7, stride=2, padding=3, bias=False)
    if stem == "small":
        return _conv3x3(3, STEM_CHANNELS)
    half = STEM_CHANNELS // 2
    first = [_conv3x3(3, half, stride=2), norm_layer(half), nn.ReLU(inplace=True)]
    second = [_conv3x3(half, half), norm_layer(half), nn.ReLU(inplace=True)]
    return nn.Sequential(*first, *second, _conv3x3(half, STEM_CHANNELS))


def _shortcut(inputs: int, outputs: int, stride: int, norm_layer: Norm, *, pooled: bool) -> nn.Sequential:
    # ceil_mode: an odd side becomes the same length as under the 3x3 with padding in the other branch.
    pool = nn.Identity() if stride == 1 else nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
    layers = [pool, _conv1x1(inputs, outputs)] if pooled else [_conv1x1(inputs, outputs, stride)]
    return nn.Sequential(*layers, norm_layer(outputs))


# Each is called as resnet18(num_classes=1000, **options) with the options of ResNet. The number counts the layers with
# weights: the stem's 7x7, 2 or 3 convolutions a block, the fc. With stem="deep" the names are those of timm's resnet..d.
resnet10 = partial(ResNet, BasicBlock, (1, 1, 1, 1))  # timm's resnet10t and resnet14t with the standard stem
resnet14 = partial(ResNet, Bottleneck, (1, 1, 1, 1))
resnet18 = partial(ResNet, BasicBlock, (2, 2, 2, 2))
resnet26 = partial(ResNet, Bottleneck, (2, 2, 2, 2))  # timm's
resnet34 = partial(ResNet, BasicBlock, (3, 4, 6, 3))
resnet50 = partial(ResNet, Bottleneck, (3, 4, 6, 3))
resnet101 = partial(ResNet, Bottleneck, (3, 4, 23, 3))
resnet152 = partial(ResNet, Bottleneck, (3, 8, 36, 3))
resnext50_32x4d = partial(resnet50, groups=32, width_per_group=4)  # Xie et al. 2017
resnext101_32x8d = partial(resnet101, groups=32, width_per_group=8)
wide_resnet50_2 = partial(resnet50, width_per_group=128)  # Zagoruyko and Komodakis 2016
wide_resnet101_2 = partial(resnet101, width_per_group=128)
