"""The file-name grammar, the census, and records from every layout."""

import csv
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histo_lightning.data.breakhis.names import (
    MAGNIFICATIONS,
    OFFICIAL_FOLDS,
    SUBTYPE_CLASS,
    SUBTYPES,
    Name,
    census,
    census_names,
    parse_name,
)
from histo_lightning.data.breakhis.records import (
    breakhis_records,
    census_message,
    folder_records,
    part_of,
    record_of,
)
from histo_lightning.data.sources.folder import image_paths
from histo_lightning.errors import UserError

ROOT = Path(__file__).resolve().parents[4]

subtypes = "|".join(SUBTYPES)
names = st.builds(
    Name,
    slide=st.from_regex(rf"({subtypes})-[0-9]{{2}}-[0-9]{{1,6}}[A-Z]{{0,3}}", fullmatch=True),
    magnification=st.sampled_from(MAGNIFICATIONS),
    sequence=st.integers(0, 999),
)


@given(names)
def test_a_name_survives_writing_and_reading(name: Name) -> None:
    assert parse_name(name.file_name) == name
    assert name.official_path.endswith("/" + name.file_name)
    record = record_of("anywhere/" + name.file_name)
    assert record is not None
    assert (record.slide, record.case) == (name.slide, name.case)
    assert record.class_name == SUBTYPE_CLASS[name.subtype]
    assert re.fullmatch(rf"{name.subtype}-{name.case}[A-Z]*", name.slide)


@given(names, st.data())
def test_one_changed_sign_is_never_read_as_the_same_name(name: Name, data: st.DataObject) -> None:
    text = name.file_name
    at = data.draw(st.integers(0, len(text) - 1))
    sign = data.draw(st.characters(exclude_characters=text[at], codec="utf-8"))
    changed = parse_name(text[:at] + sign + text[at + 1 :])
    assert changed is None or changed != name


@given(st.text())
def test_reading_never_raises(text: str) -> None:
    name = parse_name(text)
    assert name is None or name.file_name == text


@pytest.mark.parametrize(
    "text",
    [
        "SOB_M_A-14-22549AB-40-001.png",  # adenosis is benign
        "SOB_B_TA_14-16184CD-40-001.png",  # the folder's spelling
        "SOB_B_TA-14-16184CD-50-001.png",
        "SOB_B_TA-14-16184CD-40-001.png ",
        "SOB_B_TA-14-16184CD-40-001.png\n",
        "SOB_B_TA-14-16184CD-40-001.PNG",
        "SOB_B_TA-14-16184CD-40-١٢٣.png",  # Arabic digits are digits for \d
        "SOB_B_TA-14-16184CD-40-01.png",
    ],
)
def test_names_outside_the_grammar(text: str) -> None:
    assert parse_name(text) is None


def test_slide_and_case_of_known_names() -> None:
    name = parse_name("SOB_B_TA-14-16184CD-40-001.png")
    assert name is not None
    assert (name.slide, name.case, name.class_name) == ("TA-14-16184CD", "14-16184", "benign")
    fifteen = parse_name("SOB_M_PC-15-190EF-100-007.png")
    assert fifteen is not None
    assert (fifteen.slide, fifteen.case) == ("PC-15-190EF", "15-190")


def test_the_census_holds_the_published_counts(census_records) -> None:
    assert len(census()) == 82
    assert len(census_names()) == len(census_records) == 7909
    assert len({r.case for r in census_records}) == 70
    counts = Counter((r.class_name, r.magnification) for r in census_records)
    assert [counts["benign", m] for m in MAGNIFICATIONS] == [625, 644, 623, 588]
    assert [counts["malignant", m] for m in MAGNIFICATIONS] == [1370, 1437, 1390, 1232]
    by_subtype = Counter(r.subtype for r in census_records)
    assert [by_subtype[s] for s in SUBTYPES] == [444, 1014, 453, 569, 3451, 626, 792, 560]
    assert Counter(s.split("-")[0] for s in census()) == {
        "A": 4, "F": 10, "PT": 3, "TA": 7, "DC": 38, "LC": 5, "MC": 9, "PC": 6
    }  # fmt: skip
    gaps = sum(max(seq) != len(seq) for slide in census().values() for seq in slide.sequences.values())
    assert gaps == 34


