"""``audit``: every kind of leak is found in every form of a split, nothing is passed silently, bad files are named."""

import csv
import json
import os
from collections import Counter
from io import StringIO
from pathlib import Path

import pytest

from factories.split_files import (
    A1,
    A2,
    A3,
    B1,
    B2,
    DC,
    LC,
    TOUCHED,
    check_official,
    official_rows,
    tree_with_copies,
    write_csv,
    write_dsfold,
)
from histo_lightning.config.schema import AuditConfig, DatasetConfig
from histo_lightning.data.breakhis.names import OFFICIAL_FOLDS, census, parse_name
from histo_lightning.data.breakhis.records import TWIN_DROPPED, TWIN_KEPT
from histo_lightning.data.splits import SplitConfig, build_split
from histo_lightning.data.splits.reading import NamedSplit, printable, read_splits
from histo_lightning.errors import UserError
from histo_lightning.inspection.audit import audit, details, report, verdict
from histo_lightning.inspection.leaks import audit_split

ROOT = Path(__file__).resolve().parents[3]


def only(path: Path, **dataset):
    """The findings of a file with one split."""
    (found,) = audit(AuditConfig(split_file=str(path), dataset=DatasetConfig(name="breakhis", **dataset)))
    return found


def findings(**parts):
    return audit_split(NamedSplit("some", parts))


@pytest.mark.parametrize("fold", OFFICIAL_FOLDS)
def test_the_official_folds_from_the_census(fold, tmp_path):
    check_official(only(write_dsfold(tmp_path / f"dsfold{fold}.txt", fold)), fold)


@pytest.mark.parametrize("fold", OFFICIAL_FOLDS)
def test_the_authors_own_files(fold):
    path = ROOT.parent / "shared" / "data" / "folds" / f"dsfold{fold}.txt"
    if not path.is_file():
        pytest.skip(f"the authors' fold files are not at {path.parent}")
    check_official(only(path), fold)


def test_kaggles_five_folds_are_five_audits(tmp_path, capsys):
    rows = [
        (fold, name.magnification, part, f"BreaKHis_v1/{name.official_path}")
        for fold in OFFICIAL_FOLDS
        for name, part in official_rows(fold)
    ]
    path = write_csv(tmp_path / "Folds.csv", rows, ("fold", "mag", "grp", "filename"))
    found = audit(AuditConfig(split_file=str(path)))
    assert [each["name"] for each in found] == [f"fold {fold}" for fold in OFFICIAL_FOLDS]
    for fold, each in zip(OFFICIAL_FOLDS, found, strict=True):
        check_official(each, fold)
    report(found)
    table = capsys.readouterr().out.split("fold 1: LEAK")[0]
    assert all(f"{count:,}" in table for count in TOUCHED)
    assert max(len(line) for line in table.splitlines()) <= 80


def test_twins_are_only_slide_13412():
    slides = Counter(slide.partition("-")[2] for slide in census())
    assert {slide for slide, count in slides.items() if count > 1} == {TWIN_KEPT.partition("-")[2]}
    assert TWIN_KEPT.partition("-")[2] == TWIN_DROPPED.partition("-")[2]


def test_our_case_split_is_clean_and_its_split_json_is_read(tmp_path, census_records):
    path = tmp_path / "split.json"
    split = build_split(census_records, SplitConfig(fold=2), magnification="100x")
    path.write_text(json.dumps(split.as_dict()))
    found = only(path)
    assert not found["leak"]
    assert found["parts"] == {part: len(names) for part, names in split.parts.items()}
    assert sum(found["parts"].values()) == 2048
    assert verdict(found).startswith("no leak found")
    assert "by names only" in verdict(found)


