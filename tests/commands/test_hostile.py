"""Files, names and options that mean harm, or that nobody meant: each ends in one line, or is skipped with one; nothing hangs."""

import csv
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from imagecodecs import png_encode, tiff_encode
from PIL import Image

from factories.html import Page
from factories.runs import main_here, rows, train_here

PARTS = [f"{part}/{name}" for part in ("train", "val", "test") for name in ("benign", "malignant")]
PLACE = Path("test") / "benign"
NAMES = (
    b"=cmd|' C calc'!A0.png",
    b"@SUM(1).png",
    b"<script>alert(1)<_script>.png",
    b"bad\xff\xfe.png",
    b"new\nline.png",
    b"red\x1b[31m.png",
    b"[bold]a[_bold].png",
    b"| `a` **b** |.png",
    b"x" * 251 + b".png",
)


def picture(seed: int = 0, size: tuple[int, int] = (70, 46)) -> Image.Image:
    shape = (size[1], size[0], 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    image.save(buffer := io.BytesIO(), kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, colour: int = 2) -> bytes:
    """A PNG that promises a size and holds a few bytes; ``colour`` 2 is RGB, 0 is grey."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def promised(kind: str, side: int) -> bytes:
    """A JPEG or BMP whose header promises a size that the rest does not hold."""
    data = bytearray(encoded(picture(), kind))
    if kind == "BMP":
        data[18:26] = struct.pack("<ii", side, side)
    else:
        position = data.find(b"\xff\xc0") + 5
        data[position : position + 4] = struct.pack(">HH", side, side)
    return bytes(data)


HOSTILE = {
    "huge.png": png(50_000, 50_000),
    "huge_grey.png": png(50_000, 50_000, colour=0),
    "large.png": png(12_000, 12_000),
    "large_grey.png": png(12_000, 12_000, colour=0),
    "largest.png": png(2**32 - 1, 2**32 - 1),
    "nothing.png": png(0, 0),
    "huge.jpg": promised("JPEG", 65_000),
    "large.jpg": promised("JPEG", 10_000),
    "huge.bmp": promised("BMP", 50_000),
    "deep.png": png_encode(np.full((46, 70, 3), 40_000, np.uint16)),
    "deep.tif": tiff_encode(np.full((46, 70, 3), 40_000, np.uint16), photometric="rgb"),
    "cmyk.jpg": encoded(picture().convert("CMYK"), "JPEG"),
    "moving.png": encoded(picture(), "PNG", save_all=True, append_images=[picture(1)]),
    "pages.tif": encoded(picture(), "TIFF", save_all=True, append_images=[picture(1)]),
    "gif.png": encoded(picture(), "GIF"),
    "program.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 70 46\n%%EndComments\nshowpage\n%%EOF\n",
    "empty.png": b"",
    "signature.png": b"\x89PNG\r\n\x1a\n",
    "cut.png": encoded(picture())[:900],
    "cut.tif": encoded(picture(), "TIFF")[:900],
    "strip.png": encoded(picture(0, (2000, 40))),
}
SPECIAL = ("fifo.png", "circle.png", "nowhere.png", "zeros.png", "sparse.png")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three readable images in every folder of ``dataset=folders``."""
    for seed, path in enumerate(
        f"{part}/{part.replace('/', '_')}_{i}.png" for part in PARTS for i in range(3)
    ):
        (tmp_path / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / path).write_bytes(encoded(picture(seed)))
    return tmp_path / "tree"


def add_hostile(folder: Path) -> None:
    for name, content in HOSTILE.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "fifo.png")
    for name, target in (("circle", "circle.png"), ("nowhere", "no.png"), ("zeros", "/dev/zero")):
        (folder / f"{name}.png").symlink_to(target)
    (folder / "self").symlink_to(".")
    (folder / "folder.png").mkdir()
    with (folder / "sparse.png").open("wb") as file:
        file.truncate(2**40)


def add_names(folder: Path) -> list[str]:
    names = [os.fsdecode(name) for name in NAMES]
    for seed, name in enumerate(names, 100):
        (folder / name).write_bytes(encoded(picture(seed)))
    return names


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def lines_of(capfd: pytest.CaptureFixture[str]) -> list[str]:
    """What a command wrote on stderr; every character of it is safe to print."""
    shown = capfd.readouterr().err
    assert all(c.isprintable() for c in shown.replace("\n", ""))
    return shown.splitlines()


