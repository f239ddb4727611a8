"""``predict``: any images in, a CSV with probabilities and decisions out, and heat maps on request."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from histo_lightning.classifier.hardware import device_of
from histo_lightning.config.schema import PredictConfig
from histo_lightning.data.breakhis.names import CLASSES
from histo_lightning.data.breakhis.records import IMAGE_SUFFIXES
from histo_lightning.data.pixels.decode import BREAKHIS_SIZES, canvas_of, decode, image_bytes, on_canvas
from histo_lightning.data.sources.folder import image_paths
from histo_lightning.errors import UserError
from histo_lightning.inference.trained import Floats, Pixels, Trained
from histo_lightning.models.gradcam import attribution, scaled_heat
from histo_lightning.report.console import StepProgress
from histo_lightning.report.pages import Picture, thumbnail, write_page
from histo_lightning.runs import write_atomic, write_csv, write_json
from histo_lightning.runs.manifest import renew, write_manifest

EMBEDDED = 300  # images whose heat maps are on the page; all are in the folder
WIDTH = 560  # pixels of an embedded pair
STRENGTH = 0.55  # of the heat where the evidence is strongest


@dataclass
class Prediction:
    """One image: its probabilities by class, or the reason why it could not be read."""

    path: Path
    stored: Pixels | None = None
    size: tuple[int, int] = (0, 0)
    probabilities: Floats | None = None
    error: str = ""
    heat_map: str = ""  # its file, relative to the page
    caption: str = ""
    picture: Picture | None = None  # of the heat map, on the page


def predict(config: PredictConfig) -> tuple[Path, list[Prediction]]:
    """Predict every image into ``predictions/<name>``; those that cannot be read get a row with the reason."""
    paths = find_images(config.input)
    trained = Trained.load(config.checkpoint, device_of(config.trainer), config.imports)
    folder = Path(config.output_dir) / "predictions" / (config.run_name or folder_name(config.input))
    renew(folder)
    predictions: list[Prediction] = []
    with StepProgress("predicting", config.trainer.progress != "none") as progress:
        for start in range(0, len(paths), config.batch_size):
            batch = [_read(path, trained.short_side) for path in paths[start : start + config.batch_size]]
            _fill(batch, trained, tta=config.tta == "d4")
            for number, prediction in enumerate(batch, start + 1):
                if config.gradcam and prediction.probabilities is not None:
                    _explain(prediction, trained, folder, number)
                prediction.stored = None  # a folder of images may be larger than the memory
            predictions += batch
            progress(len(predictions), len(paths))
    rows = [table_row(prediction, trained) for prediction in predictions]
    write_csv(folder / "predictions.csv", [rows[0], *(row.values() for row in rows)])
    if config.gradcam:
        write_gallery(folder / "index.html", predictions, trained.classes)
    write_manifest(folder)
    if config.json:
        decisions = [row["decision"] for row in rows if row["decision"]]
        counts = {"images": len(rows), "unreadable": len(rows) - len(decisions)}
        rule = {"threshold": float(trained.about["threshold"])}
        by_class = {"decisions": {name: decisions.count(name) for name in CLASSES}}
        write_json(Path(config.json), {"folder": str(folder), **counts, **rule, **by_class})
    return folder, predictions


def find_images(pattern: str) -> list[Path]:
    """The images that ``input`` names: a file, all below a folder, or a glob (``**``); UserError where there is none."""
    if not pattern:
        raise UserError("input is not set: give an image, a folder or a glob (input='/data/*.png')")
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        images = [path / name for name in image_paths(path)]
    else:
        names = sorted(glob(str(path), recursive=True))  # noqa: PTH207 - an absolute pattern is fine here
        images = [Path(name) for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
    if not images:
        raise UserError(f"input={pattern}: no image there; give an image, a folder or a glob")
    return images


def folder_name(pattern: str) -> str:
    """A folder name for an input: its own last name, for a glob that of the last folder before the pattern."""
    parts = Path(pattern).expanduser().absolute().parts
    first_pattern = next((index for index, part in enumerate(parts) if set(part) & set("*?[")), len(parts))
    return _safe_name(parts[:first_pattern][-1]).strip("_") or "images"


def _safe_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)


def _read(path: Path, short_side: int) -> Prediction:
    """Decode an image and bring it to the scale that the network was trained on; nothing is cropped."""
    try:
        pixels = decode(image_bytes(path), str(path))
    except UserError as error:
        return Prediction(path, error=str(error))
    size = (int(pixels.shape[1]), int(pixels.shape[0]))
    shape = BREAKHIS_SIZES[0] if size in BREAKHIS_SIZES else size
    return Prediction(path, on_canvas(pixels, *canvas_of([shape], short_side)), size)


def _fill(batch: Sequence[Prediction], trained: Trained, *, tta: bool) -> None:
    """Predict images of one shape together."""
    readable = [(prediction, prediction.stored) for prediction in batch if prediction.stored is not None]
    for shape in sorted({stored.shape for _, stored in readable}):
        alike = [(prediction, stored) for prediction, stored in readable if stored.shape == shape]
        probabilities = trained.probabilities(np.stack([stored for _, stored in alike]), tta=tta)
        for (prediction, _), values in zip(alike, probabilities, strict=True):
            prediction.probabilities = values


def table_row(prediction: Prediction, trained: Trained) -> dict[str, str]:
    """Path, size, probability by class and of a malignant tumour, the likeliest class, the stored threshold's decision."""
    threshold, p = float(trained.about["threshold"]), prediction.probabilities
    keys = (*(f"p_{name}" for name in trained.classes), "p_malignant", "predicted", "threshold", "decision")
    cells = [""] * len(keys)
    if p is not None:
        malignant = float(p[trained.malignant_columns].sum())
        numbers = [repr(float(value)) for value in (*p, malignant)]
        decision = CLASSES[int(malignant >= threshold)]
        cells = [*numbers, trained.classes[int(p.argmax())], repr(threshold), decision]
    width, height = map(str, prediction.size)
    about = {"path": str(prediction.path), "width": width, "height": height}
    return about | dict(zip(keys, cells, strict=True)) | {"error": prediction.error}


