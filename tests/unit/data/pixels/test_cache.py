"""The pixel cache: bit-exact, undistorted, atomic, and never trusted when damaged."""

import io
import json
import os
import random
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histo_lightning.config.schema import DatasetConfig
from histo_lightning.data.breakhis.records import breakhis_records, record_of
from histo_lightning.data.pixels import cache
from histo_lightning.data.pixels.cache import load_pixels
from histo_lightning.data.pixels.decode import BREAKHIS_SIZES, canvas_of, decode, on_canvas
from histo_lightning.data.sources.dataset import find_root
from histo_lightning.data.sources.folder import image_paths
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
    assert pixels.shards[0].shape == (6, 46, 70, 3)
    for row, name in enumerate(pixels.images):
        assert np.array_equal(pixels.shards[0][row], np.asarray(Image.open(tree / name)))


def test_both_heights_of_the_real_set_are_not_distorted() -> None:
    """A disc stays a disc: its width and height on the canvas agree for 700x460 and 700x456."""
    for height in (460, 456):
        y, x = np.mgrid[:height, :700]
        disc = ((x - 349.5) ** 2 + (y - (height - 1) / 2) ** 2 < 150**2).astype(np.uint8) * 255
        out = on_canvas(np.stack([disc] * 3, axis=2), 128, 195)
        wide, tall = (out[64, :, 0] > 127).sum(), (out[:, 97, 0] > 127).sum()
        assert abs(int(wide) - int(tall)) <= 1
        assert abs(wide - 300 * 128 / height) <= 2
    assert canvas_of([(700, 460)] * 3 + [(700, 456)], 256) == (256, 390)
    assert canvas_of([(460, 700)], 256) == (390, 256)