def test_hostile_images_are_skipped_with_a_line_each(tree: Path, here: Path, capfd) -> None:
    add_hostile(tree / PLACE)
    options = ("dataset=folders", f"dataset.root={tree}", "image_size=32", "trainer.progress=none")
    assert main_here("prepare", *options) == 2
    assert lines_of(capfd)[-1].startswith("error: training refuses this copy")
    problems = {row["image"]: row for row in rows(next(here.glob("outputs/datasets/*/problems.csv")))}
    assert {name for name, row in problems.items() if row["kind"] == "unreadable"} == {*HOSTILE, *SPECIAL}
    assert all(str(tree) in row["detail"] for row in problems.values())
    assert main_here("train", *options, "split=folders", "epochs=1") == 2
    (line,) = lines_of(capfd)
    assert f"and {len(problems) - 1} more images" in line
    assert not (here / "outputs" / "runs").exists()


def test_hostile_names_are_data_everywhere(tree: Path, here: Path, capfd) -> None:
    """In tables, pages, Markdown, TensorBoard and on the console; the bytes of a name that is no text come back."""
    names = add_names(tree / PLACE)
    folders = (
        "dataset=folders",
        f"dataset.root={tree}",
        "split=folders",
        "image_size=32",
        "trainer=cpu",
        "trainer.progress=none",
    )
    small = (*folders, "model=resnet10", "epochs=1", "batch_size=8")
    run = train_here(here, here / "cache", *small, base=())
    table = (run / "predictions" / "test.csv").read_bytes()
    assert b"bad\xff\xfe.png" in table
    assert b"\n'=cmd" in table
    assert (
        main_here("prepare", *folders[:2], "image_size=32", "trainer.progress=lines", "trainer.threads=1")
        == 0
    )
    target = f"checkpoint={run / 'checkpoints' / 'best.ckpt'}"
    assert main_here("predict", target, f"input={tree / PLACE}", "gradcam=true", "trainer=cpu") == 0
    assert main_here("audit", f"split_file={run / 'split.json'}", *folders[:2]) in (0, 2, 3)
    lines_of(capfd)
    assert {
        row["path"] for row in read_raw(here / "outputs" / "predictions" / "benign" / "predictions.csv")
    } > {str(tree / PLACE / name) for name in names}
    for page in here.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "<script>alert" not in text
        assert Page(text).text
    for page in here.rglob("*.md"):
        assert "<script>alert" not in page.read_text(encoding="utf-8")


def read_raw(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("train", "run_name=.."),
        ("train", "run_name=.hidden"),
        ("train", "resume=/etc/passwd"),
        ("train", "resume=" + "x" * 300),
        ("train", "split=file split.path=/dev/zero"),
        ("train", "split=file split.path=" + "x" * 300),
        ("train", "split=file split.path=~nobody_of_this_name/x"),
        ("train", "dataset=breakhis dataset.root=~nobody_of_this_name/x"),
        ("train", "dataset=breakhis dataset.root=" + "x" * 300),
        ("train", "seed=[" + ",".join(map(str, range(20_000))) + "]"),
        ("train", "image_size=2048"),
        ("train", "dataset.short_side=4096"),
        ("train", "cache_dir=" + "x" * 300),
        ("train", "output_dir=" + "x" * 300),
        ("train", "model.weights=/dev/zero"),
        ("train", "-cd " + "x" * 300),
        ("predict", "checkpoint=/dev/zero input=."),
        ("predict", "checkpoint=" + "x" * 300 + " input=."),
        ("evaluate", "checkpoint=" + "x" * 300),
        ("export", "checkpoint=" + "x" * 300),
        ("compare", "runs=" + "x" * 300),
        ("compare", "runs=/dev/zero"),
        ("audit", "split_file=" + "x" * 300),
        ("audit", "split_file=/dev/zero"),
        ("prepare", "dataset=folders dataset.root=" + "x" * 300),
        ("prepare", "dataset=breakhis dataset.download=true dataset.url=file:///dev/zero dataset.root=d"),
    ],
    ids=lambda text: text[:40],
)
def test_options_end_in_one_line(command: str, line: str, here: Path, cache_dir: Path, capfd) -> None:
    small = ("dataset.images_per_slide=2", "dataset.image_size=140", "trainer.progress=none")
    if command not in ("train", "prepare") or "dataset=" in line:
        small = ()
    if "cache_dir" not in line and command in ("train", "prepare"):
        small = (*small, f"cache_dir={cache_dir / 'histo_lightning'}")
    assert main_here(command, *small, *line.split()) == 2
    (shown,) = lines_of(capfd)
    assert shown.startswith("error: ")
    assert len(shown) < 1000
