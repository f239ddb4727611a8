"""The three file formats of ``export``: each is written as bytes, and read back to be compared with the classifier.

==============  =================  ===========================================================================
format          file               holds
==============  =================  ===========================================================================
onnx            model.onnx         the graph with its normalisation; ``metadata_props`` say what it is
torch_export    model.pt2          the same graph for ``torch.export.load``; the metadata as an extra file
safetensors     model.safetensors  the network's state dict under torchvision's names; the metadata as header
==============  =================  ===========================================================================
"""

import importlib
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from histo_lightning.classifier import Classifier
from histo_lightning.errors import UserError
from histo_lightning.export_subject import INPUT, OUTPUTS, SMALLEST_SIDE, Subject, as_texts

TRACED = (2, 3, 64, 96)  # any batch above one and any sides: the graph holds for all
EXTRA = "metadata.json"  # the extra file's name inside model.pt2

Facts = Mapping[str, Any]
Runner = Callable[[Tensor], tuple[Tensor, Tensor]]  # uint8 B x H x W x 3 -> logits, probabilities


class Graph(nn.Module):
    """What is exported: float32 N x 3 x H x W in [0, 1] -> logits and probabilities, float32 N x classes."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean.view(1, 3, 1, 1))
        self.register_buffer("std", std.view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network((image - self.mean) / self.std)
        return logits, torch.softmax(logits, dim=1)


@dataclass(frozen=True)
class Format:
    """``build`` makes the file's bytes, and facts that it adds; ``reader`` runs a file that was written."""

    file: str
    packages: tuple[str, ...]
    build: Callable[[Subject, Facts], tuple[bytes, dict[str, Any]]]
    reader: Callable[[Path, Subject], Runner]

    def require(self, name: str) -> None:
        """Import what the format needs; raise UserError that names what is missing."""
        missing = [package for package in self.packages if not _importable(package)]
        if missing:
            raise UserError(
                f"format={name}: needs {', '.join(missing)}; pip install 'histo-lightning[export]', "
                "or use format=torch_export, which needs nothing more"
            )


def _importable(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def _optional(package: str) -> ModuleType:
    """A package of the ``export`` extra: imported late, and untyped whether or not it is installed."""
    return importlib.import_module(package)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence what the exporters say about the versions of each other; nobody who exports can act on it."""
    with warnings.catch_warnings():
        # Deprecations that their own code raises: none on torch 2.15, some on older releases that we allow.
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings(
                "ignore", category=category, module=r"torch\.|onnxscript|onnx_ir|onnx\.|copyreg"
            )
        yield


def trace(subject: Subject) -> ExportedProgram:
    """The subject's graph with a free batch size, and with free height and width where the network allows it."""
    graph = Graph(subject.classifier.network, subject.mean, subject.std).eval().requires_grad_(False)
    shape = TRACED if subject.any_size else (TRACED[0], 3, subject.height, subject.width)
    with _quiet_exporter():
        program = torch.export.export(
            graph, (torch.zeros(shape),), dynamic_shapes=_free_sides(subject), strict=False
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # source lines, with the paths of the machine that exported
    return program


def _free_sides(subject: Subject) -> dict[str, dict[int, Any]]:
    free: dict[int, Any] = {0: Dim("batch", min=1)}
    if subject.any_size:
        free |= {2: Dim("height", min=SMALLEST_SIDE), 3: Dim("width", min=SMALLEST_SIDE)}
    return {INPUT: free}


def _build_onnx(subject: Subject, facts: Facts) -> tuple[bytes, dict[str, Any]]:
    traced = trace(subject)
    with _quiet_exporter():
        program = torch.onnx.export(
            traced,
            dynamo=True,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes=_free_sides(subject),
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    for node in program.model.graph:
        node.metadata_props.clear()  # where each node came from in Python: of no use outside
    opset = {"opset": program.model.opset_imports[""]}
    program.model.metadata_props.update(as_texts({**facts, **opset}))
    return program.model_proto.SerializeToString(), opset


def _read_onnx(path: Path, subject: Subject) -> Runner:
    runtime = _optional("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        logits, probabilities = session.run(list(OUTPUTS), {INPUT: as_input(images).numpy()})
        return torch.from_numpy(logits), torch.from_numpy(probabilities)

    return run


def _build_torch_export(subject: Subject, facts: Facts) -> tuple[bytes, dict[str, Any]]:
    file = io.BytesIO()
    with _quiet_exporter():
        torch.export.save(trace(subject), file, extra_files={EXTRA: json.dumps(facts)})
    return file.getvalue(), {}


def _read_torch_export(path: Path, subject: Subject) -> Runner:
    with _quiet_exporter():
        module = torch.export.load(path).module()

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        logits, probabilities = module(as_input(images))
        return logits, probabilities

    return run


def _build_safetensors(subject: Subject, facts: Facts) -> tuple[bytes, dict[str, Any]]:
    state = subject.classifier.network.state_dict()
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    return _optional("safetensors.torch").save(tensors, metadata=as_texts(facts)), {}


def _read_safetensors(path: Path, subject: Subject) -> Runner:
    """Into a fresh network; raise UserError where a tensor differs in one bit."""
    fresh = Classifier(**subject.classifier.hparams).eval()
    fresh.network.load_state_dict(_optional("safetensors.torch").load_file(path), strict=True)
    for name, tensor in subject.classifier.network.state_dict().items():
        if not torch.equal(fresh.network.state_dict()[name], tensor):
            raise UserError(
                f"{path.name}: {name} differs from the checkpoint's; the disk or memory is faulty"
            )
    return Subject(fresh, subject.mean, subject.std, subject.height, subject.width).reference


def as_input(images: Tensor) -> Tensor:
    """uint8 B x H x W x 3 -> the graph's input, float32 B x 3 x H x W in [0, 1]."""
    return (images.permute(0, 3, 1, 2).float() / 255).contiguous()


FORMATS = {
    "onnx": Format("model.onnx", ("onnx", "onnxscript", "onnxruntime"), _build_onnx, _read_onnx),
    "torch_export": Format("model.pt2", (), _build_torch_export, _read_torch_export),
    "safetensors": Format("model.safetensors", ("safetensors",), _build_safetensors, _read_safetensors),
}
