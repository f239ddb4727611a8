"""The ResNet family against torchvision and against hand-counted numbers."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch
import torchvision
from torch import Tensor, nn

from histo_lightning.config.tree import conf_dir
from histo_lightning.models import ResNet, resnet
from histo_lightning.models.resnet import BasicBlock, Bottleneck, resnet10, resnet18, resnet50

MODELS = {name: made for name, made in vars(resnet).items() if isinstance(made, partial)}
IN_TORCHVISION = [name for name in MODELS if name not in ("resnet10", "resnet14", "resnet26")]
SMALL = ["resnet18", "resnet34", "resnet50", "resnext50_32x4d"]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small images gain nothing from threads, and threads that wait for a busy core make a test ten times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def images(batch: int = 2, side: int = 64) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(3))


def twins(name: str, **options: object) -> tuple[ResNet, nn.Module]:
    """Our network and torchvision's with the same weights and the same, not trivial, running statistics."""
    with torch.device("meta"):  # drawing weights by default would take most of the test's time
        ours = MODELS[name](num_classes=7, **options)
        theirs = getattr(torchvision.models, name)(num_classes=7, **options)
    theirs.to_empty(device="cpu")
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.running_mean, 0, 0.1)
            module.num_batches_tracked.zero_()
        elif isinstance(module, nn.Conv2d | nn.Linear):
            spread = (3 / module.weight[0].numel()) ** 0.5
            for values in module.parameters(recurse=False):
                nn.init.uniform_(values, -spread, spread)
    ours.load_state_dict({k: v.clone() for k, v in theirs.state_dict().items()}, assign=True)
    return ours, theirs


def test_the_config_offers_every_network_of_the_family() -> None:
    offered = {path.stem for path in (conf_dir() / "model").glob("*.yaml")} - {"_base"}
    assert offered == set(MODELS)
    assert len(IN_TORCHVISION) == 9


@pytest.mark.parametrize("name", IN_TORCHVISION)
def test_names_shapes_and_outputs_equal_torchvisions(name: str) -> None:
    torch.manual_seed(0)
    ours, theirs = twins(name)
    shapes = [(key, value.shape) for key, value in theirs.state_dict().items()]
    assert [(key, value.shape) for key, value in ours.state_dict().items()] == shapes
    assert [key for key, _ in ours.named_parameters()] == [key for key, _ in theirs.named_parameters()]
    batch = images(side=48)
    for training in (False, True):
        ours.train(training)
        theirs.train(training)
        with torch.no_grad():
            torch.testing.assert_close(ours(batch), theirs(batch), rtol=1e-5, atol=1e-6)
    # Train mode moved the running statistics alike.
    moved = dict(ours.named_buffers())
    for key, value in theirs.named_buffers():
        torch.testing.assert_close(moved[key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
def test_gradients_equal_torchvisions(name: str) -> None:
    torch.manual_seed(0)
    ours, theirs = twins(name)
    for network in (ours, theirs):
        nn.functional.cross_entropy(network(images()), torch.tensor([1, 4])).backward()
    for (key, mine), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert mine.grad is not None, key
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("zero_init", [False, True])
def test_the_same_seed_draws_the_same_weights_as_torchvision(name: str, zero_init: bool) -> None:
    torch.manual_seed(5)
    ours = MODELS[name](zero_init_residual=zero_init).state_dict()
    torch.manual_seed(5)
    theirs = getattr(torchvision.models, name)(zero_init_residual=zero_init).state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def conv(inputs: int, outputs: int, side: int) -> int:
    return inputs * outputs * side * side


def norm(channels: int) -> int:
    return 2 * channels


def counted_by_hand(expansion: int, depths: tuple[int, ...], classes: int) -> int:
    """Parameters from the definition: stem, blocks with their shortcuts, fc."""
    total = conv(3, 64, 7) + norm(64)
    inputs = 64
    for stage, depth in enumerate(depths):
        width = 64 * 2**stage
        outputs = width * expansion
        for block in range(depth):
            if expansion == 1:
                total += conv(inputs, width, 3) + norm(width) + conv(width, width, 3) + norm(width)
            else:
                total += conv(inputs, width, 1) + norm(width) + conv(width, width, 3) + norm(width)
                total += conv(width, outputs, 1) + norm(outputs)
            if block == 0 and (inputs != outputs or stage > 0):
                total += conv(inputs, outputs, 1) + norm(outputs)
            inputs = outputs
    return total + inputs * classes + classes


@pytest.mark.parametrize(
    ("name", "expansion", "depths", "published"),
    [
        ("resnet10", 1, (1, 1, 1, 1), None),
        ("resnet14", 4, (1, 1, 1, 1), None),
        ("resnet18", 1, (2, 2, 2, 2), 11_689_512),
        ("resnet26", 4, (2, 2, 2, 2), 15_995_176),  # timm's results table: 16.00 M
        ("resnet50", 4, (3, 4, 6, 3), 25_557_032),
    ],
)
def test_parameter_numbers(name: str, expansion: int, depths: tuple[int, ...], published: int | None) -> None:
    with torch.device("meta"):
        network = MODELS[name]()
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == counted_by_hand(expansion, depths, 1000)
    assert published in (None, count)


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("resnet")])
def test_the_name_counts_the_layers_with_weights(name: str) -> None:
    with torch.device("meta"):
        network = MODELS[name]()
    layers = [
        key
        for key, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and "downsample" not in key
    ]
    assert len(layers) == int(name.removeprefix("resnet"))


