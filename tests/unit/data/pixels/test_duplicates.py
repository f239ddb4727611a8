"""Copies across cases: planted ones come first, untouched sets show none. And the stain statistics."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from histo_lightning.data.perceptual import (
    ORIENTATIONS,
    area_matrix,
    best_correlation,
    hashes,
    orient,
    scaled,
    window_hashes,
)
from histo_lightning.data.window_search import least_distances, scale_pairs
from numpy.typing import NDArray
from PIL import Image

from histo_lightning.data.breakhis.records import Record, record_of
from histo_lightning.data.pixels.duplicates import SUSPICIOUS, identical_pixels, nearest_pairs
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
    assert len(pairs) > 100
    assert not any(pair.suspicious for pair in pairs)
    assert all(case[pair.first] != case[pair.second] for pair in pairs)
    assert [pair.correlation for pair in pairs] == sorted((p.correlation for p in pairs), reverse=True)
    assert any(pair.window is None for pair in pairs)
    assert any(pair.window is not None for pair in pairs)
    assert steps == [(i, len(steps)) for i in range(1, len(steps) + 1)]


@pytest.mark.parametrize("orientation", range(8))
def test_a_planted_copy_ranks_first_in_every_orientation(drawn, orientation: int) -> None:
    pixels, records = drawn
    rows = rows_of(records, 100)[:30]
    pixels, records = pixels[rows].copy(), [records[row] for row in rows]
    copied = np.asarray(Image.fromarray(pixels[3]).resize((175, 175)))  # square, so that every turn fits
    pixels = np.stack([np.asarray(Image.fromarray(p).resize((175, 175))) for p in pixels])
    # orient() turns what it is given; the copy is turned back by it.
    turned = np.stack(
        [orient(copied[..., c].astype(np.float32), orientation) for c in range(3)], axis=-1
    ).astype(np.uint8)
    pixels[17] = turned
    best = nearest_pairs(source(pixels), records)[0]
    assert {best.first, best.second} == {records[3].image, records[17].image}
    assert best.suspicious
    assert best.distance == 0
    assert best.correlation > 0.99
    second = orient(turned[..., 1].astype(np.float32), ORIENTATIONS.index(best.orientation))
    assert np.array_equal(second, copied[..., 1])


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
    assert best.window is None


def test_a_field_of_a_higher_magnification_is_found_in_a_lower_one(drawn) -> None:
    pixels, records = drawn
    rows = rows_of(records, 100)[:40] + rows_of(records, 200)[:40]
    pixels, records = pixels[rows].copy(), [records[row] for row in rows]
    # A window of half the size of a 100X field, turned, is what 200X shows of it.
    left, top, width, height = 61, 33, 88, 58
    crop = Image.fromarray(pixels[7]).crop((left, top, left + width, top + height))
    crop = crop.resize((175, 115), Image.Resampling.BICUBIC).transpose(Image.Transpose.ROTATE_180)
    pixels[40 + 21] = np.asarray(crop)
    best = nearest_pairs(source(pixels), records)[0]
    assert (best.first, best.second) == (records[7].image, records[61].image)
    assert best.suspicious
    assert best.orientation == "turned by 180°"
    assert best.window is not None
    centre = (best.window[0] + best.window[2] / 2, best.window[1] + best.window[3] / 2)
    assert centre == pytest.approx((left + width / 2, top + height / 2), abs=4)
    assert best.window[2] == best.window[3] == pytest.approx(115 / 2, abs=1)


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


def test_windows_that_would_be_too_small_are_left_out() -> None:
    assert [pair[:2] for pair in scale_pairs(256)] == [
        (40, 100),
        (40, 200),
        (100, 200),
        (100, 400),
        (200, 400),
    ]
    assert (40, 400) in [pair[:2] for pair in scale_pairs(460)]
    assert scale_pairs(60) == []
    assert {pair[:2]: round(pair[2], 2) for pair in scale_pairs(256)}[40, 100] == 2.45


def test_least_distances_against_counting_bit_by_bit() -> None:
    rng = np.random.default_rng(0)
    windows, queries = (rng.integers(0, 2**64, n, dtype=np.uint64) for n in (21, 9000))
    found = least_distances(windows, queries)
    for place in (0, 1, 8191, 8192, 8999):
        assert found[place] == min((int(queries[place]) ^ int(w)).bit_count() for w in windows)


def test_windows_hash_as_thumbnails_do() -> None:
    rng = np.random.default_rng(1)
    field = rng.random((50, 61), dtype=np.float32) * 255
    grid = window_hashes(field, 3)
    assert grid.shape == (7, 10)
    for row, column in ((0, 0), (2, 5), (6, 9)):
        cut = field[3 * row : 3 * row + 32, 3 * column : 3 * column + 32]
        assert int(grid[row, column] ^ hashes(cut)).bit_count() <= 1  # of rounding
    assert int(grid[0, 0] ^ grid[6, 9]).bit_count() > 8


def test_area_averages() -> None:
    assert area_matrix(4, 0, 4, 2) == pytest.approx(np.array([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]))
    assert area_matrix(3, 0, 3, 2) == pytest.approx(np.array([[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]]))
    assert area_matrix(4, 0.5, 3.5, 1) == pytest.approx(np.array([[1 / 6, 1 / 3, 1 / 3, 1 / 6]]))
    assert scaled(np.ones((1, 256, 390), np.float32), 2.45).shape == (1, 78, 119)


def test_best_correlation_finds_the_place() -> None:
    patch = np.random.default_rng(2).random((40, 44), dtype=np.float32)
    correlation, row, column = best_correlation(3 * patch[5:37, 9:41] + 7, patch)
    assert (row, column) == (5, 9)
    assert correlation > 0.9
    assert best_correlation(patch[:32, :32], np.ones((36, 36), np.float32))[0] == 0


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