@pytest.mark.parametrize(
    ("train", "test", "slides", "cases", "touched", "twins", "images"),
    [
        ([A1, B1], [A2, B2], 1, 1, 1, 0, 0),
        ([A1, A2, B1], [A3, B2], 0, 1, 1, 0, 0),
        ([DC, B1], [LC, B2], 0, 1, 1, 1, 0),
        ([LC, B1], [DC, LC], 1, 1, 2, 1, 1),
        ([A1, B1], [A1, B2], 1, 1, 1, 0, 1),
        ([A1], [f"other/place/{A1[:-4]}.jpg"], 1, 1, 1, 0, 1),
        ([A1], [A1[:-4]], 1, 1, 1, 0, 1),
        ([A1, "x.png"], [B1, "x.png"], 0, 0, 0, 0, 1),
    ],
    ids=[
        "slide",
        "case",
        "twins",
        "twins and slide",
        "image",
        "image as jpg",
        "image without ending",
        "image of unknown case",
    ],
)
def test_planted_leaks_by_name(train, test, slides, cases, touched, twins, images):
    found = findings(train=train, test=test)
    assert found["leak"]
    assert len(found["slides"]) == slides
    assert len(found["cases"]) == cases
    assert found["test_images_touched"] == touched
    assert len(found["twins"]) == twins
    assert len(found["images"]) == images
    assert verdict(found).startswith("LEAK")


def test_val_counts_as_seen_and_every_pair_is_reported():
    found = findings(train=[B1], val=[A1, A2], test=[A3, B2])
    assert found["sides"] == ["train or val", "test"]
    assert found["test_images_touched"] == 1
    assert [pair["sides"] for pair in found["pairs"] if pair["leak"]] == [["val", "test"]]
    assert [pair["test_images_touched"] for pair in found["pairs"]] == [0, 0, 1]


def test_a_case_in_train_and_val_is_a_leak_though_test_is_untouched():
    found = findings(train=[A1, B1], val=[A2], test=[B2])
    assert found["leak"]
    assert found["test_images_touched"] == 0
    assert verdict(found) == (
        "LEAK. train | val: 1 case is on both sides (1 slide too), which touches 1 of 1 val images (100.0%)"
    )
    assert "cases on both sides (1): 14-22549" in details(found)


def test_without_a_test_part_val_is_held_out():
    found = findings(train=[A1, B1], val=[A3, B2])
    assert found["sides"] == ["train", "val"]
    assert found["held_out"] == "val"
    assert found["test_images_touched"] == 1


def test_names_that_say_no_case_are_counted_and_said():
    found = findings(train=[A1, "scan 1.png"], test=[B1, "scan 2.png", "SOB_B_DC-14-2523-40-001.png"])
    assert not found["leak"]
    assert found["grouping_unknown"] == 3
    assert "GROUPING UNKNOWN: 3 of 5 images" in verdict(found)


def test_where_no_name_says_anything_it_is_an_error(tmp_path):
    path = write_csv(tmp_path / "s.csv", [("1.png", "train"), ("2.png", "test")])
    with pytest.raises(UserError, match=r"GROUPING UNKNOWN.*1\.png.*dataset\.root"):
        only(path)


def test_repeated_rows_count_once_and_are_listed():
    found = findings(train=[A1, A1, B1], test=[B2])
    assert not found["leak"]
    assert found["parts"] == {"train": 2, "test": 1}
    assert found["repeated"] == {A1: 2}
    assert any(line.startswith("listed more than once") for line in details(found))


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def test_a_tree(tmp_path):
    for path in (f"Train/benign/{A1}", f"validation/benign/{B1}", f"test/benign/{A3}", f"spare/{B2}"):
        touch(tmp_path / path)
    touch(tmp_path / "train" / "benign" / ".hidden.png")
    (split,) = read_splits(tmp_path)
    assert {part: len(paths) for part, paths in split.parts.items()} == {"train": 1, "val": 1, "test": 1}
    found = only(tmp_path)
    assert found["cases"] == ["14-22549"]
    assert any("1 images are in no part's folder" in note for note in details(found))


def test_equal_foreign_names_in_a_tree_are_not_one_image(tmp_path):
    for path in ("train/benign/1.png", "test/benign/1.png", f"train/{A1}", f"test/{B1}"):
        touch(tmp_path / path)
    assert not only(tmp_path)["leak"]