def test_the_stride_stands_on_the_3x3() -> None:
    block = resnet50().layer2[0]
    assert isinstance(block, Bottleneck)
    assert (block.conv1.stride, block.conv2.stride, block.conv3.stride) == ((1, 1), (2, 2), (1, 1))


def test_kaiming_fan_out_and_zero_initialised_residuals() -> None:
    torch.manual_seed(1)
    network = MODELS["resnet50"](zero_init_residual=True)
    for key, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            spread = float(module.weight.detach().std())
            tolerance = 6 / (2 * module.weight.numel()) ** 0.5  # six standard errors
            assert spread == pytest.approx((2 / fan_out) ** 0.5, rel=tolerance), key
    blocks = [module for module in network.modules() if isinstance(module, Bottleneck)]
    assert len(blocks) == 16
    assert all(not block.bn3.weight.any() and block.bn2.weight.all() for block in blocks)
    # A zero residual branch: the block is the ReLU of its shortcut.
    block = network.layer1[1].eval()
    seen = torch.rand(1, 256, 8, 8)
    torch.testing.assert_close(block(seen), seen)
    plain = MODELS["resnet18"]()
    assert all(block.bn2.weight.all() for block in plain.modules() if isinstance(block, BasicBlock))


def test_illegal_combinations_raise_as_torchvisions_do() -> None:
    cases: list[tuple[type[Exception], str, dict[str, object]]] = [
        (ValueError, "BasicBlock only supports groups=1 and base_width=64", {"groups": 2}),
        (ValueError, "BasicBlock only supports groups=1 and base_width=64", {"width_per_group": 128}),
        (
            NotImplementedError,
            "Dilation > 1 not supported in BasicBlock",
            {"replace_stride_with_dilation": (False, False, True)},
        ),
        (
            ValueError,
            r"replace_stride_with_dilation should be None or a 3-element tuple, got \(True, False\)",
            {"replace_stride_with_dilation": (True, False)},
        ),
    ]
    # torchvision builds one more block after the dilated stage's first; resnet18 has two.
    for error, message, options in cases:
        for factory in (resnet18, torchvision.models.resnet18):
            with pytest.raises(error, match=message):
                factory(**options)
    with pytest.raises(ValueError, match="stem should be one of standard, deep, small, got 'tiny'"):
        resnet18(stem="tiny")
    with pytest.raises(ValueError, match="4 stages"):
        ResNet(BasicBlock, (1, 1))
    with pytest.raises(ValueError, match="norm_layer with a weight"):
        resnet10(norm_layer=partial(nn.BatchNorm2d, affine=False), zero_init_residual=True)


@pytest.mark.parametrize("flags", [(False, False, True), (False, True, True), (True, True, True)])
def test_dilation_keeps_the_map_and_equals_torchvisions(flags: tuple[bool, bool, bool]) -> None:
    torch.manual_seed(0)
    ours, theirs = twins("resnet50", replace_stride_with_dilation=flags)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images(1)), theirs.eval()(images(1)), rtol=1e-5, atol=1e-6)
        assert ours.forward_features(images(1)).shape[2:] == (2 ** (1 + sum(flags)),) * 2


@pytest.mark.parametrize(
    ("stem", "side", "map_side"),
    [
        ("standard", 64, 2),
        ("deep", 64, 2),
        ("small", 64, 8),
        ("standard", 75, 3),
        ("deep", 75, 3),
        ("small", 33, 5),
    ],
)
@pytest.mark.parametrize("name", ["resnet10", "resnet14"])
def test_stems_and_odd_sizes(name: str, stem: str, side: int, map_side: int) -> None:
    network = MODELS[name](num_classes=3, stem=stem)
    features = network.forward_features(images(2, side))
    assert features.shape == (2, network.feature_dim, map_side, map_side)
    logits = network(images(2, side))
    assert logits.shape == (2, 3)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_deep_stem_has_timms_names_and_pools_in_the_shortcut() -> None:
    state = MODELS["resnet50"](stem="deep").state_dict()
    shapes = {key: tuple(state[f"conv1.{key}.weight"].shape) for key in (0, 1, 3, 4, 6)}
    assert shapes == {0: (32, 3, 3, 3), 1: (32,), 3: (32, 32, 3, 3), 4: (32,), 6: (64, 32, 3, 3)}
    count = sum(parameter.numel() for parameter in MODELS["resnet50"](stem="deep").parameters())
    assert count == 25_576_264  # timm's results table: resnet50d, 25.58 M
    shortcut = MODELS["resnet14"](stem="deep").layer2[0].downsample
    assert isinstance(shortcut[0], nn.AvgPool2d)
    assert shortcut[1].stride == (1, 1)
    torch.testing.assert_close(
        shortcut[0](torch.arange(9.0).view(1, 1, 3, 3)), torch.tensor([[[[2.0, 3.5], [6.5, 8.0]]]])
    )


def test_any_normalisation() -> None:
    network = MODELS["resnet14"](norm_layer=partial(nn.GroupNorm, 8), zero_init_residual=True)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    alone, together = network(images(2)[:1]), network(images(2))
    torch.testing.assert_close(alone, together[:1], rtol=1e-4, atol=1e-5)


def test_features_pooled_and_classified_are_the_output() -> None:
    network = MODELS["resnet10"](num_classes=2).eval()
    pooled = network.forward_features(images()).mean(dim=(2, 3))
    assert pooled.shape == (2, 512)
    torch.testing.assert_close(network.fc(pooled), network(images()))
