"""``predict``: any images in, a CSV with probabilities and decisions out, and heat maps on request."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from histo_lightning.config.schema import PredictConfig
from histo_lightning.data.breakhis.names import CLASSES, SUBTYPE_CLASS
from histo_lightning.data.breakhis.records import IMAGE_SUFFIXES
from histo_lightning.data.pixels.decode import BREAKHIS_SIZES, canvas_of, decode, on_canvas
from histo_lightning.data.sources.folder import Folder
from histo_lightning.display import StepProgress
from histo_lightning.errors import UserError
from histo_lightning.evaluation.table_csv import csv_text, quote_cell
from histo_lightning.explain import attribution, heat
from histo_lightning.inference import Trained, oriented
from histo_lightning.report.gallery import Shown, write_gallery, write_overlay
from histo_lightning.runs import write_atomic, write_json

Pixels = NDArray[np.uint8]


@dataclass
class Prediction:
    """One image: its probabilities by class, or the reason why it could not be read."""

    path: Path
    size: tuple[int, int] = (0, 0)
    probabilities: NDArray[np.float64] | None = None
    error: str = ""


def find_images(wanted: str) -> list[Path]:
    """The images that ``input`` names: a file, all below a folder, or a glob (``**`` reaches into folders).

    Raises:
        UserError: nothing was given or found.
    """
    if not wanted:
        raise UserError("input is not set: give an image, a folder or a glob (input='/data/*.png')")
    path = Path(wanted).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [path / name for name in Folder(path).paths()]
    else:
        names = sorted(glob(str(path), recursive=True))  # noqa: PTH207 - an absolute pattern is fine here
        found = [Path(name) for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
    if not found:
        raise UserError(f"input={wanted}: no image there; give an image, a folder or a glob")
    return found


def folder_name(wanted: str) -> str:
    """A folder name for an input: its own last name, for a glob that of the last folder before the pattern."""
    parts = Path(wanted).expanduser().absolute().parts
    plain = [part for i, part in enumerate(parts) if not any(set(p) & set("*?[") for p in parts[: i + 1])]
    return re.sub(r"[^A-Za-z0-9._-]+", "_", plain[-1]).strip("_") or "images"


def predict(config: PredictConfig) -> tuple[Path, list[Prediction]]:
    """Predict every image; those that cannot be read get a row with the reason.

    Returns:
        The folder ``predictions/<name>`` with ``predictions.csv`` (and ``gradcam/``, ``index.html``), and the predictions.

    Raises:
        UserError: the checkpoint or input cannot be used at all, or something cannot be written.
    """
    paths = find_images(config.input)
    trained = Trained.load(config.checkpoint, config.trainer)
    folder = Path(config.output_dir) / "predictions" / (config.run_name or folder_name(config.input))
    predictions: list[Prediction] = []
    shown: list[Shown] = []
    with StepProgress("predicting", config.trainer.progress != "none") as progress:
        for start in range(0, len(paths), config.batch_size):
            batch, stored = _read(paths[start : start + config.batch_size], trained)
            _fill(batch, stored, trained, tta=config.tta == "d4")
            if config.gradcam:
                shown += _explain(config, trained, batch, stored, folder, start)
            predictions += batch
            progress(len(predictions), len(paths))
    write_atomic(folder / "predictions.csv", table_text(predictions, trained))
    if config.gradcam:
        write_gallery(folder / "index.html", shown, trained.names, config.gradcam_method)
    if config.json:
        write_json(Path(config.json), as_json(predictions, trained, folder))
    return folder, predictions


def _read(paths: Sequence[Path], trained: Trained) -> tuple[list[Prediction], list[Pixels | None]]:
    """Decode images and bring them to the scale that the network was trained on; nothing is cropped."""
    batch: list[Prediction] = []
    stored: list[Pixels | None] = []
    for path in paths:
        try:
            pixels = decode(path.read_bytes(), str(path))
        except (UserError, OSError) as error:
            batch.append(Prediction(path, error=str(error)))
            stored.append(None)
            continue
        size = (int(pixels.shape[1]), int(pixels.shape[0]))
        shape = BREAKHIS_SIZES[0] if size in BREAKHIS_SIZES else size
        batch.append(Prediction(path, size))
        stored.append(on_canvas(pixels, *canvas_of([shape], trained.short_side)))
    return batch, stored


def _fill(batch: list[Prediction], stored: list[Pixels | None], trained: Trained, *, tta: bool) -> None:
    """Predict images of one shape together."""
    shapes = {image.shape for image in stored if image is not None}
    for shape in sorted(shapes):
        alike = [(i, image) for i, image in enumerate(stored) if image is not None and image.shape == shape]
        found = trained.probabilities(np.stack([image for _, image in alike]), tta=tta)
        for (row, _), probabilities in zip(alike, found, strict=True):
            batch[row].probabilities = probabilities


def malignant_probability(probabilities: NDArray[np.float64], names: Sequence[str]) -> float:
    """The probability of a malignant tumour from those of the classes or subtypes."""
    kinds = [SUBTYPE_CLASS.get(name, name) for name in names]
    return float(sum(p for p, kind in zip(probabilities, kinds, strict=True) if kind == CLASSES[1]))


def table_text(predictions: Sequence[Prediction], trained: Trained) -> str:
    """The CSV: path, size, probability by class, of malignant, the likeliest class, the stored threshold's decision."""
    names = trained.names
    threshold = float(trained.about["threshold"])
    heads = ["path", "width", "height", *(f"p_{name}" for name in names)]
    heads += [] if "malignant" in names else ["p_malignant"]
    heads += ["predicted", "threshold", "decision", "error"]
    lines = [",".join(heads)]
    for one in predictions:
        cells = [quote_cell(str(one.path)), *(str(side) for side in one.size)]
        if one.probabilities is None:
            cells += [""] * (len(heads) - 4) + [quote_cell(one.error)]
        else:
            malignant = malignant_probability(one.probabilities, names)
            cells += [repr(float(p)) for p in one.probabilities]
            cells += [] if "malignant" in names else [repr(malignant)]
            decision = CLASSES[int(malignant >= threshold)]
            cells += [names[int(one.probabilities.argmax())], repr(threshold), decision, ""]
        lines.append(",".join(csv_text(cell) for cell in cells))
    return "\n".join(lines) + "\n"


