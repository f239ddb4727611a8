"""Copies across cases: planted ones come first, untouched sets show none. And the stain statistics."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from histo_lightning.data.breakhis.records import Record, record_of
from histo_lightning.data.pixels.duplicates import (
    ORIENTATIONS,
    SUSPICIOUS,
    best_correlation,
    identical_pixels,
    nearest_pairs,
    orient,
)
from histo_lightning.data.pixels.stains import COLUMNS, HED, measure_stains, stain_statistics
from histo_lightning.data.synthetic.dataset import ensure_synthetic

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="session")
def drawn(cache_dir: Path) -> tuple[Pixels, list[Record]]:
    """The synthetic set, an image for each slide and magnification: pixels 328 x 115 x 175 x 3, and records."""
    root = ensure_synthetic(cache_dir, images_per_slide=1, image_size=175)
    paths = sorted(root.rglob("*.png"), key=lambda path: path.name)
    records = [record for path in paths if (record := record_of(path.name)) is not None]
    return np.stack([np.asarray(Image.open(path)) for path in paths]), records


def source(pixels: Pixels) -> Callable[[NDArray[np.int64]], Pixels]:
    return lambda rows: pixels[rows]


def rows_of(records: list[Record], magnification: int) -> list[int]:
    """Rows of one image a case."""
    first: dict[str, int] = {}
    for row, record in enumerate(records):
        if record.magnification == magnification:
            first.setdefault(record.case, row)
    return list(first.values())


def test_an_untouched_set_shows_no_suspicious_pair(drawn) -> None:
    pixels, records = drawn
    steps: list[tuple[int, int]] = []
    pairs = nearest_pairs(source(pixels), records, progress=lambda done, of: steps.append((done, of)))
    case = {record.image: record.case for record in records}
    assert len(pairs) == 4 * 20
    assert not any(pair.suspicious for pair in pairs)
    assert all(case[pair.first] != case[pair.second] for pair in pairs)
    assert [pair.correlation for pair in pairs] == sorted((p.correlation for p in pairs), reverse=True)
    assert steps == sorted(steps)
    assert steps[-1] == (len(records), len(records))


@pytest.mark.parametrize("orientation", range(8))
def test_a_planted_copy_ranks_first_in_every_orientation(drawn, orientation: int) -> None:
    pixels, records = drawn
    rows = rows_of(records, 100)[:30]
    pixels, records = pixels[rows].copy(), [records[row] for row in rows]
    copied = np.asarray(Image.fromarray(pixels[3]).resize((175, 175)))  # square, so that every turn fits
    pixels = np.stack([np.asarray(Image.fromarray(p).resize((175, 175))) for p in pixels])
    # orient() turns what it is given; the copy is turned back by it.
    turned = np.asarray(orient(copied, orientation))
    pixels[17] = turned
    best = nearest_pairs(source(pixels), records)[0]
    assert {best.first, best.second} == {records[3].image, records[17].image}
    assert best.suspicious
    assert best.distance <= 4  # of rounding to whole greys
    assert best.correlation > 0.99
    assert np.array_equal(orient(turned, ORIENTATIONS.index(best.orientation)), copied)


def jpeg(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=50)
    return Image.open(buffer).convert("RGB")


def shifted(picture: Image.Image) -> Image.Image:
    shift = 10 * picture.width / 700
    return picture.transform(
        picture.size, Image.Transform.AFFINE, (1, 0, shift, 0, 1, 0), Image.Resampling.BILINEAR
    )


@pytest.mark.parametrize(
    "change", [jpeg, shifted, lambda p: p.point(lambda v: min(255, v * 1.1))], ids=["jpeg", "shift", "bright"]
)
def test_a_changed_copy_ranks_first(drawn, change) -> None:
    pixels, records = drawn
    rows = rows_of(records, 200)
    pixels, records = pixels[rows].copy(), [records[row] for row in rows]
    copied = change(Image.fromarray(pixels[5]).transpose(Image.Transpose.ROTATE_180))
    pixels[40] = np.asarray(copied)
    best = nearest_pairs(source(pixels), records)[0]
    assert {best.first, best.second} == {records[5].image, records[40].image}
    assert best.suspicious
    assert best.orientation in ("turned by 180°",)


def test_copies_within_a_case_are_no_pair(drawn) -> None:
    pixels, records = drawn
    rows = rows_of(records, 40)[:10]
    pixels, records = pixels[rows].copy(), [records[row] for row in rows]
    pixels[1] = pixels[0]
    records[1] = replace(records[1], case=records[0].case)
    pairs = nearest_pairs(source(pixels), records)
    assert len(pairs) == 20  # of 44
    assert all({p.first, p.second} != {records[0].image, records[1].image} for p in pairs)
    assert len(nearest_pairs(source(pixels), records, count=100)) == 44
    nameless = [replace(record, case="") for record in records]
    assert nearest_pairs(source(pixels), nameless) == []


def test_blank_fields_are_not_called_copies(drawn) -> None:
    pixels, records = drawn
    rows = rows_of(records, 40)[:6]
    blank = np.full_like(pixels[rows], 240)
    pairs = nearest_pairs(source(blank), [records[row] for row in rows])
    assert len(pairs) == 15
    assert all(pair.correlation == 0 < SUSPICIOUS for pair in pairs)


def test_best_correlation_bears_small_shifts_and_changes_of_brightness() -> None:
    field = np.random.default_rng(2).random((68, 68))
    square = field[2:66, 2:66]
    for down in range(-2, 3):
        shifted = field[2 + down : 66 + down, 4:68]
        assert best_correlation(square, 3 * shifted + 7) > 0.9
    assert best_correlation(square, np.roll(square, (20, 20), (0, 1))) < 0.2
    assert best_correlation(square, np.ones((64, 64))) == best_correlation(np.ones((64, 64)), square) == 0


def test_identical_pixels() -> None:
    images, digests = ["d", "b", "c", "a", "e", "f"], ["1", "2", "1", "2", "", ""]
    assert identical_pixels(images, digests) == [("a", "b"), ("c", "d")]
    assert identical_pixels(["a"], ["1"]) == []
    with pytest.raises(ValueError):
        identical_pixels(["a", "b"], ["1"])


def test_stain_statistics_by_hand() -> None:
    pixels = np.array([[[[200, 100, 150], [190, 190, 190]], [[0, 10, 20], [180, 180, 180]]]], dtype=np.uint8)
    basis = [np.array(vector) / np.sqrt(sum(x * x for x in vector)) for vector in HED]
    amounts = []
    dense = 0
    for colour in pixels.reshape(-1, 3):
        density = [-np.log10(max(int(value), 1) / 255) for value in colour]
        dense += sum(density) / 3 > 0.15
        amounts.append(np.linalg.solve(np.array(basis).T, density))
    found = dict(zip(COLUMNS, stain_statistics(pixels)[0], strict=True))
    assert found["red"] == (200 + 190 + 0 + 180) / 4
    assert found["blue"] == (150 + 190 + 20 + 180) / 4
    assert found["haematoxylin"] == pytest.approx(np.mean(amounts, axis=0)[0], abs=1e-5)
    assert found["eosin"] == pytest.approx(np.mean(amounts, axis=0)[1], abs=1e-5)
    assert found["tissue"] == dense / 4 == 0.75


def test_stains_read_in_chunks_are_the_same() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (70, 8, 9, 3), dtype=np.uint8)
    sizes: list[int] = []

    def read(rows: NDArray[np.int64]) -> Pixels:
        sizes.append(len(rows))
        return pixels[rows]

    found = measure_stains(read, 70)
    assert found.shape == (70, len(COLUMNS))
    assert found.dtype == np.float64
    assert np.array_equal(found, stain_statistics(pixels))
    assert max(sizes) <= 32


def test_real_images(real_root: Path) -> None:
    paths = sorted(real_root.rglob("*-100-*.png"), key=lambda path: path.name)[::4]
    records = [record for path in paths if (record := record_of(path.name)) is not None]
    pixels = np.stack([np.asarray(Image.open(path).resize((390, 256))) for path in paths])
    assert not any(pair.suspicious for pair in nearest_pairs(source(pixels), records))
    copy = next(row for row, record in enumerate(records) if record.case != records[0].case)
    pixels[copy] = np.asarray(shifted(jpeg(Image.fromarray(pixels[0, :, ::-1]))))
    best = nearest_pairs(source(pixels), records)[0]
    assert {best.first, best.second} == {records[0].image, records[copy].image}
    assert best.suspicious
    assert best.orientation == "mirrored"