def test_a_folder_of_trees_is_several_splits(tmp_path):
    for fold in ("fold1", "fold2"):
        for path in (f"train/40X/{A1}", f"test/40X/{A3 if fold == 'fold2' else B1}"):
            touch(tmp_path / fold / path)
    found = audit(AuditConfig(split_file=str(tmp_path)))
    assert [(each["name"], each["leak"]) for each in found] == [("fold1", False), ("fold2", True)]


@pytest.mark.parametrize(
    "text",
    [
        f'part,path\nvalid,"a, ""b"" c/{A1}"\nTEST,{A3}\ntraining,{B1}\n',
        f'\ufeffpath;part\r\n"a; b/{A1}";val\r\n\r\n{A3};test\r\n{B1};train\r\n',
        f"label\tpart\tpath\n0\tvalidation\tC:\\my data\\{A1}\n0\ttest\t{A3}\n0\ttrain\t{B1}\n",
        f"{A1}|40|1|dev\n{A3}|40|1|test\n{B1}|40|1|train",
        json.dumps({"parts": {"val": [A1], "test": [A3], "train": [B1]}}),
    ],
    ids=["quoted", "semicolons", "tabs and backslashes", "authors", "json"],
)
def test_every_form_of_list(text, tmp_path):
    path = tmp_path / "split"
    path.write_text(text, encoding="utf-8", newline="")
    found = only(path)
    assert found["parts"] == {"train": 1, "val": 1, "test": 1}
    assert found["cases"] == ["14-22549"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b" \n\n", "the file is empty"),
        (b"path,part\n", "no image is listed"),
        (b"path,part\na.png,train\n", "every image is in part train"),
        (b"path,part\na.png,train\nb.png,spare\n", "row 3: unknown part 'spare'"),
        (b"path,part\na.png,train\nb.png\n", "row 3: 1 columns where the first line has 2"),
        (b"path,part\na.png,train\nb,c.png,test\n", "row 3: 3 columns.*quotes"),
        (b"path,part\na.png,train\n,test\n", "row 3: the name of the image is missing"),
        (b'path,part\n"a.png,train\nb.png,test\n', "not readable as CSV"),
        (b"name,label\na.png,1\n", "row 1: 'name,label' is neither"),
        (
            b"a.png|40|1|train\nb.png|40|test\n",
            "row 2: 3 columns where the first line has 4; put names with '|' in quotes",
        ),
        (b"a.png|40|1|train\nb.png|40|1|tset\n", "row 2: unknown part 'tset'"),
        (b"{", "not a split.json"),
        (b"[]", "not a split.json"),
        (b'{"parts": {"train": "a.png"}}', "a list of image names"),
        (b'{"parts": {"train": ["a.png", 3]}}', "image 2: 3 is not a name"),
        (b"\x89PNG\r\n\x1a\n\xff", "not text in UTF-8"),
        ("path,part\na.png,train\n".encode("utf-16"), "not text in UTF-8"),
    ],
)
def test_bad_files_are_named_with_their_row(content, message, tmp_path):
    path = tmp_path / "bad file"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        audit(AuditConfig(split_file=str(path)))
    assert "bad file" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=message.replace("|", r"\|")):
        read_splits(path)


def test_bad_places(tmp_path, monkeypatch):
    monkeypatch.setattr("histo_lightning.data.splits.reading.MOST_BYTES", 10)
    (tmp_path / "big.csv").write_text("x" * 100)
    touch(tmp_path / "tree" / "benign" / A1)
    (tmp_path / "empty").mkdir()
    for place, message in (
        ("", "split_file is not set"),
        (tmp_path / "none.csv", "no such file or folder"),
        ("a\0b", "cannot be read|no such file"),
        (tmp_path / "empty", "no image below this folder"),
        (tmp_path / "tree", "are not in two or more of the folders"),
        (tmp_path / "big.csv", "is no list of names"),
        (os.devnull, "no such file or folder"),
    ):
        with pytest.raises(UserError, match=message):
            read_splits(place)


