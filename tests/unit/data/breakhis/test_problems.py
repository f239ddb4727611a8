"""Names and folders of a copy held against the census."""

import pytest

from histo_lightning.data.breakhis.names import census, census_names, parse_name
from histo_lightning.data.breakhis.problems import BLOCKING, KINDS, inspect_names, missing_by_group


def official(image: str) -> str:
    name = parse_name(image)
    assert name is not None
    return name.official_path


@pytest.fixture(scope="module")
def complete() -> list[str]:
    return [official(image) for image in sorted(census_names())]


def kinds(problems) -> dict[str, int]:
    return {kind: n for kind in KINDS if (n := sum(p.kind == kind for p in problems))}


def test_the_complete_copy_only_has_its_twin(complete) -> None:
    problems = inspect_names(complete)
    assert kinds(problems) == {"split twin": 1}
    assert "13412" in problems[0].detail
    assert missing_by_group(problems) == {}


def test_layouts_that_people_keep_are_fine(complete) -> None:
    for prefix in ("BreaKHis_v1/BreaKHis_v1/", "images for 2026/train/"):
        assert kinds(inspect_names([prefix + path for path in complete])) == {"split twin": 1}
    assert kinds(inspect_names(sorted(census_names()))) == {"split twin": 1}
    for shape in ("{m}X/{c}/{i}", "{m}mag/train/{c}/{i}", "{m}/{c}/{i}", "{m}x/{i}", "val/{c}/{i}"):
        paths = []
        for image in sorted(census_names()):
            name = parse_name(image)
            paths.append(shape.format(m=name.magnification, c=name.class_name, i=image))
        assert kinds(inspect_names(paths)) == {"split twin": 1}


def test_a_slide_in_its_siblings_folder(complete) -> None:
    image = "SOB_B_TA-14-16184CD-40-001.png"
    moved = official(image).replace("SOB_B_TA_14-16184CD", "SOB_B_TA_14-16184")
    problems = inspect_names([moved if path.endswith(image) else path for path in complete])
    found = [p for p in problems if p.kind == "wrong folder"]
    assert [(p.image, p.path) for p in found] == [(image, moved)]
    assert "SOB_B_TA_14-16184," in found[0].detail
    assert "TA-14-16184CD" in found[0].detail
    assert kinds(problems) == {"wrong folder": 1, "split twin": 1}


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("malignant", "benign"),
        ("Malignant", "benign"),
        ("fibroadenoma", "tubular_adenoma"),
        ("100X", "40X"),
        ("100x", "40X"),
        ("400mag", "40X"),
        ("200", "40X"),
        ("SOB_B_TA_14-21978AB", "TA-14-16184CD"),
        ("sob_b_f_14-16184cd", "TA-14-16184CD"),
    ],
)
def test_folders_that_contradict(folder: str, words: str) -> None:
    image = "SOB_B_TA-14-16184CD-40-001.png"
    problems = [p for p in inspect_names([f"top/{folder}/{image}"]) if p.kind == "wrong folder"]
    assert len(problems) == 1
    assert f"folder {folder}, " in problems[0].detail
    assert words in problems[0].detail


@pytest.mark.parametrize(
    "folder", ["benign", "TUBULAR_ADENOMA", "40X", "40 X", "40", "40mag", "1400", "40X copy"]
)
def test_folders_that_do_not(folder: str) -> None:
    problems = inspect_names([f"{folder}/SOB_B_TA-14-16184CD-40-001.png"])
    assert [p for p in problems if p.kind == "wrong folder"] == []


def test_all_contradictions_of_a_path_are_told_in_one_row() -> None:
    problems = inspect_names(["malignant/100X/SOB_B_TA-14-16184CD-40-001.png"])
    found = [p for p in problems if p.kind == "wrong folder"]
    assert len(found) == 1
    assert found[0].detail.count("folder") == 2


def test_missing_files_by_slide_and_magnification(complete) -> None:
    gone = [f"SOB_M_DC-14-4364-{m}-{i:03d}.png" for m, i in ((40, 1), (100, 1), (100, 2))]
    gone = [image for image in gone if image in census_names()]
    left = [path for path in complete if path.rsplit("/", 1)[-1] not in gone]
    problems = inspect_names(left)
    assert sorted(p.image for p in problems if p.kind == "missing") == sorted(gone)
    sequences = census()["DC-14-4364"].sequences
    expected = {
        ("DC-14-4364", m): (n, len(sequences[m]))
        for m in (40, 100)
        if (n := sum(f"-{m}-" in image for image in gone))
    }
    assert missing_by_group(problems) == expected
    assert sum(missing for missing, _ in missing_by_group(problems).values()) == len(gone) > 0


def test_an_empty_copy_misses_everything() -> None:
    problems = inspect_names([])
    assert kinds(problems) == {"missing": 7909}
    assert sum(missing for missing, _ in missing_by_group(problems).values()) == 7909
    assert len(missing_by_group(problems)) == 328
    assert all(missing == count for missing, count in missing_by_group(problems).values())


def test_duplicates_unknown_and_hostile_names(complete) -> None:
    twice = complete[100]
    image = twice.rsplit("/", 1)[-1]
    strange = ["=HYPERLINK(1).png", "a/<script>alert(1)</script>.png", "SOB_M_TA-14-16184CD-40-001.png"]
    unknown = ["SOB_B_TA-14-16184CD-40-999.png", "SOB_B_A-14-99999-40-001.png"]
    extra = [f"zz/{image}", f"zzz/{image}", *strange, *unknown]
    problems = inspect_names([*complete, *extra])
    assert kinds(problems) == {
        "outside grammar": 3,
        "duplicate name": 2,
        "unknown": 2,
        "split twin": 1,
    }
    duplicates = [p for p in problems if p.kind == "duplicate name"]
    assert [p.path for p in duplicates] == [f"zz/{image}", f"zzz/{image}"]
    assert all(twice in p.detail for p in duplicates)
    assert {p.path for p in problems if p.kind == "outside grammar"} == set(strange)
    details = {p.image: p.detail for p in problems if p.kind == "unknown"}
    assert "not in the census" in details["SOB_B_A-14-99999-40-001.png"]
    assert "is in the census" in details["SOB_B_TA-14-16184CD-40-999.png"]
    assert inspect_names([*extra, *reversed(complete)]) == problems


def test_kinds_that_training_refuses() -> None:
    assert set(KINDS) > BLOCKING
    assert "wrong folder" not in BLOCKING
    assert "missing" not in BLOCKING


def test_the_twin_is_told_only_where_both_copies_are() -> None:
    one, other = "SOB_M_DC-14-13412-40-001.png", "SOB_M_LC-14-13412-40-001.png"
    assert "split twin" in kinds(inspect_names([one, other]))
    assert "split twin" not in kinds(inspect_names([one]))
    assert "split twin" not in kinds(inspect_names([other]))
