"""The embedded data set: H&E-like images drawn by :mod:`~histo_lightning.data.synthetic.microscope` under BreakHis names.

The real set's 82 slides, 70 cases and all 328 groups of slide and magnification stand under
``<cache>/synthetic/<key>/BreaKHis_v1/``, in the official tree. Slide 13412's LC images are copies of its DC images,
as in the real set. The folder is drawn once, under a lock, in a temporary sibling, and renamed when it is whole.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from PIL import Image

from histo_lightning.data.breakhis.census import census
from histo_lightning.data.breakhis.names import MAGNIFICATIONS, Name
from histo_lightning.errors import UserError

VERSION = 1  # of the pictures: raise it when the renderer's output changes, and caches are drawn anew
TWINS = {"LC-14-13412": "DC-14-13412"}  # copy and origin: one specimen under two subtypes
MARKER = "complete.json"
Progress = Callable[[int, int], None]


def _slides() -> dict[str, Name]:
    """The 82 slides, each with one of its names, for the grammar's other parts."""
    return {slide: entry.names()[0] for slide, entry in census().items()}


def _path(name: Name, magnification: int, sequence: int) -> str:
    """Below the root, e.g. ``BreaKHis_v1/histology_slides/.../40X/SOB_B_A-14-22549AB-40-001.png``."""
    image = Name(name.subtype, name.year, name.number, name.section, magnification, sequence)
    return f"BreaKHis_v1/{image.official_path}"


def _draw_field(folder: Path, name: Name, sequence: int, image_size: int, seed: int) -> None:
    """Draw one field of view of a slide at the four magnifications."""
    # The renderer takes half a second to import, and a set is drawn once.
    from histo_lightning.data.synthetic.cohort import generator
    from histo_lightning.data.synthetic.microscope import render
    from histo_lightning.data.synthetic.tissue import make_tissue

    tissue = make_tissue(seed, name, sequence)
    for magnification in MAGNIFICATIONS:
        rng = generator(seed, "photograph", name.slide, sequence, magnification)
        picture = Image.fromarray(render(tissue, magnification, image_size, rng))
        picture.save(
            folder / _path(name, magnification, sequence), compress_level=1
        )  # noise does not compress


def _draw_share(
    folder: Path, images_per_slide: int, image_size: int, seed: int, share: int, shares: int
) -> Generator[None]:
    """Draw every ``shares``-th field, from number ``share``; yields after each."""
    slides = [name for slide, name in _slides().items() if slide not in TWINS]
    fields = [(name, sequence) for name in slides for sequence in range(1, images_per_slide + 1)]
    for name, sequence in fields[share::shares]:
        _draw_field(folder, name, sequence, image_size, seed)
        yield