def test_hostile_names_reach_neither_the_terminal_nor_the_markup(tmp_path, capsys):
    evil = "\x1b[2J[bold red]\u202e name.png"
    text = StringIO()
    csv.writer(text).writerows(
        [("path", "part"), (evil, "train"), (evil, "test"), ("../" * 2000 + "x.png", "test"), (A1, "train")]
    )
    path = tmp_path / "[red] split.csv"
    path.write_text(text.getvalue(), encoding="utf-8")
    found = only(path)
    assert found["images"] == [evil]
    report([found])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert r"\x1b[2J[bold red]" in out
    assert "[red] split.csv" in out
    assert len(printable("x" * 10_000)) < 200
    assert printable("größe.png") == "größe.png"
    assert json.loads(json.dumps(found, allow_nan=False))["images"] == [evil]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return tree_with_copies(tmp_path / "tree")


def test_pixels_find_what_names_do_not_say(tree, cache_dir):
    config = AuditConfig(
        split_file=str(tree), dataset=DatasetConfig("folders", str(tree)), cache_dir=str(cache_dir)
    )
    (found,) = audit(config)
    assert found["identical_pixels"] == [(B1, A1), ("test/benign/1.png", "train/benign/1.png")]
    assert found["twins"] == ["14-13412"]
    assert found["suspicious_pairs"] == [("SOB_B_TA-14-16184-40-001.png", A2)]
    assert list(found["unreadable"]) == ["train/benign/3.png"]
    assert found["images_compared"] == 10 == sum(found["parts"].values()) - 1
    assert found["missing"] == []
    lines = "\n".join(details(found))
    assert "unreadable (1): " in lines
    assert f"{B1} = {A1}" in lines
    assert "pixels compared: 10 of 11 images" in lines
    assert "GROUPING UNKNOWN: 4 of 11" in verdict(found)


def test_images_that_are_not_there_are_listed(tree, tmp_path, cache_dir):
    rows = [(A1, "train"), (A2, "train"), (B1, "test"), ("SOB_B_F-14-9133-40-001.png", "test")]
    path = write_csv(tmp_path / "s.csv", rows)
    dataset = DatasetConfig("folders", str(tree))
    (found,) = audit(AuditConfig(split_file=str(path), dataset=dataset, cache_dir=str(cache_dir)))
    assert found["missing"] == ["SOB_B_F-14-9133-40-001.png"]
    assert found["identical_pixels"] == [(B1, A1)]
    assert not found["cases"]
    assert found["leak"]
    elsewhere = write_csv(tmp_path / "t.csv", [("SOB_B_F-14-9133-40-001.png", "test"), (A3, "train")])
    with pytest.raises(UserError, match=r"dataset\.root=.*none of the 2 images"):
        audit(AuditConfig(split_file=str(elsewhere), dataset=dataset, cache_dir=str(cache_dir)))


def test_the_drawn_set_has_no_root(tree):
    dataset = DatasetConfig("synthetic", str(tree))
    with pytest.raises(UserError, match="dataset=synthetic"):
        audit(AuditConfig(split_file=str(tree), dataset=dataset))


def test_breakhis_of_other_sizes_is_unreadable_and_the_names_still_count(tree, tmp_path, cache_dir):
    path = write_csv(tmp_path / "s.csv", [(DC, "train"), (LC, "test")])
    dataset = DatasetConfig("breakhis", str(tree))
    (found,) = audit(AuditConfig(split_file=str(path), dataset=dataset, cache_dir=str(cache_dir)))
    assert set(found["unreadable"]) == {DC, LC}
    assert found["identical_pixels_on_both_sides"] is None
    assert found["twins"]


def test_the_real_sample(real_root, tmp_path, cache_dir):
    names = sorted(path.name for path in real_root.rglob("*-100-*.png"))[:24]
    rows = [(name, "train" if i % 2 else "test") for i, name in enumerate(names)]
    path = write_csv(tmp_path / "s.csv", rows)
    dataset = DatasetConfig("breakhis", str(real_root))
    (found,) = audit(AuditConfig(split_file=str(path), dataset=dataset, cache_dir=str(cache_dir)))
    assert found["images_compared"] == 24
    assert found["identical_pixels"] == []
    assert len(found["cases"]) == len({parsed.case for n in names if (parsed := parse_name(n))})
