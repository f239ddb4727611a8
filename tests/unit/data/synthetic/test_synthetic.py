"""The embedded data set: its structure, its determinism, what its pictures hold, and builds that go wrong."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from histo_lightning.data.breakhis.names import CLASSES, MAGNIFICATIONS, Name, census, parse_name
from histo_lightning.data.breakhis.records import TWIN_DROPPED, Record, breakhis_records
from histo_lightning.data.sources.folder import image_paths
from histo_lightning.data.synthetic import dataset as synthetic
from histo_lightning.data.synthetic.dataset import MARKER, ensure_synthetic
from histo_lightning.data.synthetic.tissue import malignancy_of
from histo_lightning.errors import UserError

SMALL = {"images_per_slide": 1, "image_size": 140}
COUNT = 82 * 4
DRAWN = 81  # fields at SMALL: the LC twin's is copied


def records_below(root: Path) -> list[Record]:
    return breakhis_records(image_paths(root), root)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_synthetic(tmp_path_factory.mktemp("cache"), **SMALL, threads=2)


@pytest.fixture(scope="module")
def records(root: Path) -> list[Record]:
    return records_below(root)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the renderer by a quick stand-in; lists the slides drawn."""
    slides: list[str] = []

    def draw(folder: Path, name: Name, sequence: int, image_size: int, seed: int) -> None:
        slides.append(name.slide)
        for magnification in MAGNIFICATIONS:
            Image.new("RGB", (8, 6), (len(slides), seed, 0)).save(
                folder / synthetic._path(name, magnification, sequence)
            )

    monkeypatch.setattr(synthetic, "_draw_field", draw)
    return slides


def pixels(root: Path, record: Record) -> NDArray[np.uint8]:
    return np.asarray(Image.open(root / record.path))


def files(root: Path) -> dict[str, bytes]:
    """Every image by path, as the marker lists them."""
    return {path: (root / path).read_bytes() for path in json.loads((root / MARKER).read_text())}


def leftovers(cache: Path) -> list[Path]:
    return list((cache / "synthetic").glob(".*.building"))


def test_holds_every_group_of_the_real_set_under_official_paths(root: Path, records: list[Record]) -> None:
    assert len(records) == COUNT
    assert Counter((r.slide, r.magnification) for r in records) == {
        (slide, magnification): 1 for slide in census() for magnification in MAGNIFICATIONS
    }
    assert len({r.case for r in records}) == 70
    for record in records:
        name = parse_name(record.image)
        assert name is not None
        assert record.path == f"BreaKHis_v1/{name.official_path}"
        with Image.open(root / record.path) as image:
            assert (image.size, image.mode, image.format) == ((140, 92), "RGB", "PNG")


@pytest.mark.parametrize(("width", "height"), [(350, 230), (700, 460), (141, 93)])
def test_height_keeps_the_aspect_ratio_of_breakhis(tmp_path: Path, width: int, height: int) -> None:
    name = census()["DC-14-2523"].names()[0]
    for magnification in MAGNIFICATIONS:
        (tmp_path / synthetic._path(name, magnification, 7)).parent.mkdir(parents=True)
    synthetic._draw_field(tmp_path, name, 7, width, 0)
    for magnification in MAGNIFICATIONS:
        with Image.open(tmp_path / synthetic._path(name, magnification, 7)) as image:
            assert image.size == (width, height)


def test_sequence_numbers_run_from_one(tmp_path: Path, drawn: list[str]) -> None:
    found = records_below(ensure_synthetic(tmp_path, images_per_slide=3, image_size=140, threads=1))
    assert len(found) == 3 * COUNT
    assert len(drawn) == 3 * DRAWN
    groups = Counter((r.slide, r.magnification) for r in found)
    assert set(groups.values()) == {3}
    assert {r.sequence for r in found} == {1, 2, 3}


def test_twins_are_identical_and_siblings_are_not(root: Path, records: list[Record]) -> None:
    by_group = {(r.slide, r.magnification): pixels(root, r) for r in records}
    for magnification in MAGNIFICATIONS:
        origin = by_group["DC-14-13412", magnification]
        assert np.array_equal(by_group["LC-14-13412", magnification], origin)
        assert not np.array_equal(
            by_group["F-14-14134", magnification], by_group["F-14-14134E", magnification]
        )
    copies = Counter(pixel.tobytes() for pixel in by_group.values())
    assert sorted(copies.values())[-5:] == [1, 2, 2, 2, 2]  # no other picture stands twice