def as_json(predictions: Sequence[Prediction], trained: Trained, folder: Path) -> dict[str, Any]:
    """How many images got which decision."""
    threshold = float(trained.about["threshold"])
    readable = [p.probabilities for p in predictions if p.probabilities is not None]
    malignant = [malignant_probability(p, trained.names) >= threshold for p in readable]
    return {
        "folder": str(folder),
        "images": len(predictions),
        "unreadable": len(predictions) - len(readable),
        "threshold": threshold,
        "decisions": {"benign": malignant.count(False), "malignant": malignant.count(True)},
    }


def _explain(
    config: PredictConfig,
    trained: Trained,
    batch: list[Prediction],
    stored: list[Pixels | None],
    folder: Path,
    start: int,
) -> list[Shown]:
    """Heat maps of the likeliest class, one image at a time: shapes differ, and maps are for looking at."""
    found = []
    for i, (one, image) in enumerate(zip(batch, stored, strict=True)):
        if image is None or one.probabilities is None:
            continue
        target = int(one.probabilities.argmax())
        seen = trained.seen(oriented(image[None], 0, False))
        maps = attribution(
            trained.classifier, seen, torch.tensor([target], device=seen.device), config.gradcam_method
        )
        height, width = seen.shape[2:]
        field = _as_seen(image, height, width)
        name = f"{start + i + 1:05d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', one.path.stem)[:80]}.png"
        overlay = write_overlay(folder / "gradcam" / name, field, heat(maps, height, width)[0])
        caption = f"{trained.names[target]} {one.probabilities[target]:.3f}"
        found.append(Shown(str(one.path), caption, overlay, f"gradcam/{name}"))
    return found


def _as_seen(image: Pixels, height: int, width: int) -> Pixels:
    """The part of a stored image that the network looks at: the whole field, or its centre square."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]
