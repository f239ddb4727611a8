"""Small copies of BreakHis on disk: real names, drawn images."""

from pathlib import Path

import numpy as np
from PIL import Image

from histo_lightning.data.breakhis.names import census_names, parse_name

SLIDES = ("A-14-22549AB", "F-14-25197", "DC-14-2523", "MC-14-13413")


def some_names(magnification: int = 40, each: int = 2) -> list[str]:
    """The first images of four slides, two of them benign."""
    every = sorted(census_names())
    return [n for slide in SLIDES for n in [i for i in every if f"_{slide}-{magnification}-" in i][:each]]


def draw(path: Path, seed: int, size: tuple[int, int] = (700, 460), gain: float = 1.0) -> None:
    """A smooth image, so that it compresses and decodes quickly; ``gain`` scales its brightness."""
    small = np.random.default_rng(seed).integers(60, 230, (23, 35, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((image * gain).astype(np.uint8)).save(path)


def small_copy(root: Path) -> Path:
    """Eight images at 40X and four at 100X, in the official tree."""
    for seed, image in enumerate(some_names() + some_names(100, 1)):
        name = parse_name(image)
        assert name is not None
        draw(root / name.official_path, seed)
    return root
