"""``export``: a checkpoint as a file for other programs, compared with it, and ``metadata.json`` that describes it."""

import hashlib
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from histo_lightning.config.schema import ExportConfig
from histo_lightning.errors import UserError
from histo_lightning.inference import formats
from histo_lightning.inference.formats import FORMATS, OUTPUTS, Runner, reference, takes_any_size
from histo_lightning.inference.trained import Trained
from histo_lightning.runs import read_json, write_atomic, write_json
from histo_lightning.runs.manifest import digest_of, renew, write_manifest
from histo_lightning.runs.version import __version__

TOLERANCE = 1e-4  # largest difference of a probability; what is meant to differ is rounding, about 1e-7
COPIED = ("transforms", "threshold", "operating_point", "temperature", "seen_cases", "split_hash")
PATCH = 8  # pixels a side of the squares in a test image: noise of single pixels would average out


def export(config: ExportConfig) -> tuple[Path, dict[str, Any]]:
    """Write ``exports/<name>/model.*`` beside the same checkpoint's other formats, and ``metadata.json``; folder and metadata."""
    form = FORMATS[config.format]
    if missing := [package for package in form.packages if find_spec(package) is None]:
        mend = "pip install 'histo-lightning[export]', or use format=torch_export, which needs nothing more"
        raise UserError(f"format={config.format}: needs {', '.join(missing)}; {mend}")
    trained = Trained.load(config.checkpoint, torch.device("cpu"), config.imports)
    checkpoint = Path(config.checkpoint)
    folder = Path(config.output_dir) / "exports" / export_name(config.run_name, checkpoint)
    facts = describe(trained, config.format)
    facts["checkpoint"] = {"sha256": digest_of(checkpoint), "epoch": trained.about.get("epoch")}
    with TemporaryDirectory(prefix="histo-export-") as draft, warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):  # of the exporters' own code
            warnings.simplefilter("ignore", category)
        content, added = form.build(trained, facts)
        write_atomic(Path(draft) / form.file, content)
        differences = parity(form.reader(Path(draft) / form.file, trained), trained)
    digest = hashlib.sha256(content).hexdigest()
    metadata = facts | added | {"file": form.file, "bytes": len(content), "sha256": digest}
    broken = renew(folder)
    newest = {} if "metadata.json" in broken else read_json(folder / "metadata.json")
    others = newest.pop("other_files", {}) | {str(newest.get("file")): newest}
    metadata |= {"parity": differences, "other_files": {}}
    write_atomic(folder / form.file, content)
    for name in (other.file for other in FORMATS.values() if other is not form):
        same = others.get(name, {}).get("checkpoint") == facts["checkpoint"]
        if same and name not in broken and (folder / name).is_file():
            metadata["other_files"][name] = others[name]
        else:
            (folder / name).unlink(missing_ok=True)
    write_json(folder / "metadata.json", metadata)
    write_manifest(folder)
    if config.json:
        keys = ("format", "file", "bytes", "sha256", "parity")
        write_json(Path(config.json), {"folder": str(folder)} | {key: metadata[key] for key in keys})
    return folder, metadata


def export_name(run_name: str | None, checkpoint: Path) -> str:
    """``run_name``, else the name of the checkpoint's run folder, else of its file."""
    parent = checkpoint.resolve().parent
    name = run_name or (parent.parent.name if parent.name == "checkpoints" else "") or checkpoint.stem
    if not name.strip("."):
        raise UserError(f"run_name={name}: is no name of a folder of its own; use letters and digits")
    return name


def describe(trained: Trained, format_name: str) -> dict[str, Any]:
    """What a user of the file needs to know about its inputs, outputs and decisions."""
    about, graph = trained.about, format_name != "safetensors"
    height, width = trained.sides
    free = takes_any_size(trained)
    scale = "divided by 255" if graph else "divided by 255, minus mean, divided by std (by channel)"
    columns = trained.malignant_columns
    total = f"the sum of probabilities[:, {columns}]" if columns[1:] else f"probabilities[:, {columns[0]}]"
    card: dict[str, Any] = {"format": format_name, "classes": trained.classes}
    card["class_to_idx"] = {name: index for index, name in enumerate(trained.classes)}
    card["model"] = {key: trained.classifier.hparams.get(key) for key in ("model", "head", "hidden")}
    sides = ("height", "width") if graph and free else (height, width)
    given: dict[str, Any] = {"name": formats.INPUT, "dtype": "float32", "shape": ["batch", 3, *sides]}
    given["smallest_side"] = formats.SMALLEST_SIDE if free or not graph else None
    given |= {"trained_size": [3, height, width], "channels": "RGB", "range": [0.0, 1.0]}
    given["normalisation"] = about["normalisation"] | {"inside_graph": graph}
    given["preparation"] = (
        f"RGB, scaled to a short side of {trained.short_side} (Pillow's BILINEAR, equal in both directions), "
        f"centre of {height} x {width} (height x width), {scale}"
    )
    outputs: dict[str, Any] = {"names": list(OUTPUTS) if graph else list(OUTPUTS[:1]), "dtype": "float32"}
    outputs["shape"] = ["batch", len(trained.classes)]
    outputs["probabilities"] = "softmax of the logits, without the temperature"
    card |= {"input": given, "outputs": outputs, "threshold_rule": f"malignant where {total} >= threshold"}
    versions = {package: version(package) for package in ("torch", *FORMATS[format_name].packages)}
    copied = {key: about.get(key) for key in COPIED}
    return card | copied | {"versions": {"histo_lightning": __version__} | versions}


def parity_images(trained: Trained) -> Iterator[tuple[str, Tensor]]:
    """Batches to compare on: a name and uint8 B x H x W x 3, the same ones at every export."""
    generator = torch.Generator().manual_seed(0)
    height, width = trained.sides

    def patches(batch: int, height: int, width: int) -> Tensor:
        shape = (batch, -(-height // PATCH), -(-width // PATCH), 3)
        colours = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        large = colours.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)
        return large[:, :height, :width].contiguous()

    for batch in (1, 2, 5):
        yield f"{batch} random", patches(batch, height, width)
    for name, value in (("1 black", 0), ("1 white", 255)):
        yield name, torch.full((1, height, width, 3), value, dtype=torch.uint8)
    if takes_any_size(trained):
        yield "2 random of another size", patches(2, height + 13, width + 6)


def parity(run: Runner, trained: Trained) -> dict[str, Any]:
    """Largest absolute differences from the classifier; raise UserError above ``TOLERANCE`` or where it is undefined."""
    worst = dict.fromkeys(OUTPUTS, torch.zeros(()))
    batches = []
    for name, images in parity_images(trained):
        batches.append(f"{name}: {list(images.shape)}")
        with torch.no_grad():
            outputs = run(images)
        for output, ours, theirs in zip(OUTPUTS, reference(trained, images), outputs, strict=True):
            if ours.shape != theirs.shape:
                shapes = f"{list(theirs.shape)}, not {list(ours.shape)}"
                raise UserError(f"parity: {output} have the shape {shapes}")
            worst[output] = torch.maximum(worst[output], (ours - theirs).abs().max())  # keeps a NaN
    largest = {output: float(value) for output, value in worst.items()}
    if not largest["probabilities"] <= TOLERANCE:
        problem = f"probabilities differ from the checkpoint's by {largest['probabilities']:.3g}, allowed is {TOLERANCE:g}"
        mend = "nothing was written: use format=safetensors, or other versions of the exporter"
        raise UserError(f"parity: {problem}; {mend}")
    return {"largest_difference": largest, "tolerance": TOLERANCE, "batches": batches}
