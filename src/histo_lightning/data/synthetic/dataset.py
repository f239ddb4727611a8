"""The embedded data set on disk: drawn once under BreakHis names, in the official tree.

It has the real set's 82 slides, 70 cases and all 328 groups of slide and magnification; slide 13412's LC images are
copies of its DC images, as there.
"""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from itertools import product
from pathlib import Path

from PIL import Image

from histo_lightning.config.checks import check
from histo_lightning.config.schema import Config, DatasetConfig
from histo_lightning.data.breakhis.names import MAGNIFICATIONS, Name, census
from histo_lightning.data.breakhis.records import TWIN_DROPPED, TWIN_KEPT
from histo_lightning.data.sources.folder import Progress, new_folder

VERSION = 3  # of the pictures: raise it when the renderer's output changes, and caches are drawn anew
IMAGES_PER_SLIDE, IMAGE_SIZE = 4, 350  # by default; the size is the width in pixels
MARKER = "complete.json"


def _path(name: Name, magnification: int, sequence: int) -> str:
    """Below the root, e.g. ``BreaKHis_v1/histology_slides/.../40X/SOB_B_A-14-22549AB-40-001.png``."""
    return f"BreaKHis_v1/{replace(name, magnification=magnification, sequence=sequence).official_path}"


def _draw_field(folder: Path, name: Name, sequence: int, image_size: int, seed: int) -> None:
    from histo_lightning.data.synthetic.microscope import render  # half a second to import
    from histo_lightning.data.synthetic.tissue import generator, make_tissue

    tissue = make_tissue(seed, name, sequence)
    for magnification in MAGNIFICATIONS:
        rng = generator(seed, "photograph", name.slide, sequence, magnification)
        picture = Image.fromarray(render(tissue, magnification, image_size, rng))
        path = folder / _path(name, magnification, sequence)
        picture.save(path, compress_level=1)  # noise does not compress


def _sizes(root: Path) -> dict[str, int]:
    return {path.relative_to(root).as_posix(): path.stat().st_size for path in sorted(root.rglob("*.png"))}


def _is_complete(root: Path) -> bool:
    """Whether all images are there with the sizes that the marker says: a few milliseconds."""
    try:
        return bool(json.loads((root / MARKER).read_text(encoding="utf-8")) == _sizes(root))
    except (OSError, ValueError):
        return False


def _draw_all(folder: Path, images: int, size: int, seed: int, threads: int, progress: Progress) -> None:
    slides = {slide: entry.names()[0] for slide, entry in census().items()}  # one name represents each
    for name, magnification in product(slides.values(), MAGNIFICATIONS):
        (folder / _path(name, magnification, 1)).parent.mkdir(parents=True)
    sequences, total = range(1, images + 1), len(slides) * len(MAGNIFICATIONS) * images
    drawn = [name for slide, name in slides.items() if slide != TWIN_DROPPED]
    with ThreadPoolExecutor(threads) as pool:  # NumPy, SciPy and Pillow leave Python's lock
        fields = product(drawn, sequences)
        futures = [pool.submit(_draw_field, folder, *field, size, seed) for field in fields]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                progress(done * len(MAGNIFICATIONS), total)
        finally:
            pool.shutdown(cancel_futures=True)
    for magnification, sequence in product(MAGNIFICATIONS, sequences):
        origin, copy = (_path(slides[twin], magnification, sequence) for twin in (TWIN_KEPT, TWIN_DROPPED))
        shutil.copyfile(folder / origin, folder / copy)
    (folder / MARKER).write_text(json.dumps(_sizes(folder), indent=0), encoding="utf-8")
    progress(total, total)


def ensure_synthetic(
    cache_dir: Path, images_per_slide: int = IMAGES_PER_SLIDE, image_size: int = IMAGE_SIZE, seed: int = 0, *,
    progress: Progress | None = None, threads: int | None = None,
) -> Path:  # fmt: skip
    """The root of the embedded data set, ``cache_dir/synthetic/<key>``; drawn first where it is absent or damaged.

    ``image_size`` is the width in pixels, 460/700 of it the height; 4 of 350 x 230 a slide and magnification take 200 MB.
    ``threads``: by default one a core, at most 8. UserError for what is out of range or cannot be written.
    """
    check(Config(dataset=DatasetConfig("synthetic", "", images_per_slide, image_size, seed)))
    root = cache_dir / "synthetic" / f"v{VERSION}-{images_per_slide}x{image_size}-seed{seed}"
    # First without the lock: a finished set also serves from a folder that cannot be written.
    if _is_complete(root):
        return root
    problem = f"{root.parent}: the synthetic data set cannot be drawn"
    with new_folder(root, problem, "set cache_dir") as building:
        if not _is_complete(root):  # another process may have drawn it meanwhile
            threads = threads or min(len(os.sched_getaffinity(0)), 8)
            progress = progress or (lambda done, total: None)
            _draw_all(building, images_per_slide, image_size, seed, threads, progress)
            shutil.rmtree(root, ignore_errors=True)  # damaged
            building.rename(root)
    return root