def test_a_second_load_opens_no_image(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(tree, tmp_path)
    monkeypatch.setattr(cache, "decode", lambda *_: pytest.fail("decoded again"))
    monkeypatch.setattr(Path, "read_bytes", lambda *_: pytest.fail("opened again"))
    second = load(tree, tmp_path)
    assert np.array_equal(first.shards[0], second.shards[0])
    assert first.fingerprint(NAMES) == second.fingerprint(NAMES)


def test_the_fingerprint_is_of_pixels_not_of_files(tree: Path, tmp_path: Path) -> None:
    before = load(tree, tmp_path, short_side=46).fingerprint(NAMES)
    assert load(tree, tmp_path, short_side=23).fingerprint(NAMES) == before
    Image.open(tree / NAMES[0]).save(tree / NAMES[0], compress_level=1)
    assert load(tree, tmp_path).fingerprint(NAMES) == before
    draw(tree, NAMES[0], seed=99)
    assert load(tree, tmp_path).fingerprint(NAMES) != before


def test_a_changed_image_is_read_again(tree: Path, tmp_path: Path) -> None:
    load(tree, tmp_path)
    draw(tree, NAMES[2], seed=77)
    assert np.array_equal(load(tree, tmp_path).shards[0][2], np.asarray(Image.open(tree / NAMES[2])))


def test_images_that_change_while_they_are_read_are_no_cache(tree: Path, tmp_path: Path) -> None:
    def change(done: int, total: int) -> None:
        if done == 3:
            draw(tree, NAMES[0], seed=99)

    with pytest.raises(UserError, match="images changed while they were read; run again"):
        load(tree, tmp_path, progress=change)
    assert not list((tmp_path / "cache" / "pixels").glob("[!.]*"))
    assert np.array_equal(load(tree, tmp_path).shards[0][0], np.asarray(Image.open(tree / NAMES[0])))


def test_an_upscale_beyond_all_sense_is_refused(tree: Path, tmp_path: Path) -> None:
    assert load(tree, tmp_path, short_side=4 * 46).shape[0] == 4 * 46
    with pytest.raises(UserError, match=r"images of 46 pixels .* 185 pixels high, more than 4 times"):
        load(tree, tmp_path, short_side=4 * 46 + 1)


@pytest.mark.parametrize("victim", ["pixels.npy", "index.json"])
def test_damage_at_random_bytes_is_noticed(tree: Path, tmp_path: Path, victim: str) -> None:
    true = load(tree, tmp_path).shards[0].copy()
    generator = random.Random(5)
    (file,) = (tmp_path / "cache" / "pixels").glob(f"*/{victim}")
    for _ in range(8):
        data = bytearray(file.read_bytes())
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        file.write_bytes(data)
        assert np.array_equal(load(tree, tmp_path).shards[0], true)
    file.write_bytes(file.read_bytes()[:-7])
    assert np.array_equal(load(tree, tmp_path).shards[0], true)
    json.loads(next((tmp_path / "cache" / "pixels").glob("*/index.json")).read_text())


SLOWLY = """
import sys, time
from pathlib import Path
from histo_lightning.data.breakhis.records import record_of
from histo_lightning.data.pixels.cache import load_pixels
tree, folder = map(Path, sys.argv[1:])
built = []
load_pixels(tree, [record_of(p.name) for p in tree.iterdir()], 46, folder,
            progress=lambda done, total: (built.append(done), time.sleep(0.05)))
print(len(built))
"""


def load_slowly(tree: Path, folder: Path) -> subprocess.Popen[str]:
    """A process that builds the cache and prints how many images it decoded."""
    command = [sys.executable, "-c", SLOWLY, str(tree), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_build_it_once(tree: Path, tmp_path: Path) -> None:
    both = [load_slowly(tree, tmp_path / "cache") for _ in range(2)]
    assert sorted(process.communicate(timeout=60)[0] for process in both) == ["0\n", "6\n"]


def test_a_killed_build_leaves_nothing_that_looks_whole(tree: Path, tmp_path: Path) -> None:
    process = load_slowly(tree, tmp_path / "cache")
    parent = tmp_path / "cache" / "pixels"
    while not list(parent.glob(".*.building/pixels.npy")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not [p for p in parent.glob("*") if not p.name.startswith(".")]
    assert np.array_equal(load(tree, tmp_path).shards[0][0], np.asarray(Image.open(tree / NAMES[0])))
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
            decode(draw(tree, NAMES[3], mode=mode).read_bytes(), "x.png")
    with pytest.raises(UserError, match="70x46 pixels, BreakHis images are 700x460 or 700x456"):
        decode(draw(tree, NAMES[3]).read_bytes(), "x.png", BREAKHIS_SIZES)
    with pytest.raises(UserError, match="at least 32"):
        decode(draw(tree, NAMES[3], size=(40, 20)).read_bytes(), "x.png")


def test_a_cache_that_cannot_be_written_is_one_line(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="pixel cache cannot be written"):
        load_pixels(tree, records(), 46, tmp_path / "file")


def test_times_alone_do_not_make_new_pixels(tree: Path, tmp_path: Path) -> None:
    before = load(tree, tmp_path)
    os.utime(tree / NAMES[0], (1, 1))
    after = load(tree, tmp_path)
    assert before.fingerprint(NAMES) == after.fingerprint(NAMES)


def test_the_decoder_agrees_with_pillow_on_whole_and_on_damaged_files(tree: Path) -> None:
    """Every kind of PNG that Pillow writes as RGB, and files with a flipped bit or a lost end."""
    generator = random.Random(3)
    image = Image.open(tree / NAMES[0])
    image.load()
    for options in ({"compress_level": 0}, {"compress_level": 9}, {"optimize": True}):
        file = io.BytesIO()
        image.save(file, "png", **options)
        assert np.array_equal(decode(file.getvalue(), "x.png"), np.asarray(image))
    whole = (tree / NAMES[0]).read_bytes()
    for _ in range(300):
        damaged = bytearray(whole)
        position = generator.randrange(len(whole))
        damaged[position] ^= 1 << generator.randrange(8)
        with pytest.raises(UserError, match="cannot be read as an image"):
            decode(bytes(damaged), "x.png")
        with pytest.raises(UserError, match="cannot be read as an image"):
            decode(whole[:position], "x.png")


def test_real_images_are_decoded_to_the_last_bit(real_root: Path) -> None:
    sizes = set()
    for path in sorted(real_root.rglob("*.png"))[::6]:
        pixels = decode(path.read_bytes(), path.name, BREAKHIS_SIZES)
        assert np.array_equal(pixels, np.asarray(Image.open(path)))
        sizes.add(pixels.shape)
    assert (460, 700, 3) in sizes


def test_any_number_of_threads_builds_the_same_cache(tree: Path, tmp_path: Path) -> None:
    found = []
    for threads in (1, 2, 5):
        load_pixels(tree, records(), 23, tmp_path / str(threads), threads=threads)
        folder = next((tmp_path / str(threads) / "pixels").glob("[!.]*"))
        found.append([(folder / name).read_bytes() for name in ("pixels.npy", "index.json")])
    assert found[0] == found[1] == found[2]


def test_all_others_are_decoded_before_bad_ones_are_reported(tree: Path, tmp_path: Path) -> None:
    for name in (NAMES[1], NAMES[4]):
        (tree / name).write_bytes(b"no image")
    done: list[int] = []
    with pytest.raises(UserError, match=f"{NAMES[1]}: .*and 1 more images: the command prepare"):
        load(tree, tmp_path, progress=lambda i, _: done.append(i))
    assert done == [1, 2, 3, 4, 5, 6]
    assert not [p for p in (tmp_path / "cache" / "pixels").glob("*") if not p.name.startswith(".")]
    pixels = load(tree, tmp_path, tolerant=True)
    assert list(pixels.unreadable) == [NAMES[1], NAMES[4]]
    assert np.array_equal(pixels.take(np.array([5]))[0], np.asarray(Image.open(tree / NAMES[5])))
    assert not pixels.take(np.array([1])).any()
    for i in (1, 4):
        draw(tree, NAMES[i], seed=i)
    assert not load(tree, tmp_path, tolerant=True).unreadable


def test_magnifications_are_stored_apart_and_shared(tree: Path, tmp_path: Path, monkeypatch) -> None:
    other = [name.replace("-40-", "-100-") for name in NAMES[:3]]
    for i, name in enumerate(other):
        draw(tree, name, seed=50 + i)
    both = [record_of(name) for name in NAMES + other]
    sizes = [(70, 46)]
    only = load(tree, tmp_path, sizes=sizes)
    counted: list[int] = []
    together = load_pixels(
        tree, both, 46, tmp_path / "cache", sizes=sizes, progress=lambda done, _: counted.append(done)
    )
    assert counted == [7, 8, 9]  # the six that were there already are not decoded again
    assert len(together.shards) == 2
    rows = np.array([8, 0, 6, 5, 7])
    images = together.take(rows)
    for image, row in zip(images, rows, strict=True):
        assert np.array_equal(image, np.asarray(Image.open(tree / together.images[row])))
    assert together.fingerprint(NAMES) == only.fingerprint(NAMES)


def test_full_verification_decodes_again_and_mends(tree: Path, tmp_path: Path) -> None:
    """A cache that agrees with its own checksums but not with the images: only decoding again can tell."""
    true = load(tree, tmp_path).shards[0].copy()
    folder = next((tmp_path / "cache" / "pixels").glob("[!.]*"))
    draw(tree, NAMES[0], seed=91)
    os.utime(tree / NAMES[0], (5, 5))
    stale = next(p for p in (tmp_path / "cache" / "pixels").glob("[!.]*"))
    assert stale == folder
    other = load(tree, tmp_path).shards[0].copy()
    newer = next(p for p in (tmp_path / "cache" / "pixels").glob("[!.]*") if p != folder)
    for name in ("pixels.npy", "index.json"):  # yesterday's pixels under today's key
        (newer / name).write_bytes((folder / name).read_bytes())
    assert np.array_equal(load(tree, tmp_path).shards[0], true)
    mended = load(tree, tmp_path, verify=True)
    assert np.array_equal(mended.shards[0][0], np.asarray(Image.open(tree / NAMES[0])))
    assert np.array_equal(load(tree, tmp_path).shards[0], other)


def test_a_full_disk_is_one_line_and_leaves_nothing(tree: Path, tmp_path: Path) -> None:
    """On a file system of 32 KiB, mounted by the test; the first allocation is too much for it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", disk], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.strip()}")
    try:
        with pytest.raises(UserError, match="No space left on device"):
            load_pixels(tree, records(), 46, disk / "cache")
        assert [p.name for p in (disk / "cache" / "pixels").glob("*") if not p.name.endswith(".lock")] == []
        (disk / "cache").rename(disk / "moved")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_finished_cache_serves_from_a_folder_that_cannot_be_written(tree: Path, tmp_path: Path) -> None:
    true = load(tree, tmp_path).shards[0]
    for lock in (tmp_path / "cache" / "pixels").glob(".*.lock"):
        lock.unlink()
        lock.mkdir()  # opening it for writing fails, for root too
    assert np.array_equal(load(tree, tmp_path).shards[0], true)


def test_an_archive_is_unpacked_into_the_cache(tree: Path, tmp_path: Path) -> None:
    archive = tmp_path / "images.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tree, "BreaKHis_v1/flat")
    root = find_root(DatasetConfig("breakhis", str(archive)), tmp_path / "cache")
    members = breakhis_records(image_paths(root), archive)
    assert [record.image for record in members] == NAMES
    packed = load_pixels(root, members, 46, tmp_path / "cache")
    plain = load(tree, tmp_path)
    assert np.array_equal(packed.shards[0], plain.shards[0])
    assert packed.fingerprint(NAMES) == plain.fingerprint(NAMES)


def test_roots_that_lead_nowhere(tmp_path: Path) -> None:
    for name, root, message in (
        ("breakhis", str(tmp_path / "nowhere"), "no such folder or"),
        ("folders", str(tmp_path / "a.tar.gz"), "no such folder or"),
        ("breakhis", "", r"dataset\.root is not set"),
    ):
        with pytest.raises(UserError, match=message):
            find_root(DatasetConfig(name, root), tmp_path / "cache")