def test_another_seed_draws_other_pictures(tmp_path: Path, root: Path, records: list[Record]) -> None:
    record = next(r for r in records if r.slide == "MC-14-18842D")
    name = parse_name(record.image)
    assert name is not None
    for seed in (0, 1):
        for magnification in MAGNIFICATIONS:
            (tmp_path / str(seed) / synthetic._path(name, magnification, 1)).parent.mkdir(parents=True)
        synthetic._draw_field(tmp_path / str(seed), name, 1, 140, seed)
    same, other = (pixels(tmp_path / str(seed), record).astype(float) for seed in (0, 1))
    assert np.array_equal(same, pixels(root, record))
    assert np.abs(other - same).mean() > 10


def test_magnifications_are_nested_views_of_one_tissue(root: Path, records: list[Record]) -> None:
    slides = [slide for slide in census() if slide != TWIN_DROPPED][::5]
    green = {(r.slide, r.magnification): pixels(root, r)[..., 1] for r in records if r.slide in slides}
    for wide, near, ratio in ((40, 100, 0.20 / 0.49), (100, 200, 0.5), (200, 400, 0.5)):
        width, height = round(140 * ratio), round(92 * ratio)
        left, top = round((140 - width) / 2), round((92 - height) / 2)
        centres = [green[s, wide][top : top + height, left : left + width].ravel() for s in slides]
        shrunk = [
            np.asarray(Image.fromarray(green[s, near]).resize((width, height), Image.Resampling.BOX)).ravel()
            for s in slides
        ]
        table = np.corrcoef(np.stack(centres), np.stack(shrunk))[: len(slides), len(slides) :]
        own, others = np.diag(table), table[~np.eye(len(slides), dtype=bool)]
        assert np.median(own) > 0.65, (wide, near)  # the crop is half a pixel off
        assert np.mean(own == table.max(axis=1)) > 0.9
        assert abs(others.mean()) < 0.15


def test_a_case_has_its_own_stain(root: Path, records: list[Record]) -> None:
    """By case, not by class: siblings of two subtypes agree, and mean colour hardly tells the class."""
    low = [r for r in records if r.magnification == 40 and r.slide != TWIN_DROPPED]
    colour = {r.slide: np.median(pixels(root, r).reshape(-1, 3), axis=0) for r in low}
    siblings = [(a, b) for a in low for b in low if a.case == b.case and a.slide < b.slide]
    strangers = [(a, b) for a in low for b in low if a.case < b.case]
    assert len(siblings) >= 12

    def spread(pairs: list[tuple[Record, Record]]) -> float:
        return float(np.mean([np.sum((colour[a.slide] - colour[b.slide]) ** 2) for a, b in pairs]))

    assert spread(strangers) > 3 * spread(siblings)
    means = {
        name: np.mean([colour[r.slide] for r in low if r.class_name == name], axis=0) for name in CLASSES
    }
    deviation = np.std(list(colour.values()), axis=0)
    assert np.all(np.abs(means["malignant"] - means["benign"]) < deviation)


@pytest.mark.parametrize("seed", [0, 5])
def test_malignancy_tells_the_classes_apart_but_not_by_every_case(seed: int) -> None:
    values: dict[str, dict[str, list[float]]] = {"benign": {}, "malignant": {}}
    for slide in census().values():
        name = slide.names()[0]
        values[name.class_name].setdefault(name.case, []).extend(
            malignancy_of(seed, name, sequence) for sequence in range(1, 5)
        )
    benign, malignant = (np.array([np.mean(v) for v in values[c].values()]) for c in values)
    rate = np.mean(malignant[:, None] > benign)  # AUROC by case
    assert 0.9 < rate < 1
    within = np.mean([np.var(v) for by_case in values.values() for v in by_case.values()])
    assert np.var(benign) > 2 * within
    assert np.var(malignant) > 2 * within


def test_a_killed_build_leaves_nothing_that_looks_whole(tmp_path: Path, root: Path) -> None:
    """Then one thread draws what two drew for the other copy, to the byte."""
    code = (
        "from pathlib import Path; from histo_lightning.data.synthetic.dataset import ensure_synthetic; "
        f"ensure_synthetic(Path({str(tmp_path)!r}), images_per_slide=1, image_size=140, threads=2)"
    )
    builder = subprocess.Popen([sys.executable, "-c", code])

    def count() -> int:
        return len(list(tmp_path.rglob("*.png")))

    deadline = time.monotonic() + 60
    while count() < 8 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(builder.pid, signal.SIGKILL)
    builder.wait()
    assert 8 <= count() < COUNT
    assert not (tmp_path / "synthetic" / root.name).exists()
    assert len(leftovers(tmp_path)) == 1
    assert files(ensure_synthetic(tmp_path, **SMALL, threads=1)) == files(root)
    assert not leftovers(tmp_path)