def test_the_census_equals_the_authors_lists() -> None:
    shared = ROOT.parent / "shared" / "data"
    if not shared.is_dir():
        pytest.skip("the authors' lists are not here")
    with (shared / "breakhis_names.csv").open() as file:
        assert {row["filename"] for row in csv.DictReader(file)} == census_names()
    for fold in OFFICIAL_FOLDS:
        for line in (shared / "folds" / f"dsfold{fold}.txt").read_text().split():
            image, _, _, part = line.split("|")
            record = record_of(image)
            assert record is not None
            assert census()[record.slide].official[fold] == part


def find_breakhis(root: Path):
    return breakhis_records(image_paths(root), root)


def find_folders(root: Path):
    return folder_records(image_paths(root), root)


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


@pytest.mark.parametrize(
    "layout",
    ["", "BreaKHis_v1/BreaKHis_v1/histology_slides/breast/", "40X/malignant/", "wrong/folder 16184/"],
)
def test_only_the_file_name_counts(tmp_path: Path, layout: str) -> None:
    touch(
        tmp_path,
        f"{layout}SOB_B_TA-14-16184CD-40-001.png",
        f"{layout}.hidden.png",
        "notes.txt",
        "__MACOSX/._x.png",
    )
    (record,) = find_breakhis(tmp_path)
    assert (record.slide, record.class_name, record.magnification) == ("TA-14-16184CD", "benign", 40)
    assert record.path == f"{layout}SOB_B_TA-14-16184CD-40-001.png"


def test_bad_trees_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image below it"):
        find_breakhis(tmp_path)
    touch(tmp_path, "a/SOB_B_TA-14-16184CD-40-001.png", "b/SOB_B_TA-14-16184CD-40-001.png")
    with pytest.raises(UserError, match=r"more than one folder, e\.g\. SOB_B_TA-14-16184CD-40-001\.png"):
        find_breakhis(tmp_path)
    touch(tmp_path, "holiday.png")
    with pytest.raises(UserError, match=r"not named as in BreakHis, e\.g\. holiday\.png"):
        find_breakhis(tmp_path)


def test_folders_take_the_class_from_the_name_or_the_folder(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        touch(tmp_path, f"{part}/benign/{part}_1.png", f"{part}/malignant/{part}_2.png")
    touch(tmp_path, "train/malignant/SOB_M_DC-14-2523-40-001.png")
    records = find_folders(tmp_path)
    assert len(records) == 7
    assert sum(part_of(record.path) == "train" for record in records) == 3
    known = next(r for r in records if r.case)
    assert (known.case, known.class_name) == ("14-2523", "malignant")
    touch(tmp_path, "val/benign/SOB_M_DC-14-2523-40-002.png")
    with pytest.raises(UserError, match="another class than its folder"):
        find_folders(tmp_path)


def test_folders_are_known_by_the_names_that_people_give_them(tmp_path: Path) -> None:
    touch(tmp_path, "Training/benign/a.png", "dev/benign/b.png", "valid/Malignant/c.png", "TEST/benign/d.png")
    touch(tmp_path, "spare/benign/e.png", "train.png")
    records = find_folders(tmp_path)
    parts = {record.image: part_of(record.path) for record in records}
    assert parts == {"a.png": "train", "b.png": "val", "c.png": "val", "d.png": "test"}
    assert {record.path for record in records} >= {"dev/benign/b.png", "valid/Malignant/c.png"}


def test_folders_say_what_is_missing(tmp_path: Path) -> None:
    touch(tmp_path, "train/benign/a.png", "val/benign/b.png")
    with pytest.raises(UserError, match="no image in test/"):
        find_folders(tmp_path)
    touch(tmp_path, "test/unsure/c.png")
    with pytest.raises(UserError, match="benign/ or test/malignant/"):
        find_folders(tmp_path)


def test_the_census_says_plainly_what_a_copy_holds(census_records) -> None:
    assert "complete copy" in census_message({r.image for r in census_records})
    assert "partial copy, 10 of the 7,909" in census_message({r.image for r in census_records[:10]})
    extra = record_of("SOB_B_A-14-22549AB-40-999.png")
    assert extra is not None
    assert "1 that the census does not know" in census_message(
        {r.image for r in [*census_records[:3], extra]}
    )
