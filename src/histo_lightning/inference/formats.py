"""The file formats of ``export``: each is built as bytes, with the metadata inside, and read back to be compared."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from histo_lightning.classifier import Classifier
from histo_lightning.data.augment import normalise
from histo_lightning.inference.trained import Trained
from histo_lightning.models.resnet import ResNet

INPUT, OUTPUTS = "image", ("logits", "probabilities")
SMALLEST_SIDE = 33  # below it the last map is 1 pixel a side, a case that torch.export keeps apart
Facts = Mapping[str, Any]
Built = tuple[bytes, dict[str, Any]]  # the file, and facts that building it adds
Runner = Callable[[Tensor], tuple[Tensor, Tensor]]  # uint8 B x H x W x 3 -> logits, probabilities


class Graph(nn.Module):
    """What is exported: float32 N x 3 x H x W in [0, 1] -> logits and probabilities, float32 N x classes."""

    mean: Tensor
    std: Tensor

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        self.network = trained.classifier.network
        self.register_buffer("mean", trained.mean.view(1, 3, 1, 1))
        self.register_buffer("std", trained.std.view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network((image - self.mean) / self.std)
        return logits, torch.softmax(logits, dim=1)


def reference(trained: Trained, images: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 B x H x W x 3 -> logits and probabilities, as this package computes them."""
    with torch.no_grad():
        inputs = normalise(images, trained.mean, trained.std)
        return trained.classifier.logits(inputs), trained.classifier(inputs).exp()


def takes_any_size(trained: Trained) -> bool:
    """Whether height and width of an exported graph are free; only our ResNets are known to allow it."""
    model = trained.classifier.hparams.get("model")
    deep = isinstance(model, dict) and model.get("stem") == "deep"  # odd and even sides are different graphs
    return isinstance(trained.classifier.network, ResNet) and not deep and min(trained.sides) >= SMALLEST_SIDE


def _texts(facts: Facts) -> dict[str, str]:
    """Facts for a header that holds strings only: whatever is no string is JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


def _free_sides(trained: Trained) -> dict[str, dict[int, Any]]:
    free = {0: Dim("batch", min=1)}
    if takes_any_size(trained):
        free |= {2: Dim("height", min=SMALLEST_SIDE), 3: Dim("width", min=SMALLEST_SIDE)}
    return {INPUT: free}


def _trace(trained: Trained) -> ExportedProgram:
    graph = Graph(trained).eval().requires_grad_(False)
    example = torch.zeros(2, 3, *((64, 96) if takes_any_size(trained) else trained.sides))
    program = torch.export.export(graph, (example,), dynamic_shapes=_free_sides(trained), strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # source lines, with the paths of the machine that exported
    return program


def _as_input(images: Tensor) -> Tensor:
    """uint8 B x H x W x 3 -> the graph's input, float32 B x 3 x H x W in [0, 1]."""
    return (images.permute(0, 3, 1, 2).float() / 255).contiguous()


def _build_onnx(trained: Trained, facts: Facts) -> Built:
    options: dict[str, Any] = {"dynamo": True, "external_data": False, "verbose": False}
    options |= {"input_names": [INPUT], "output_names": OUTPUTS, "dynamic_shapes": _free_sides(trained)}
    program = torch.onnx.export(_trace(trained), **options)
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # where each node came from in Python: of no use outside
    opset = {"opset": program.model.opset_imports[""]}
    program.model.metadata_props.update(_texts({**facts, **opset}))
    return program.model_proto.SerializeToString(), opset


def _read_onnx(path: Path, trained: Trained) -> Runner:
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        logits, probabilities = session.run(list(OUTPUTS), {INPUT: _as_input(images).numpy()})
        return torch.from_numpy(logits), torch.from_numpy(probabilities)

    return run


def _build_torch_export(trained: Trained, facts: Facts) -> Built:
    file = io.BytesIO()
    torch.export.save(_trace(trained), file, extra_files={"metadata.json": json.dumps(facts)})
    return file.getvalue(), {}


def _read_torch_export(path: Path, trained: Trained) -> Runner:
    module = torch.export.load(path).module()
    return lambda images: module(_as_input(images))


def _build_safetensors(trained: Trained, facts: Facts) -> Built:
    state = trained.classifier.network.state_dict()
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    return import_module("safetensors.torch").save(tensors, metadata=_texts(facts)), {}


def _read_safetensors(path: Path, trained: Trained) -> Runner:
    fresh = Classifier(**trained.classifier.hparams).eval()
    fresh.network.load_state_dict(import_module("safetensors.torch").load_file(path), strict=True)
    return lambda images: reference(replace(trained, classifier=fresh), images)


class Format(NamedTuple):
    """``build`` makes the file's bytes, and facts that it adds; ``reader`` runs a file that was written."""

    file: str
    packages: tuple[str, ...]  # of the ``export`` extra
    build: Callable[[Trained, Facts], Built]
    reader: Callable[[Path, Trained], Runner]


FORMATS = {
    "onnx": Format("model.onnx", ("onnx", "onnxscript", "onnxruntime"), _build_onnx, _read_onnx),
    "torch_export": Format("model.pt2", (), _build_torch_export, _read_torch_export),
    "safetensors": Format("model.safetensors", ("safetensors",), _build_safetensors, _read_safetensors),
}
