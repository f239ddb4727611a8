"""``prepare``: what is wrong with a copy is found and listed, all others are used, and nothing is decoded twice."""

import csv
import json
import shutil
import subprocess
import sys
import tarfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from histo_lightning.config.schema import AugmentConfig, DatasetConfig, PrepareConfig, TrainerConfig
from histo_lightning.data import BreakHisDataModule
from histo_lightning.data.breakhis.census import census_names
from histo_lightning.data.breakhis.names import parse_name
from histo_lightning.data.sources.folder import Folder
from histo_lightning.data.splits import SplitConfig
from histo_lightning.inspection.preparation import prepare

SLIDES = ("A-14-22549AB", "F-14-25197", "DC-14-2523", "MC-14-13413")


def some_names(magnification: int = 40, each: int = 2) -> list[str]:
    every = sorted(census_names())
    return [n for slide in SLIDES for n in [i for i in every if f"_{slide}-{magnification}-" in i][:each]]


def draw(path: Path, seed: int) -> None:
    """A smooth image of the real size, so that it compresses and decodes quickly."""
    small = np.random.default_rng(seed).integers(60, 255, (23, 35, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small).resize((700, 460), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Eight images at 40X and four at 100X, in the official tree."""
    root = tmp_path / "BreaKHis_v1"
    for seed, name in enumerate(some_names() + some_names(100, 1)):
        parsed = parse_name(name)
        assert parsed is not None
        draw(root / parsed.official_path, seed)
    return root


def config(root: Path, cache: Path, **more) -> PrepareConfig:
    settings = {
        "dataset": DatasetConfig(name="breakhis", root=str(root)),
        "magnification": "all",
        "image_size": 112,
        "cache_dir": str(cache),
        "trainer": TrainerConfig(progress="none"),
    }
    return PrepareConfig(**(settings | more))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_bad_copy_is_listed_whole_and_its_good_images_are_used(copy: Path, command, tmp_path: Path) -> None:
    files = sorted(copy.rglob("*.png"))
    broken, doubled, moved = files[0], files[3], files[5]
    broken.write_bytes(broken.read_bytes()[:-200])
    shutil.copy(doubled, copy / doubled.name)
    (copy / "400X").mkdir()
    moved.rename(copy / "400X" / moved.name)
    draw(copy / "holiday.png", 99)
    found = command(
        "prepare", "dataset=breakhis", f"dataset.root={copy}", "image_size=112", "json=found.json"
    )
    assert found.returncode == 2, found.stderr
    for text in (broken.name, "the file ends in the middle of a chunk", "holiday.png", doubled.name):
        assert text in found.stderr
    assert found.stderr.strip().splitlines()[-1].startswith("error: training refuses this copy")
    folder = tmp_path / "outputs" / "datasets" / "breakhis"
    states = {row["image"]: row["state"] for row in table(folder / "images.csv")}
    assert len(states) == 12
    assert states.pop(broken.name) != "ok"
    assert set(states.values()) == {"ok"}
    kinds = {row["kind"] for row in table(folder / "problems.csv")}
    assert {"unreadable", "duplicate name", "outside grammar", "wrong folder", "missing"} <= kinds
    figures = json.loads((tmp_path / "found.json").read_text())
    assert figures["images"] == 12
    assert figures["unreadable"] == 1
    assert figures["problems"]["missing"] == 7909 - 12
    assert "holiday.png" in (folder / "report.html").read_text()


def test_a_good_copy_is_prepared_without_torch_and_decoded_once(
    copy: Path, tmp_path: Path, cache_dir: Path
) -> None:
    code = (
        "import sys; from histo_lightning import prepare; status = prepare.main(); "
        "print('torch' in sys.modules, status)"
    )
    arguments = [
        "dataset=breakhis",
        f"dataset.root={copy}",
        "image_size=112",
        f"cache_dir={tmp_path / 'cache'}",
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False 0"
    assert "decoding images: 12 of 12" in done.stdout
    assert "Partial copy, 12 of the 7,909" in done.stdout
    again = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "decoding" not in again.stdout


def test_runs_find_what_was_prepared(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way to split and every magnification reads the same shards; no image file is opened again."""
    cache = tmp_path / "cache"
    prepare(config(copy, cache), tmp_path / "report")
    monkeypatch.setattr(Folder, "contents", lambda *_: pytest.fail("opened again"))
    fingerprints = set()
    for kind, magnification in (("image_random", "40x"), ("image_random", "all")):
        data = BreakHisDataModule(
            "breakhis",
            str(copy),
            plan=SplitConfig(name=kind, folds=3, group="image", seed=1),
            magnification=magnification,
            short_side=128,
            cache_dir=cache,
        )
        data.setup()
        fingerprints.add(data.fingerprint)
    assert len(fingerprints) == 2
    assert len(list((cache / "pixels").glob("[!.]*"))) == 2


def test_full_verification_says_what_it_mended(copy: Path, tmp_path: Path, caplog) -> None:
    cache = tmp_path / "cache"
    first = prepare(config(copy, cache, magnification="40x"), tmp_path / "report")
    victim = sorted(copy.rglob("*-40-*.png"))[2]
    stat = victim.stat()
    size = stat.st_size
    draw(victim, 1234)  # other pixels, and then the old size and time: invisible to anything but decoding
    data = victim.read_bytes()
    if len(data) < size:
        victim.write_bytes(data + bytes(size - len(data)))
    if len(data) > size:
        pytest.skip("the new drawing compresses worse than the old one")
    import os

    os.utime(victim, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    stale = prepare(config(copy, cache, magnification="40x"), tmp_path / "report")
    assert stale.facts.digests == first.facts.digests
    mended = prepare(config(copy, cache, magnification="40x", verify="full"), tmp_path / "report")
    assert "1 images differed from their files and are mended" in caplog.text
    assert sum(a != b for a, b in zip(mended.facts.digests, first.facts.digests, strict=True)) == 1


def test_an_archive_is_prepared_in_place(copy: Path, tmp_path: Path) -> None:
    plain = prepare(config(copy, tmp_path / "c1"), tmp_path / "r1")
    archive = tmp_path / "BreaKHis_v1.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(copy, "BreaKHis_v1")
    packed = prepare(config(archive, tmp_path / "c2"), tmp_path / "r2")
    assert packed.pixels.digests == plain.pixels.digests
    assert not packed.refused
    assert not list((tmp_path / "c2").rglob("*.png"))


def test_download_survives_a_dropped_connection(copy: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(copy, "BreaKHis_v1")
    body = archive.read_bytes()
    asked: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Range"))
            start = int(asked[-1].removeprefix("bytes=").split("-")[0]) if asked[-1] else 0
            self.send_response(206 if asked[-1] else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.send_header("ETag", '"one"')
            if asked[-1]:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.end_headers()
            stop = len(body) // 2 if not asked[-1] else len(body)
            self.wfile.write(body[start:stop])
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        dataset = DatasetConfig(
            name="breakhis", download=True, url=f"http://127.0.0.1:{server.server_port}/BreaKHis_v1.tar.gz"
        )
        outcome = prepare(config(copy, tmp_path / "cache", dataset=dataset), tmp_path / "report")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert asked[0] is None
    assert asked[1] == f"bytes={len(body) // 2}-"
    assert len(outcome.facts.records) == 12
    assert outcome.facts.root == str(tmp_path / "cache" / "breakhis" / "BreaKHis_v1")


@pytest.mark.parametrize("name", ["d4_stain", "thesis_pillow"])
def test_a_preview_shows_what_augmentation_does(cache_dir: Path, tmp_path: Path, name: str) -> None:
    from histo_lightning.inspection.preview import write_preview

    settings = {"d4_stain": {"dihedral": True, "stain_gain": 0.2}}.get(
        name, {"crop_scale": [0.2, 1.0], "horizontal_flip": True, "evaluate": "center"}
    )
    dataset = DatasetConfig(images_per_slide=1, image_size=140)
    wanted = config(
        tmp_path,
        cache_dir,
        dataset=dataset,
        magnification="40x",
        augment=AugmentConfig(name=name, **settings),
    )
    wanted.image_size = 64
    write_preview(wanted, tmp_path / "preview.png")
    sheet = np.asarray(Image.open(tmp_path / "preview.png").convert("RGB")).astype(int)
    assert sheet.shape[0] > 600
    assert sheet.shape[1] > 600
    assert (sheet.max(axis=2) - sheet.min(axis=2) > 20).mean() > 0.4  # stained tissue, not white paper
