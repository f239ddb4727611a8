"""The ResNet family against torchvision and against hand-counted numbers; heads; loading weights."""

import hashlib
import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from histo_lightning.config import MODEL_NAMES
from histo_lightning.errors import UserError
from histo_lightning.models import MODELS, ResNet, build_backbone, build_head, build_network, load_weights
from histo_lightning.models.resnet import BasicBlock, Bottleneck, resnet10, resnet18, resnet50

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
        ours = build_backbone(name, num_classes=7, **options)
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


def test_the_registry_holds_what_the_config_offers() -> None:
    assert list(MODELS) == MODEL_NAMES
    assert len(IN_TORCHVISION) == 9
    with pytest.raises(ValueError, match="unknown model 'resnet19'"):
        build_backbone("resnet19")


@pytest.mark.parametrize("name", IN_TORCHVISION)
def test_names_shapes_and_outputs_equal_torchvisions(name: str) -> None:
    torch.manual_seed(0)
    ours, theirs = twins(name)
    shapes = [(key, value.shape) for key, value in theirs.state_dict().items()]
    assert [(key, value.shape) for key, value in ours.state_dict().items()] == shapes
    assert [key for key, _ in ours.named_parameters()] == [key for key, _ in theirs.named_parameters()]
    batch = images()
    for training in (False, True):
        ours.train(training)
        theirs.train(training)
        with torch.no_grad():
            torch.testing.assert_close(ours(batch), theirs(batch), rtol=1e-5, atol=1e-6)
    # Train mode moved the running statistics alike.
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-5, atol=1e-6)


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
    ours = build_backbone(name, zero_init_residual=zero_init).state_dict()
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
        network = build_backbone(name)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == counted_by_hand(expansion, depths, 1000)
    assert published in (None, count)


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("resnet")])
def test_the_name_counts_the_layers_with_weights(name: str) -> None:
    with torch.device("meta"):
        network = build_backbone(name)
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
    network = build_backbone("resnet50", zero_init_residual=True)
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
    plain = build_backbone("resnet18")
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
    network = build_backbone(name, num_classes=3, stem=stem)
    features = network.forward_features(images(2, side))
    assert features.shape == (2, network.feature_dim, map_side, map_side)
    logits = network(images(2, side))
    assert logits.shape == (2, 3)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_deep_stem_has_timms_names_and_pools_in_the_shortcut() -> None:
    state = build_backbone("resnet50", stem="deep").state_dict()
    shapes = {key: tuple(state[f"conv1.{key}.weight"].shape) for key in (0, 1, 3, 4, 6)}
    assert shapes == {0: (32, 3, 3, 3), 1: (32,), 3: (32, 32, 3, 3), 4: (32,), 6: (64, 32, 3, 3)}
    count = sum(parameter.numel() for parameter in build_backbone("resnet50", stem="deep").parameters())
    assert count == 25_576_264  # timm's results table: resnet50d, 25.58 M
    shortcut = build_backbone("resnet14", stem="deep").layer2[0].downsample
    assert isinstance(shortcut[0], nn.AvgPool2d)
    assert shortcut[1].stride == (1, 1)
    torch.testing.assert_close(
        shortcut[0](torch.arange(9.0).view(1, 1, 3, 3)), torch.tensor([[[[2.0, 3.5], [6.5, 8.0]]]])
    )


def test_any_normalisation() -> None:
    network = build_backbone("resnet14", norm_layer=partial(nn.GroupNorm, 8), zero_init_residual=True)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    alone, together = network(images(2)[:1]), network(images(2))
    torch.testing.assert_close(alone, together[:1], rtol=1e-4, atol=1e-5)


def test_features_pooled_and_classified_are_the_output() -> None:
    network = build_backbone("resnet10", num_classes=2).eval()
    pooled = network.forward_features(images()).mean(dim=(2, 3))
    assert pooled.shape == (2, 512)
    torch.testing.assert_close(network.fc(pooled), network(images()))


