"""``predict``: any images in, a CSV with probabilities and decisions out, and heat maps on request."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path

import numpy as np
import torch

from histo_lightning.classifier.hardware import device_of
from histo_lightning.config.schema import PredictConfig
from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.data.breakhis.records import IMAGE_SUFFIXES
from histo_lightning.data.pixels.decode import BREAKHIS_SIZES, canvas_of, decode, on_canvas
from histo_lightning.data.sources.folder import image_paths
from histo_lightning.errors import UserError
from histo_lightning.evaluation.table_csv import csv_text, quote_cell
from histo_lightning.inference.gradcam import attribution, scaled_heat
from histo_lightning.inference.trained import Floats, Pixels, Trained
from histo_lightning.report.console import StepProgress
from histo_lightning.report.gallery import Shown, write_gallery, write_overlay
from histo_lightning.runs import write_atomic, write_json


@dataclass
class Prediction:
    """One image: its probabilities by class, or the reason why it could not be read."""

    path: Path
    stored: Pixels | None = None
    size: tuple[int, int] = (0, 0)
    probabilities: Floats | None = None
    error: str = ""


def predict(config: PredictConfig) -> tuple[Path, list[Prediction]]:
    """Predict every image; those that cannot be read get a row with the reason.

    Returns:
        The folder ``predictions/<name>`` with ``predictions.csv`` (and ``gradcam/``, ``index.html``), and the predictions.

    Raises:
        UserError: the checkpoint or input cannot be used at all, or something cannot be written.
    """
    paths = find_images(config.input)
    trained = Trained.load(config.checkpoint, device_of(config.trainer), config.imports)
    folder = Path(config.output_dir) / "predictions" / (config.run_name or folder_name(config.input))
    predictions: list[Prediction] = []
    heat_maps: list[Shown] = []
    with StepProgress("predicting", config.trainer.progress != "none") as progress:
        for start in range(0, len(paths), config.batch_size):
            batch = [_read(path, trained.short_side) for path in paths[start : start + config.batch_size]]
            _fill(batch, trained, tta=config.tta == "d4")
            for number, one in enumerate(batch, start + 1):
                if config.gradcam and one.probabilities is not None:
                    heat_maps.append(_explain(one, trained, folder, number))
                one.stored = None  # a folder of images may be larger than the memory
            predictions += batch
            progress(len(predictions), len(paths))
    rows = [table_row(one, trained) for one in predictions]
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    write_atomic(folder / "predictions.csv", "".join(",".join(map(csv_text, line)) + "\n" for line in lines))
    if config.gradcam:
        write_gallery(folder / "index.html", heat_maps, trained.classes, "gradcam")
    if config.json:
        decisions = [row["decision"] for row in rows if row["decision"]]
        numbers = {"images": len(rows), "unreadable": len(rows) - len(decisions)}
        rule = {"threshold": float(trained.about["threshold"])}
        counts = {name: decisions.count(name) for name in CLASSES}
        write_json(Path(config.json), {"folder": str(folder), **numbers, **rule, "decisions": counts})
    return folder, predictions


def find_images(wanted: str) -> list[Path]:
    """The images that ``input`` names: a file, all below a folder, or a glob (``**`` reaches into folders).

    Raises:
        UserError: nothing was given, or no image is there.
    """
    if not wanted:
        raise UserError("input is not set: give an image, a folder or a glob (input='/data/*.png')")
    path = Path(wanted).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        images = [path / name for name in image_paths(path)]
    else:
        names = sorted(glob(str(path), recursive=True))  # noqa: PTH207 - an absolute pattern is fine here
        images = [Path(name) for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
    if not images:
        raise UserError(f"input={wanted}: no image there; give an image, a folder or a glob")
    return images


def folder_name(wanted: str) -> str:
    """A folder name for an input: its own last name, for a glob that of the last folder before the pattern."""
    parts = Path(wanted).expanduser().absolute().parts
    patterns = [index for index, part in enumerate(parts) if set(part) & set("*?[")]
    plain = parts[: patterns[0]] if patterns else parts
    return _safe_name(plain[-1]).strip("_") or "images"


def _safe_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)


def _read(path: Path, short_side: int) -> Prediction:
    """Decode an image and bring it to the scale that the network was trained on; nothing is cropped."""
    try:
        pixels = decode(path.read_bytes(), str(path))
    except (UserError, OSError) as error:
        return Prediction(path, error=str(error))
    size = (int(pixels.shape[1]), int(pixels.shape[0]))
    shape = BREAKHIS_SIZES[0] if size in BREAKHIS_SIZES else size
    return Prediction(path, on_canvas(pixels, *canvas_of([shape], short_side)), size)


def _fill(batch: Sequence[Prediction], trained: Trained, *, tta: bool) -> None:
    """Predict images of one shape together."""
    for shape in sorted({one.stored.shape for one in batch if one.stored is not None}):
        alike = [(one, one.stored) for one in batch if one.stored is not None and one.stored.shape == shape]
        probabilities = trained.probabilities(np.stack([stored for _, stored in alike]), tta=tta)
        for (one, _), values in zip(alike, probabilities, strict=True):
            one.probabilities = values


def table_row(one: Prediction, trained: Trained) -> dict[str, str]:
    """Path, size, probability by class and of a malignant tumour, the likeliest class, the stored threshold's decision."""
    classes, threshold = trained.classes, float(trained.about["threshold"])
    row = {"path": quote_cell(str(one.path)), "width": str(one.size[0]), "height": str(one.size[1])}
    row |= dict.fromkeys(
        [*(f"p_{name}" for name in classes), "p_malignant", "predicted", "threshold", "decision"], ""
    )
    if one.probabilities is not None:
        malignant = float(one.probabilities[trained.malignant_columns].sum())
        row |= {f"p_{name}": repr(float(p)) for name, p in zip(classes, one.probabilities, strict=True)}
        row |= {"p_malignant": repr(malignant), "predicted": classes[int(one.probabilities.argmax())]}
        row |= {"threshold": repr(threshold), "decision": CLASSES[int(malignant >= threshold)]}
    return row | {"error": quote_cell(one.error)}


def _explain(one: Prediction, trained: Trained, folder: Path, number: int) -> Shown:
    """The heat map of an image's likeliest class, written beside what the network sees of the image."""
    assert one.stored is not None
    assert one.probabilities is not None
    target = int(one.probabilities.argmax())
    view = trained.view(one.stored[None])
    maps = attribution(trained.classifier.network, view, torch.tensor([target], device=view.device))
    height, width = view.shape[2:]
    top, left = (one.stored.shape[0] - height) // 2, (one.stored.shape[1] - width) // 2
    field = one.stored[top : top + height, left : left + width]
    name = f"{number:05d}_{_safe_name(one.path.stem)[:80]}.png"
    overlay = write_overlay(folder / "gradcam" / name, field, scaled_heat(maps, height, width)[0])
    caption = f"{trained.classes[target]} {one.probabilities[target]:.3f}"
    return Shown(str(one.path), caption, overlay, f"gradcam/{name}")
