"""Pretrained weights: a torchvision-style state dict from a file or a URL into a network."""

import hashlib
import logging
import re
from pathlib import Path
from urllib.parse import unquote

import torch
from torch import Tensor, nn

from histo_lightning.data.sources.downloads import fetch
from histo_lightning.errors import UserError
from histo_lightning.models.networks import head_of
from histo_lightning.runs.files import utf8
from histo_lightning.runs.manifest import digest_of

log = logging.getLogger("histo_lightning")
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")  # SHA-256, as in torchvision's resnet18-f37072fd.pth
NAMED_KEYS = 4  # enough to recognise what does not fit


def load_weights(network: nn.Module, source: str, *, cache_dir: Path) -> bool:
    """Load torchvision-style weights into ``network``; every key and shape of the backbone must fit.

    The head is loaded where it has the keys and shapes of the network's, else left out; returns whether it was.
    ``source`` is a file or a URL of a state dict that ``torch.load(..., weights_only=True)`` reads; ``cache_dir`` keeps
    downloads. UserError for what is not there, damaged, or of another network; ``network`` is unchanged then.
    """
    downloaded = source.lower().startswith(("http:", "https:"))
    local = unquote(source.removeprefix("file://")) if source.startswith("file://") else source
    path = _download(source, cache_dir) if downloaded else Path(local).expanduser()
    try:
        state = _read(path, source)
    except UserError:
        if downloaded:
            path.unlink(missing_ok=True)  # else the damaged download would be used again
        raise
    expected = network.state_dict()
    prefix = next(f"{name}." for name, child in network.named_children() if child is head_of(network))
    heads = [{k: v.shape for k, v in values.items() if k.startswith(prefix)} for values in (expected, state)]
    if not (head_fits := heads[0] == heads[1]):
        for values in (expected, state):
            for key in [key for key in values if key.startswith(prefix)]:
                del values[key]
    shapes = {key: (tuple(state[key].shape), tuple(expected[key].shape)) for key in expected if key in state}
    misfits = {
        # Files from before torch 0.4.1 have no counters of batches; nothing is computed from them here.
        "missing": [key for key in expected if key not in state and not key.endswith("num_batches_tracked")],
        "unexpected": [key for key in state if key not in expected],
        "other shapes:": [f"{key} {a} instead of {b}" for key, (a, b) in shapes.items() if a != b],
    }
    if problems := [f"{name} {_some(items)}" for name, items in misfits.items() if items]:
        problem = f"does not fit this network: {'; '.join(problems)}"
        advice = "choose the model and model.stem that the weights were made for"
        raise UserError(f"model.weights={source}: {problem}; {advice}")
    network.load_state_dict(state, strict=False)
    return head_fits


def _read(path: Path, source: str) -> dict[str, Tensor]:
    advice = "torch.save(model.state_dict(), path)"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"model.weights={source}: no such file; give a .pth file, a URL or null") from error
    except Exception as error:  # damaged bytes lead the unpickler to any exception
        reason = f"{type(error).__name__}: {str(error).split('. ')[0][:200]}"
        problem = f"not a readable file of tensors ({reason}); give a state dict saved with {advice}"
        raise UserError(f"model.weights={source}: {problem}") from error
    items = state.items() if isinstance(state, dict) else [(None, None)]
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in items):
        problem = f"holds a {type(state).__name__} with other things than tensors; give a state dict saved"
        if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
            problem = "this is a training checkpoint, not a plain state dict; save its network"
        raise UserError(f"model.weights={source}: {problem} with {advice}")
    if broken := [key for key, value in state.items() if not bool(torch.isfinite(value).all())]:
        raise UserError(f"model.weights={source}: {_some(broken)} not finite; the file is damaged")
    return dict(state)


def _some(items: list[str]) -> str:
    more = len(items) - NAMED_KEYS
    return ", ".join(items[:NAMED_KEYS]) + (f" and {more} more" if more > 0 else "")


def _download(url: str, cache_dir: Path) -> Path:
    """The file of a URL below ``cache_dir``, complete and, where its name carries a checksum, verified."""
    name = Path(unquote(url.split("?")[0])).name[-100:]
    path = cache_dir / f"{hashlib.sha256(utf8(url)).hexdigest()[:8]}-{name}"  # servers may share names
    if not path.is_file():
        log.info("downloading %s", url)
        fetch(url, path, key="model.weights", attempts=3, advice="give the path of a local file")
    wanted = HASH_IN_NAME.search(name)
    if wanted and not (digest := digest_of(path)).startswith(wanted[1]):
        path.unlink()
        problem = f"the download's SHA-256 starts with {digest[: len(wanted[1])]}, its name says {wanted[1]}"
        raise UserError(f"model.weights={url}: {problem}; try again, or give the path of a local file")
    return path
