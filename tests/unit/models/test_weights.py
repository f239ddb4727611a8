"""Weights from files and servers: whole, safe and of the same network, or refused with the network unchanged."""

import hashlib
import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from histo_lightning.errors import UserError
from histo_lightning.models import build_network, load_weights
from histo_lightning.models.resnet import resnet18


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
    same = resnet18()
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
    network = build_network({"_target_": f"histo_lightning.models.resnet.{model}", "stem": stem}, 2)
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
    monkeypatch.setattr("histo_lightning.downloads.FIRST_PAUSE_SECONDS", 0.0)


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
    kept = list((tmp_path / "cache").glob("[!.]*"))  # lock files stay
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
    assert list(tmp_path.glob("[!.]*")) == []  # a lock file may stay
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