def test_heads() -> None:
    mlp = build_head("mlp", 2048, 2)
    kinds = [type(layer).__name__ for layer in mlp.children()]
    assert kinds == ["Linear", "ReLU", "Dropout", "Linear"]
    assert sum(p.numel() for p in mlp.parameters()) == 2048 * 512 + 512 + 512 * 2 + 2
    assert mlp[2].p == 0.05
    assert (mlp.eval()(torch.full((4, 2048), -5.0)).exp().sum(1) - 1).abs().min() > 1e-3  # logits, no softmax
    assert isinstance(build_head("linear", 512, 8), nn.Linear)
    with pytest.raises(ValueError, match="unknown head 'conv'; heads are linear, mlp"):
        build_head("conv", 512, 2)


def test_build_network_puts_the_head_behind_the_backbone() -> None:
    network = build_network("resnet50", 2, head="mlp", hidden=16, dropout=0.3, stem="deep")
    assert network.fc[0].in_features == 2048
    assert network.fc[0].out_features == 16
    assert network.fc[2].p == 0.3
    assert network(images()).shape == (2, 2)
    assert not network.layer1[0].bn3.weight.any()  # zero-initialised by default
    assert network.layer1[0].downsample is not None
    assert build_network("resnet10", 2, zero_init_residual=False).layer1[0].bn2.weight.all()


# --- weights -----------------------------------------------------------------------------------------------------


def saved(network: nn.Module, path: Path) -> Path:
    torch.save(network.state_dict(), path)
    return path


def fingerprint(network: nn.Module) -> str:
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def test_torchvision_weights_load_without_their_fc(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18()
    path = saved(theirs, tmp_path / "w=1, 'x'.pth")
    network = build_network("resnet18", 2, head="mlp")
    before = network.fc[0].weight.clone()
    assert load_weights(network, str(path), cache_dir=tmp_path / "cache") is False
    assert torch.equal(network.fc[0].weight, before)
    for key, value in theirs.state_dict().items():
        if not key.startswith("fc."):
            assert torch.equal(network.state_dict()[key], value), key
    same = build_backbone("resnet18")
    assert load_weights(same, path.as_uri(), cache_dir=tmp_path / "cache") is True
    assert torch.equal(same.fc.weight, theirs.fc.weight)
    assert not (tmp_path / "cache").exists()


def test_weights_without_fc_or_batch_counters_load(tmp_path: Path) -> None:
    state = {
        key: value
        for key, value in torchvision.models.resnet18().state_dict().items()
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked")
    }
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    network = build_network("resnet18", 2)
    assert load_weights(network, str(tmp_path / "old.pth"), cache_dir=tmp_path) is False
    assert torch.equal(network.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])