def test_two_processes_at_once_draw_it_once(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from PIL import Image
from histo_lightning.data.synthetic import dataset as synthetic

def draw(folder, name, sequence, image_size, seed):
    time.sleep(0.01)
    with Path({str(tmp_path / "log")!r}).open("a") as log:
        log.write(name.slide + chr(10))
    for magnification in synthetic.MAGNIFICATIONS:
        Image.new("RGB", (8, 6)).save(folder / synthetic._path(name, magnification, sequence))

synthetic._draw_field = draw
print(synthetic.ensure_synthetic(Path({str(tmp_path)!r}), images_per_slide=1, threads=1))
"""
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    answers = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert answers[0] == answers[1] != ""
    assert len((tmp_path / "log").read_text().split()) == DRAWN


def _lose(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _add(path: Path) -> None:
    path.with_name("SOB_B_A-14-22549AB-40-099.png").write_bytes(path.read_bytes())


@pytest.mark.parametrize("damage", [_lose, _truncate, _add])
def test_a_damaged_copy_is_drawn_again(
    tmp_path: Path, drawn: list[str], damage: Callable[[Path], None]
) -> None:
    root = ensure_synthetic(tmp_path, **SMALL, threads=1)
    before = files(root)
    assert ensure_synthetic(tmp_path, **SMALL, threads=1) == root
    assert len(drawn) == DRAWN  # whole: not drawn again
    drawn.clear()
    damage(root / next(iter(before)))
    assert ensure_synthetic(tmp_path, **SMALL, threads=1) == root
    assert len(drawn) == DRAWN
    assert files(root) == before
    assert len(records_below(root)) == COUNT


@pytest.mark.parametrize("text", [None, "", "[]", "328", '{"a": 1}'])
def test_a_damaged_marker_is_noticed(tmp_path: Path, drawn: list[str], text: str | None) -> None:
    marker = ensure_synthetic(tmp_path, **SMALL, threads=1) / MARKER
    drawn.clear()
    marker.unlink()
    if text is not None:
        marker.write_text(text, encoding="utf-8")
    ensure_synthetic(tmp_path, **SMALL, threads=1)
    assert len(drawn) == DRAWN


def test_arguments_have_folders_of_their_own(tmp_path: Path, drawn: list[str]) -> None:
    roots = {
        ensure_synthetic(tmp_path, images_per_slide=n, image_size=size, seed=seed, threads=1)
        for n, size, seed in ((1, 140, 0), (2, 140, 0), (1, 141, 0), (1, 140, 1))
    }
    assert len(roots) == 4
    assert len(drawn) == 5 * DRAWN


def test_progress_runs_to_the_number_of_images(tmp_path: Path, drawn: list[str]) -> None:
    seen: list[tuple[int, int]] = []
    ensure_synthetic(tmp_path, **SMALL, threads=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {COUNT}
    assert seen[0][0] == 4
    assert seen[-1][0] == COUNT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images_per_slide": 0}, "dataset.images_per_slide=0: allowed is a number from 1 to 60"),
        ({"images_per_slide": 61}, "dataset.images_per_slide=61: allowed is a number from 1 to 60"),
        ({"image_size": 139}, "dataset.image_size=139: allowed is a number from 140 to 1400"),
        ({"image_size": 1401}, "dataset.image_size=1401: allowed is a number from 140 to 1400"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ensure_synthetic(tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


def test_a_cache_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError, match=r"file/synthetic: .* cannot be drawn \(Not a directory\); .*cache_dir"
    ):
        ensure_synthetic(tmp_path / "file", **SMALL)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(synthetic, "_draw_field", full)
    with pytest.raises(UserError, match=r"\(No space left on device\); free space"):
        ensure_synthetic(tmp_path, **SMALL, threads=1)
    assert not list((tmp_path / "synthetic").glob("*/"))
    assert not leftovers(tmp_path)


def test_drawing_needs_no_torch() -> None:
    code = "import sys, histo_lightning.data.synthetic.dataset; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
