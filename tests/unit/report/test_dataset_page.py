"""The data set's report and tables, with planted problems and hostile names."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factories.html import Page
from histo_lightning.data.breakhis.names import census_names, parse_name
from histo_lightning.data.breakhis.problems import Problem, inspect_names
from histo_lightning.data.breakhis.records import Record, record_of
from histo_lightning.data.pixels.duplicates import Pair
from histo_lightning.data.pixels.stains import COLUMNS, measure_stains
from histo_lightning.errors import UserError
from histo_lightning.report.dataset_page import (
    IMAGE_COLUMNS,
    PROBLEM_COLUMNS,
    DatasetFacts,
    image_table,
    write_dataset_report,
)
from histo_lightning.runs import unquote_cell

HOSTILE = '=HYPERLINK("x"),<script>alert(1)\r.png'
CENSUS = "census: partial copy, 9 of the 7,909 BreakHis images are here"


def names() -> list[str]:
    """Two images of each of six slides at 40X and 200X."""
    slides = ("A-14-22549AB", "F-14-25197", "TA-14-16184", "DC-14-2523", "LC-14-12204", "PC-14-9146")
    every = sorted(census_names())
    chosen = []
    for slide in slides:
        for magnification in (40, 200):
            chosen += [i for i in every if f"_{slide}-{magnification}-" in i][:2]
    return chosen


@pytest.fixture(scope="module")
def facts() -> DatasetFacts:
    images = names()
    assert len(images) == 24
    paths = [f"SOB/{'100X/' if i == 4 else ''}{image}" for i, image in enumerate(images)]
    paths += [f"copy/{images[0]}", f"benign/{HOSTILE}"]
    records = [record_of(path, "benign") for path in paths]
    assert all(record is not None for record in records)
    pixels = np.random.default_rng(0).integers(60, 255, (len(paths), 46, 70, 3), dtype=np.uint8)
    stains = measure_stains(lambda rows: pixels[rows], len(paths))
    stains[7] = np.nan
    states = ["ok"] * len(paths)
    states[7] = "image file is truncated"

    class Stored:
        def take(self, rows):
            assert 7 not in rows.tolist()
            return pixels[rows]

    problems = [Problem("unreadable", images[7], paths[7], states[7]), *inspect_names(paths)]
    return DatasetFacts(
        name="breakhis",
        root="/data/<b>copy</b>",
        census=CENSUS,
        images=image_table(
            [record for record in records if record is not None],
            [(0, 0) if i == 7 else (700, 456 if i == 3 else 460) for i in range(len(paths))],
            [1000 + i for i in range(len(paths))],
            ["" if i == 7 else f"{i:064x}" for i in range(len(paths))],
            states,
            stains,
        ),
        problems=problems,
        identical=[(images[0], images[8]), (images[12], images[13])],
        pairs=[
            Pair(images[0], images[12], 3, 0.97, "mirrored and turned by 90°"),
            Pair(images[0], images[14], 9, 0.81, "as it is"),
            Pair(images[1], images[13], 21, 0.05, "turned by 180°"),
        ],
        pixels=Stored(),
    )


@pytest.fixture(scope="module")
def written(facts: DatasetFacts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datasets") / "breakhis"
    assert write_dataset_report(folder, facts) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def html(written: Path) -> str:
    return (written / "report.html").read_text(encoding="utf-8")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [{k: unquote_cell(v) for k, v in row.items()} for row in csv.DictReader(file)]


def test_the_folder_holds_the_three_files_and_nothing_else(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == ["images.csv", "problems.csv", "report.html"]


def test_the_page_is_whole_and_loads_nothing(html: str) -> None:
    page = Page(html)
    assert page.is_self_contained()
    assert page.images
    assert "default-src 'none'" in html
    assert len(html) < 5e6
    assert {"images.csv", "problems.csv"} <= set(page.links)


def test_hostile_names_are_shown_as_text(html: str) -> None:
    text = Page(html).text
    assert "<script>alert(1)" in text
    assert "/data/<b>copy</b>" in text


def test_the_verdict_says_what_was_found(html: str, facts: DatasetFacts) -> None:
    said, refused = facts.verdict()
    assert refused
    assert said.startswith("Partial copy, 9 of the 7,909")
    for part in ("unreadable (1)", "outside grammar (1)", "duplicate name (1)", "wrong folder (1)"):
        assert part in said
    assert f"missing ({7909 - 24:,})" in said
    assert "look like copies: 2." in said
    assert said in Page(html).text
    assert Page(html).labels == ["training refuses this copy"]


def test_a_clean_copy_is_called_so(facts: DatasetFacts, tmp_path: Path) -> None:
    clean = replace(facts, census="census: complete copy", problems=[], pairs=[], identical=[])
    text = Page(write_dataset_report(tmp_path, clean).read_text(encoding="utf-8")).text
    assert clean.verdict() == ("Complete copy. No problem was found in it.", False)
    assert "training refuses this copy" not in text
    assert "No two images have the same pixels." in text
    assert (tmp_path / "problems.csv").read_text(encoding="utf-8") == ",".join(PROBLEM_COLUMNS) + "\n"


def test_missing_images_alone_do_not_stop_training(facts: DatasetFacts) -> None:
    partial = replace(facts, problems=[p for p in facts.problems if p.kind in ("missing", "wrong folder")])
    said, refused = partial.verdict()
    assert not refused
    assert "missing (7,885)" in said


def test_images_csv_comes_back(written: Path, facts: DatasetFacts) -> None:
    rows = read_csv(written / "images.csv")
    assert tuple(rows[0]) == IMAGE_COLUMNS
    assert [row["image"] for row in rows] == facts.images.image.tolist()
    assert [row["path"] for row in rows] == facts.images.path.tolist()
    name = parse_name(rows[5]["image"])
    assert name is not None
    told = (
        rows[5]["class"],
        rows[5]["slide"],
        rows[5]["case"],
        rows[5]["magnification"],
        rows[5]["sequence"],
    )
    assert told == (name.class_name, name.slide, name.case, str(name.magnification), str(name.sequence))
    assert (rows[3]["width"], rows[3]["height"], rows[3]["bytes"]) == ("700", "456", "1003")
    assert rows[5]["pixel_sha256"] == f"{5:064x}"
    for column in COLUMNS:
        assert float(rows[5][column]) == pytest.approx(facts.images.at[5, column], rel=1e-5)
        assert rows[7][column] == ""
    assert (rows[7]["state"], rows[7]["width"]) == ("image file is truncated", "")
    assert (rows[-1]["case"], rows[-1]["magnification"]) == ("", "")


def test_negative_numbers_stay_numbers(facts: DatasetFacts, tmp_path: Path) -> None:
    negative = facts.images.assign(**dict.fromkeys(COLUMNS, -0.25))
    write_dataset_report(tmp_path, replace(facts, images=negative))
    with (tmp_path / "images.csv").open(newline="", encoding="utf-8") as file:
        assert {row["eosin"] for row in csv.DictReader(file)} == {"-0.25"}


def test_problems_csv_holds_all_and_runs_no_formula(written: Path, facts: DatasetFacts) -> None:
    rows = read_csv(written / "problems.csv")
    expected = [
        dict(zip(PROBLEM_COLUMNS, (p.kind, p.image, p.path, p.detail), strict=True)) for p in facts.problems
    ]
    assert rows == expected
    assert len(rows) > 7885
    for file in ("problems.csv", "images.csv"):
        with (written / file).open(newline="", encoding="utf-8") as text:
            for row in csv.DictReader(text):
                assert not row["image"].startswith("=")
        assert "\"'=HYPERLINK(" in (written / file).read_text(encoding="utf-8")


def test_counts_of_the_tables(html: str) -> None:
    page = Page(html)
    assert page.row("benign") == ["7", "0", "6", "0", "13"]  # one 40X image is there twice
    assert page.row("malignant") == ["6", "0", "6", "0", "12"]
    assert page.row("all") == ["13", "0", "12", "0", "25"]
    assert page.row("A adenosis") == ["3", "0", "2", "0", "5"]
    assert page.row("PT phyllodes tumor") == ["0", "0", "0", "0", "0"]
    assert page.row("benign", 1) == ["3", "3", "13", "14-22549 (5)"]
    assert page.row("700 × 460") == ["24"]
    assert page.row("700 × 456") == ["1"]
    assert page.row("unreadable") == ["1"]
    assert page.row("14-22549") == ["benign", "A-14-22549AB", "3", "0", "2", "0", "5"]
    assert "Not counted here, since their names say no magnification: 1." in page.text


def test_stains_are_means_over_readable_images(html: str, facts: DatasetFacts) -> None:
    own = facts.images[(facts.images.subtype == "F") & (facts.images.state == "ok")]
    mean = own[list(COLUMNS)].mean().tolist()
    count, colour, *amounts = Page(html).row("F")
    assert count == str(len(own))
    assert colour == " / ".join(f"{value:.0f}" for value in mean[:3])
    assert amounts == [f"{mean[3]:.3f}", f"{mean[4]:.3f}", f"{100 * mean[5]:.0f} %"]


def test_only_some_of_many_problems_are_on_the_page(html: str) -> None:
    assert f"{7909 - 24 - 50:,} more in problems.csv." in html
    missing = sorted(census_names() - set(names()))
    text = Page(html).text
    assert missing[49] in text
    assert missing[50] not in text


def test_pairs_and_mosaic_are_drawn(html: str, facts: DatasetFacts) -> None:
    page = Page(html)
    mosaic = 12  # six subtypes at two magnifications
    assert len(page.alts) == mosaic + 2 * len(facts.pairs)
    assert page.alts[-6:] == [image for pair in facts.pairs for image in (pair.first, pair.second)]
    assert page.text.count("suspicious :") == 2
    assert "correlation 0.97, 3 of 64 bits differ; second mirrored and turned by 90°" in page.text
    assert "of them in more than one case: 1." in page.text
    first, second = (
        np.asarray(Image.open(io.BytesIO(data)).convert("L"), float) for data in page.images[-2:]
    )
    row = {image: i for i, image in reversed(list(enumerate(facts.images.image)))}
    squares = [
        facts.pixels.take(np.array([row[name]]))[0][:, 12:58] for name in page.alts[-2:]
    ]  # 46 x 70 pixels
    whole = [np.asarray(Image.fromarray(square).convert("L"), float) for square in squares]
    assert np.abs(first - whole[0]).mean() < 10
    assert np.abs(second - np.rot90(whole[1], 2)).mean() < 10
    assert np.abs(second - whole[1]).mean() > 20


def test_a_set_without_cases_has_a_report(facts: DatasetFacts, tmp_path: Path) -> None:
    records = [Record(f"{i}.png", f"train/benign/{i}.png", "benign") for i in range(26)]
    rest = (facts.images[name].tolist() for name in ("bytes", "pixel_sha256", "state"))
    sizes = facts.images[["width", "height"]].to_numpy().tolist()
    images = image_table(records, sizes, *rest, facts.images[list(COLUMNS)].to_numpy())
    bare = replace(facts, name="folders", images=images, problems=[], pairs=[], identical=[])
    text = Page(write_dataset_report(tmp_path, bare).read_text(encoding="utf-8")).text
    assert "names say no magnification: 26" in text
    assert "Near-duplicates were not looked for" in text


def test_an_empty_set_has_a_report(facts: DatasetFacts, tmp_path: Path) -> None:
    nothing = replace(
        facts,
        images=image_table([], [], [], [], [], np.empty((0, len(COLUMNS)))),
        pairs=[],
        identical=[],
        problems=inspect_names([]),
    )
    assert "missing: 7,909" in Page(write_dataset_report(tmp_path, nothing).read_text(encoding="utf-8")).text


def test_file_names_that_are_no_text(facts: DatasetFacts, tmp_path: Path) -> None:
    broken = [Problem("outside grammar", "\udcff.png", "a/\udcff.png", "not named as in BreakHis")]
    write_dataset_report(tmp_path, replace(facts, problems=broken))
    assert b"\xff.png" in (tmp_path / "problems.csv").read_bytes()
    assert "?.png" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_written(facts: DatasetFacts, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_dataset_report(tmp_path / "file" / "breakhis", facts)