@pytest.mark.parametrize(
    ("model", "stem", "named"),
    [
        ("resnet34", "standard", "missing layer1.2.conv1.weight"),
        ("resnet10", "standard", "unexpected layer1.1.conv1.weight"),
        ("resnet18", "small", r"conv1.weight \(64, 3, 7, 7\) instead of \(64, 3, 3, 3\)"),
        ("resnet18", "deep", "missing conv1.0.weight"),
        ("resnet50", "standard", r"and \d+ more"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path: Path, model: str, stem: str, named: str) -> None:
    path = saved(torchvision.models.resnet18(), tmp_path / "resnet18.pth")
    network = build_network(model, 2, stem=stem)
    before = fingerprint(network)
    with pytest.raises(UserError, match=r"^model\.weights=.*resnet18\.pth: does not fit.*" + named) as caught:
        load_weights(network, str(path), cache_dir=tmp_path)
    assert len(str(caught.value)) < 1500
    assert fingerprint(network) == before


class Innocent:
    """Not a tensor: its pickle would run code on loading."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code of the file ran')",))


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    network = build_network("resnet10", 2)
    whole = saved(network, tmp_path / "whole.pth").read_bytes()
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.pth").write_text("<html>not found</html>")
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    torch.save({"w": Innocent()}, tmp_path / "code.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    torch.save({3: torch.zeros(1)}, tmp_path / "keys.pth")
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, tmp_path / "training.pth")
    torch.save(network.state_dict() | {"bn1.bias": torch.full((64,), torch.nan)}, tmp_path / "nan.pth")
    for name, said in {
        "absent.pth": "no such file",
        "empty.pth": "not a readable file",
        "text.pth": "not a readable file",
        "cut.pth": "not a readable file",
        "code.pth": "not a readable file",
        "list.pth": "holds a list",
        "keys.pth": "holds a dict with other things than tensors",
        "training.pth": "training checkpoint",
        "nan.pth": "bn1.bias not finite",
    }.items():
        with pytest.raises(UserError, match=said):
            load_weights(network, str(tmp_path / name), cache_dir=tmp_path)
    with pytest.raises(UserError, match="not a readable file"):
        load_weights(network, str(tmp_path), cache_dir=tmp_path)


@contextmanager
def server(body: bytes, send: int | None = None, announce: bool = True) -> Iterator[tuple[str, list[str]]]:
    """A web server on this machine that sends the first ``send`` bytes of ``body``; None drops the connection."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if "missing" in self.path:
                self.send_error(404)
                return
            if send is None:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(200)
            if announce:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:send])

        def log_message(self, format: str, *args: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}", asked
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("histo_lightning.data.sources.downloads.FIRST_PAUSE_SECONDS", 0.0)


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return saved(build_network("resnet10", 2), tmp_path_factory.mktemp("weights") / "w.pth").read_bytes()


@pytest.mark.usefixtures("no_proxy")
def test_a_download_is_verified_kept_and_not_repeated(tmp_path: Path, body: bytes) -> None:
    network = build_network("resnet10", 2)
    digest = hashlib.sha256(body).hexdigest()[:8]
    with server(body, len(body)) as (address, asked):
        url = f"{address}/models/resnet10-{digest}.pth?download=1"
        assert load_weights(network, url, cache_dir=tmp_path / "cache") is True
        assert load_weights(network, url, cache_dir=tmp_path / "cache") is True
        assert len(asked) == 1
        # The same name elsewhere is another file.
        load_weights(network, url.replace("models", "other"), cache_dir=tmp_path / "cache")
        assert len(asked) == 2
    kept = list((tmp_path / "cache").glob("*.pth"))
    assert len(kept) == 2
    assert all(path.read_bytes() == body and path.name.endswith(f"resnet10-{digest}.pth") for path in kept)


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize(
    ("name", "share", "announce", "said"),
    [
        ("w.pth", 0.5, True, r"connection was cut after \d+ of \d+ bytes"),
        ("w.pth", 0.5, False, "not a readable file"),
        ("w.pth", None, True, "cannot be downloaded"),
        ("w-00000000.pth", 1.0, True, "SHA-256 starts with .* its name says 00000000"),
        ("missing.pth", 1.0, True, "404"),
    ],
)
def test_a_bad_download_leaves_nothing(
    tmp_path: Path, body: bytes, name: str, share: float | None, announce: bool, said: str
) -> None:
    network = build_network("resnet10", 2)
    before = fingerprint(network)
    send = None if share is None else int(len(body) * share)
    with (
        server(body, send, announce) as (address, _),
        pytest.raises(UserError, match=r"^model\.weights=http.*" + said),
    ):
        load_weights(network, f"{address}/{name}", cache_dir=tmp_path)
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []
    assert fingerprint(network) == before


@pytest.mark.usefixtures("no_proxy")
def test_no_server_and_no_folder_are_said(tmp_path: Path) -> None:
    network = build_network("resnet10", 2)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/w.pth"
        with pytest.raises(UserError, match=r"cannot be downloaded.*refused"):
            load_weights(network, url, cache_dir=tmp_path)
    for url in ("http://", "http://[x/w.pth"):
        with pytest.raises(UserError, match="cannot be downloaded"):
            load_weights(network, url, cache_dir=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be downloaded"):
        load_weights(network, "http://127.0.0.1:1/w.pth", cache_dir=tmp_path / "file")
