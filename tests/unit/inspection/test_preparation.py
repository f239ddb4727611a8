"""``prepare``: what is wrong with a copy is found and listed, all others are used, and nothing is decoded twice."""

import os
import tarfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from factories.copies import draw, small_copy
from histo_lightning.config.schema import AugmentConfig, DatasetConfig, PrepareConfig, TrainerConfig
from histo_lightning.data import BreakHisDataModule
from histo_lightning.data.splits import SplitConfig
from histo_lightning.inspection.preparation import prepare
from histo_lightning.inspection.preview import write_preview


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return small_copy(tmp_path / "BreaKHis_v1")


def config(root: Path, cache: Path, **more) -> PrepareConfig:
    settings = {
        "dataset": DatasetConfig(name="breakhis", root=str(root)),
        "magnification": "all",
        "image_size": 112,
        "cache_dir": str(cache),
        "trainer": TrainerConfig(progress="none"),
    }
    return PrepareConfig(**(settings | more))


def test_runs_find_what_was_prepared(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way to split and every magnification reads the same shards; no image file is opened again."""
    cache = tmp_path / "cache"
    prepare(config(copy, cache), tmp_path / "report")
    monkeypatch.setattr(Path, "read_bytes", lambda *_: pytest.fail("opened again"))
    fingerprints = set()
    for kind, magnification in (("image_random", "40x"), ("image_random", "all")):
        data = BreakHisDataModule(
            "breakhis",
            str(copy),
            split=SplitConfig(name=kind, folds=3, group="image", seed=1),
            magnification=magnification,
            image_size=112,
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
    assert len(data) <= size  # another seed, if not
    os.utime(victim, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    stale = prepare(config(copy, cache, magnification="40x"), tmp_path / "report")
    assert stale.pixels.digests == first.pixels.digests
    mended = prepare(config(copy, cache, magnification="40x", verify="full"), tmp_path / "report")
    assert "1 images differed from their files and are mended" in caplog.text
    assert sum(a != b for a, b in zip(mended.pixels.digests, first.pixels.digests, strict=True)) == 1


def test_an_archive_is_prepared_like_the_folder_that_was_packed(copy: Path, tmp_path: Path) -> None:
    plain = prepare(config(copy, tmp_path / "c1"), tmp_path / "r1")
    archive = tmp_path / "BreaKHis_v1.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(copy, "BreaKHis_v1")
    packed = prepare(config(archive, tmp_path / "c2"), tmp_path / "r2")
    assert packed.pixels.digests == plain.pixels.digests
    assert not packed.verdict()[1]
    assert len(list((tmp_path / "c2" / "archives").rglob("*.png"))) == 12


def test_a_tree_of_foreign_names_is_prepared_as_it_is_trained_on(tmp_path: Path) -> None:
    """Names that say no magnification stay, whatever the magnification, as in training."""
    for seed, path in enumerate(product(("train", "valid", "test"), ("benign", "malignant"), "ab")):
        draw(tmp_path / "tree" / "/".join(path[:2]) / f"{'_'.join(path)}.png", seed)
    dataset = DatasetConfig(name="folders", root=str(tmp_path / "tree"))
    wanted = config(tmp_path, tmp_path / "cache", dataset=dataset, magnification="40x")
    facts = prepare(wanted, tmp_path / "report")
    assert not facts.verdict()[1]
    assert len(facts.images) == 12
    assert facts.census.startswith("folders: 12 images in train/, val/ and test/; GROUPING UNKNOWN")
    data = BreakHisDataModule(
        "folders",
        dataset.root,
        split=SplitConfig("folders"),
        image_size=112,
        short_side=128,
        cache_dir=tmp_path / "cache",
    )
    data.setup()
    assert {part: len(members.records) for part, members in data.parts.items()} == {
        "train": 4,
        "val": 4,
        "test": 4,
    }
    assert len(list((tmp_path / "cache" / "pixels").glob("[!.]*"))) == 1  # trained on what was prepared


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
        facts = prepare(config(copy, tmp_path / "cache", dataset=dataset), tmp_path / "report")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert asked[0] is None
    assert asked[1] == f"bytes={len(body) // 2}-"
    assert len(facts.images) == 12
    assert facts.root == str(tmp_path / "cache" / "breakhis" / "BreaKHis_v1")


@pytest.mark.parametrize("name", ["d4_stain", "thesis_pillow"])
def test_a_preview_shows_what_augmentation_does(cache_dir: Path, tmp_path: Path, name: str) -> None:
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