def work(arguments: str) -> None:
    """A child process: draws its share and prints a line a field, ``!`` and a reason where the disk fails.

    Args:
        arguments: those of ``_draw_share``, as a JSON list.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # the builder was killed: end silently at the next line
    folder, *numbers = json.loads(arguments)
    try:
        for _ in _draw_share(Path(folder), *numbers):
            print(flush=True)
    except OSError as error:
        print(f"!{error.strerror or error}", flush=True)


@contextmanager
def _children(commands: list[list[str]]) -> Iterator[Iterator[str]]:
    """Run commands side by side; gives the lines that they print, in any order, and ends them on the way out."""
    reading, writing = os.pipe()
    children: list[subprocess.Popen[bytes]] = []
    with os.fdopen(reading, encoding="utf-8") as lines:
        try:
            try:
                for command in commands:
                    children.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=writing))
            finally:
                os.close(writing)
            yield iter(lines)
            if any(child.wait() for child in children):
                raise OSError(0, "a drawing process ended early")
        finally:
            for child in children:
                child.kill()
                child.wait()


def _in_parallel(folder: Path, numbers: tuple[int, int, int], processes: int) -> Generator[None]:
    # Plain commands, not multiprocessing: its children import the caller's main script, torch and all, and a
    # script without a main guard would start itself again.
    code = "import sys; sys.path.insert(0, sys.argv[1]); from histo_lightning.data import synthetic; synthetic.work(sys.argv[2])"
    package = str(Path(__file__).resolve().parents[2])
    commands = [
        [sys.executable, "-P", "-c", code, package, json.dumps([str(folder), *numbers, share, processes])]
        for share in range(processes)
    ]
    with _children(commands) as lines:
        for line in lines:
            if line.startswith("!"):
                raise OSError(0, line[1:].strip())
            yield


def _sizes(root: Path) -> dict[str, int]:
    """Size in bytes of every image below a root, by relative path."""
    return {path.relative_to(root).as_posix(): path.stat().st_size for path in root.rglob("*.png")}


def _whole(root: Path, count: int) -> bool:
    """Whether all images stand there with the sizes that the marker says: a few milliseconds."""
    try:
        marker = json.loads((root / MARKER).read_text(encoding="utf-8"))
        expected = {path: size for path, (size, _) in marker["files"].items()}
        return bool(marker["count"] == count == len(expected) and expected == _sizes(root))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _build(
    folder: Path, images_per_slide: int, image_size: int, seed: int, processes: int, progress: Progress | None
) -> None:
    slides = _slides()
    for name in slides.values():
        for magnification in MAGNIFICATIONS:
            (folder / _path(name, magnification, 1)).parent.mkdir(parents=True)
    total = len(slides) * len(MAGNIFICATIONS) * images_per_slide
    done = 0
    numbers = (images_per_slide, image_size, seed)
    fields = (
        _draw_share(folder, *numbers, 0, 1) if processes == 1 else _in_parallel(folder, numbers, processes)
    )
    with closing(fields):  # ends the children also where this process is interrupted
        for _ in fields:
            done += len(MAGNIFICATIONS)
            if progress is not None:
                progress(done, total)
    for copy, origin in TWINS.items():
        for magnification in MAGNIFICATIONS:
            for sequence in range(1, images_per_slide + 1):
                path = partial(_path, magnification=magnification, sequence=sequence)
                shutil.copyfile(folder / path(slides[origin]), folder / path(slides[copy]))
    files = {
        path: (size, zlib.crc32((folder / path).read_bytes()))
        for path, size in sorted(_sizes(folder).items())
    }
    if len(files) != total:
        raise OSError(0, f"{len(files)} of {total} images were drawn")
    marker = {"renderer": VERSION, "count": total, "files": files}
    (folder / MARKER).write_text(json.dumps(marker, indent=0), encoding="utf-8")
    if progress is not None:
        progress(total, total)


def _checked(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise UserError(f"{name}={value}: allowed are {least} to {most}")


def ensure_synthetic(
    cache_dir: Path,
    *,
    images_per_slide: int = 4,
    image_size: int = 350,
    seed: int = 0,
    progress: Progress | None = None,
    processes: int | None = None,
) -> Path:
    """The root of the embedded data set, drawn first where it is not there yet, or damaged.

    Pixels depend on the arguments and :data:`VERSION` alone, not on ``processes``.

    Args:
        cache_dir: the set goes to ``cache_dir/synthetic/<key>``; 1,312 images of 350 x 230 take about 200 MB.
        images_per_slide: images for each slide and magnification, 1 to 60.
        image_size: width in pixels, 140 to 1400; the height is 460/700 of it.
        seed: another seed draws other tissue and deals other stains to the cases.
        progress: called with (images done, images in all).
        processes: that draw side by side; by default as many as there are cores, at most 8.

    Raises:
        UserError: an argument is out of range, or the folder cannot be written.
    """
    _checked("dataset.images_per_slide", images_per_slide, 1, 60)
    _checked("dataset.image_size", image_size, 140, 1400)
    processes = processes or min(len(os.sched_getaffinity(0)), 8)
    parent = cache_dir / "synthetic"
    key = f"v{VERSION}-{images_per_slide}x{image_size}-seed{seed}"
    root = parent / key
    count = len(census()) * len(MAGNIFICATIONS) * images_per_slide
    if _whole(
        root, count
    ):  # without the lock: a finished set also serves from a folder that cannot be written
        return root
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with (parent / f".{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _whole(root, count):  # another process drew it meanwhile
                return root
            for stale in parent.glob(f".{key}.building-*"):  # left by a killed process
                shutil.rmtree(stale, ignore_errors=True)
            # A new name each time: a killed builder's children may still be writing into the last one.
            building = parent / f".{key}.building-{uuid.uuid4().hex}"
            try:
                building.mkdir()
                _build(building, images_per_slide, image_size, seed, processes, progress)
                shutil.rmtree(root, ignore_errors=True)  # damaged
                building.rename(root)
            finally:
                shutil.rmtree(building, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"{parent}: the synthetic data set cannot be drawn ({error.strerror or error}); free space or set cache_dir"
        ) from error
    return root
