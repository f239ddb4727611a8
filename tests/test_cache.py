"""The pixel cache: bit-exact, undistorted, atomic, and never trusted when damaged."""

import json
import multiprocessing
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histo_lightning.data import cache
from histo_lightning.data.cache import canvas_of, decode, load_pixels, on_canvas
from histo_lightning.data.records import record_of
from histo_lightning.errors import UserError

NAMES = [f"SOB_M_DC-14-2523-40-{i:03d}.png" for i in range(1, 7)]


def draw(root: Path, name: str, size=(70, 46), seed: int = 0, mode: str = "RGB") -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(root / name)
    return root / name


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    root.mkdir()
    for i, name in enumerate(NAMES):
        draw(root, name, seed=i)
    return root


def records():
    return [record_of(name) for name in NAMES]


def load(tree: Path, tmp_path: Path, short_side: int = 46, **more):
    return load_pixels(tree, records(), short_side, tmp_path / "cache", **more)


def test_native_size_is_bit_exact(tree: Path, tmp_path: Path) -> None:
    pixels = load(tree, tmp_path)
    assert pixels.array.shape == (6, 46, 70, 3)
    for row, name in enumerate(pixels.images):
        assert np.array_equal(pixels.array[row], np.asarray(Image.open(tree / name)))


def test_both_heights_of_the_real_set_are_not_distorted() -> None:
    """A disc stays a disc: its width and height on the canvas agree for 700x460 and 700x456."""
    for height in (460, 456):
        y, x = np.mgrid[:height, :700]
        disc = ((x - 349.5) ** 2 + (y - (height - 1) / 2) ** 2 < 150**2).astype(np.uint8) * 255
        out = on_canvas(Image.fromarray(np.stack([disc] * 3, axis=2)), 128, 195)
        wide, tall = (out[64, :, 0] > 127).sum(), (out[:, 97, 0] > 127).sum()
        assert abs(int(wide) - int(tall)) <= 1
        assert abs(wide - 300 * 128 / height) <= 2
    assert canvas_of([(700, 460)] * 3 + [(700, 456)], 256) == (256, 390)
    assert canvas_of([(460, 700)], 256) == (390, 256)


def test_a_second_load_opens_no_image(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(tree, tmp_path)
    monkeypatch.setattr(cache, "decode", lambda *_: pytest.fail("decoded again"))
    second = load(tree, tmp_path)
    assert np.array_equal(first.array, second.array)
    assert first.fingerprint == second.fingerprint


def test_the_fingerprint_is_of_pixels_not_of_files(tree: Path, tmp_path: Path) -> None:
    before = load(tree, tmp_path, short_side=46).fingerprint
    assert load(tree, tmp_path, short_side=23).fingerprint == before
    Image.open(tree / NAMES[0]).save(tree / NAMES[0], compress_level=1)
    assert load(tree, tmp_path).fingerprint == before
    draw(tree, NAMES[0], seed=99)
    assert load(tree, tmp_path).fingerprint != before


def test_a_changed_image_is_read_again(tree: Path, tmp_path: Path) -> None:
    load(tree, tmp_path)
    draw(tree, NAMES[2], seed=77)
    assert np.array_equal(load(tree, tmp_path).array[2], np.asarray(Image.open(tree / NAMES[2])))


@pytest.mark.parametrize("victim", ["pixels.npy", "index.json"])
def test_damage_at_random_bytes_is_noticed(tree: Path, tmp_path: Path, victim: str) -> None:
    true = load(tree, tmp_path).array.copy()
    generator = random.Random(5)
    (file,) = (tmp_path / "cache" / "pixels").glob(f"*/{victim}")
    for _ in range(8):
        data = bytearray(file.read_bytes())
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        file.write_bytes(data)
        assert np.array_equal(load(tree, tmp_path).array, true)
    file.write_bytes(file.read_bytes()[:-7])
    assert np.array_equal(load(tree, tmp_path).array, true)
    json.loads(next((tmp_path / "cache" / "pixels").glob("*/index.json")).read_text())


def _load_slowly(tree: Path, folder: Path, answers) -> None:
    built = []
    load_pixels(
        tree, records(), 46, folder, progress=lambda done, total: (built.append(done), time.sleep(0.05))
    )
    answers.put(len(built))


def test_two_processes_build_it_once(tree: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    both = [context.Process(target=_load_slowly, args=(tree, tmp_path / "cache", answers)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert sorted([answers.get(), answers.get()]) == [0, 6]


def test_a_killed_build_leaves_nothing_that_looks_whole(tree: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=_load_slowly, args=(tree, tmp_path / "cache", answers))
    process.start()
    parent = tmp_path / "cache" / "pixels"
    while not list(parent.glob(".*.building/pixels.npy")):
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    assert not [p for p in parent.glob("*") if not p.name.startswith(".")]
    assert np.array_equal(load(tree, tmp_path).array[0], np.asarray(Image.open(tree / NAMES[0])))
    assert not list(parent.glob(".*.building"))


def test_bad_images_are_named(tree: Path, tmp_path: Path) -> None:
    whole = (tree / NAMES[3]).read_bytes()
    for content, message in (
        (whole[: len(whole) // 2], "cannot be read as an image"),
        (b"no image", "cannot be read"),
        (b"", "cannot be read"),
    ):
        (tree / NAMES[3]).write_bytes(content)
        with pytest.raises(UserError, match=message) as error:
            load(tree, tmp_path)
        assert NAMES[3] in str(error.value)
    assert not [p for p in (tmp_path / "cache" / "pixels").glob("*") if not p.name.startswith(".")]
    for mode in ("L", "RGBA", "P"):
        with pytest.raises(UserError, match=f"its mode is {mode}"):
            decode(draw(tree, NAMES[3], mode=mode))
    with pytest.raises(UserError, match="70x46 pixels, BreakHis images are 700x460 or 700x456"):
        decode(draw(tree, NAMES[3]), cache.BREAKHIS_SIZES)
    with pytest.raises(UserError, match="at least 32"):
        decode(draw(tree, NAMES[3], size=(40, 20)))


def test_a_cache_that_cannot_be_written_is_one_line(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="pixel cache cannot be written"):
        load_pixels(tree, records(), 46, tmp_path / "file")


def test_times_alone_do_not_make_new_pixels(tree: Path, tmp_path: Path) -> None:
    before = load(tree, tmp_path)
    os.utime(tree / NAMES[0], (1, 1))
    after = load(tree, tmp_path)
    assert before.fingerprint == after.fingerprint