def _explain(prediction: Prediction, trained: Trained, folder: Path, number: int) -> None:
    """Write the heat map of an image's likeliest class beside what the network sees of the image."""
    stored, p = prediction.stored, prediction.probabilities
    assert stored is not None
    assert p is not None
    target = int(p.argmax())
    view = trained.view(stored[None])
    maps = attribution(trained.classifier.network, view, torch.tensor([target], device=view.device))
    height, width = view.shape[2:]
    top, left = (stored.shape[0] - height) // 2, (stored.shape[1] - width) // 2
    pair = overlay(stored[top : top + height, left : left + width], scaled_heat(maps, height, width)[0])
    Image.fromarray(pair).save(png := io.BytesIO(), "png")
    prediction.heat_map = f"gradcam/{number:05d}_{_safe_name(prediction.path.stem)[:80]}.png"
    write_atomic(folder / prediction.heat_map, png.getvalue())
    prediction.caption = f"{trained.classes[target]} {p[target]:.3f}"
    if number <= EMBEDDED:
        prediction.picture = thumbnail(pair, prediction.path.name, WIDTH)


def overlay(field: Pixels, heat: NDArray[np.float32]) -> Pixels:
    """A field (uint8 H x W x 3) beside itself under a heat map (float32 H x W in [0, 1]): uint8 H x 2W x 3."""
    colours, share = colormaps["inferno"](heat)[:, :, :3] * 255, STRENGTH * heat[:, :, None]
    mixed = field * (1 - share) + colours * share
    return np.concatenate([field, mixed.round().clip(0, 255).astype(np.uint8)], axis=1)


def write_gallery(path: Path, predictions: Sequence[Prediction], classes: Sequence[str]) -> None:
    """One self-contained page with the first heat maps; ``classes`` are the network's."""
    entries = [(prediction, prediction.picture) for prediction in predictions if prediction.picture]
    count = sum(bool(prediction.heat_map) for prediction in predictions)
    write_page(path, "gallery.html", title="Grad-CAM", entries=entries, count=count, names=classes)
