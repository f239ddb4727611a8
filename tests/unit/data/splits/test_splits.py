"""Splits: balance, disjointness, labels, hashes, and leaks that must not pass."""

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histo_lightning.data.breakhis.records import PARTS, Record, record_of, without_twins
from histo_lightning.data.splits import SplitConfig, build_split
from histo_lightning.data.splits.assignment import assign
from histo_lightning.errors import UserError

OFFICIAL = {
    1: (8, 1145),
    2: (6, 674),
    3: (7, 697),
    4: (7, 836),
    5: (6, 999),
}  # cases on both sides, images touched
OPTIMUM_HASH = "920ca032"


def plan(kind: str, **changes) -> SplitConfig:
    group = {"case_kfold": "case", "slide_kfold": "slide", "official": "slide", "image_random": "image"}.get(
        kind, "case"
    )
    return SplitConfig(**({"name": kind, "group": group} | changes))


def cases_of(split, part):
    return set(split.cases[part])


def test_every_case_is_tested_once_and_validated_once(census_records) -> None:
    tested, validated = Counter(), Counter()
    for fold in range(5):
        split = build_split(census_records, plan("case_kfold", fold=fold))
        tested.update(split.cases["test"])
        validated.update(split.cases["val"])
        following = build_split(census_records, plan("case_kfold", fold=(fold + 1) % 5))
        assert split.parts["val"] == following.parts["test"]
        assert sum(len(split.parts[p]) for p in PARTS) == 7786
        assert split.label == ""
    assert set(tested.values()) == set(validated.values()) == {1}
    assert len(tested) == 70


def test_the_folds_are_as_even_as_the_protocol_says(census_records) -> None:
    for fold in range(5):
        split = build_split(census_records, plan("case_kfold", fold=fold))
        members = [r for r in census_records if r.image in set(split.parts["test"])]
        images = Counter(r.class_name for r in members)
        cases = Counter(c for c, _ in {(r.class_name, r.case) for r in members})
        assert cases["benign"] in (3, 4)
        assert cases["malignant"] in (10, 11)
        assert 436 <= images["benign"] <= 611
        assert 1050 <= images["malignant"] <= 1070
        assert 0.29 <= images["benign"] / len(members) <= 0.37
        per_magnification = Counter((r.class_name, r.magnification) for r in members)
        assert all(abs(per_magnification["malignant", m] - n / 5) / (n / 5) < 0.03
                   for m, n in ((40, 1338), (100, 1404), (200, 1358), (400, 1206)))  # fmt: skip


def test_one_partition_for_all_magnifications(census_records) -> None:
    splits = [
        build_split(census_records, plan("case_kfold", fold=2), magnification=m)
        for m in ("all", "40x", "400x")
    ]
    assert {s.partition_hash for s in splits} == {splits[0].partition_hash}
    assert splits[0].partition_hash.startswith(OPTIMUM_HASH)  # the published table, on any machine
    assert len({s.hash for s in splits}) == 3
    assert cases_of(splits[1], "test") == cases_of(splits[2], "test")


def test_the_split_does_not_depend_on_order_or_hash_seed(census_records) -> None:
    backwards = build_split(census_records[::-1], plan("case_kfold"))
    assert backwards.hash == build_split(census_records, plan("case_kfold")).hash
    code = (
        "from histo_lightning.data.breakhis.names import census_names\n"
        "from histo_lightning.data.breakhis.records import record_of\n"
        "from histo_lightning.data.splits import *\n"
        "print(build_split([record_of(n) for n in census_names()], SplitConfig(repeat=1, seed=3)).hash)"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert hashes == {build_split(census_records, plan("case_kfold", repeat=1, seed=3)).hash + "\n"}


def test_repeats_are_other_balanced_partitions(census_records) -> None:
    partitions = set()
    for repeat in range(1, 6):
        for fold in range(5):
            split = build_split(census_records, plan("case_kfold", repeat=repeat, fold=fold))
            images = Counter(record_of(i).class_name for i in split.parts["test"])
            assert 350 <= images["benign"] <= 680
        partitions.add(split.partition_hash)
    assert len(partitions) == 5


def by_case(records) -> dict[str, list[Record]]:
    members = defaultdict(list)
    for record in without_twins(records, "binary")[0]:
        members[record.case].append(record)
    return members


def brute_force_cost(members, folds):
    """The objective written out: squared relative deviations of image counts by class and magnification."""
    cost = 0.0
    for class_name in ("benign", "malignant"):
        for magnification in (40, 100, 200, 400):
            counts = [
                sum(
                    r.class_name == class_name and r.magnification == magnification
                    for name in fold
                    for r in members[name]
                )
                for fold in folds
            ]
            mean = sum(counts) / len(folds)
            cost += sum((count / mean - 1) ** 2 for count in counts)
    return cost


def test_the_optimum_beats_random_partitions_of_the_same_sizes(census_records) -> None:
    members = by_case(census_records)
    ours = brute_force_cost(members, assign(members, 5))
    for seed in range(10):
        assert ours < brute_force_cost(members, assign(members, 5, seed=seed, repeat=1))


def test_scikit_learn_leaves_a_fold_with_fewer_benign_cases(census_records) -> None:
    from sklearn.model_selection import StratifiedGroupKFold

    members = by_case(census_records)
    records = [record for group in members.values() for record in group]

    def fewest(folds) -> int:
        return min(sum(members[name][0].class_name == "benign" for name in fold) for fold in folds)

    for seed in range(3):
        theirs = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(
            records, [int(r.class_name == "malignant") for r in records], [r.case for r in records]
        )
        assert (
            fewest([{records[i].case for i in test} for _, test in theirs]) < fewest(assign(members, 5)) == 3
        )


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_assignment_is_a_partition_with_even_sizes(data: st.DataObject) -> None:
    folds = data.draw(st.integers(2, 4))
    members = {}
    for letter, subtype in (("B", "F"), ("M", "DC")):
        for number in range(data.draw(st.integers(folds, 9))):
            count = data.draw(st.integers(1, 5))
            records = [
                record_of(f"SOB_{letter}_{subtype}-14-{ord(letter)}{number}-40-{i:03d}.png")
                for i in range(count)
            ]
            members[records[0].case] = records
    parts = assign(members, folds)
    assert sorted(name for part in parts for name in part) == sorted(members)
    for class_name in ("benign", "malignant"):
        sizes = [sum(members[name][0].class_name == class_name for name in part) for part in parts]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("fold", [1, 2, 3, 4, 5])
def test_official_folds_leak_as_counted_and_clean_mends_it(census_records, fold: int) -> None:
    shared, touched = OFFICIAL[fold]
    split = build_split(census_records, plan("official", fold=fold))
    assert sum(len(split.parts[p]) for p in PARTS) == 7909
    assert f"shares {shared} cases" in split.notes[0]
    assert split.label == f"CASE-LEAKY ({touched} images)"
    assert not cases_of(split, "val") & (cases_of(split, "train") | cases_of(split, "test"))
    clean = build_split(census_records, plan("official", fold=fold, clean=True))
    assert clean.label == ""
    assert clean.parts["test"] == split.parts["test"]
    assert not cases_of(clean, "train") & cases_of(clean, "test")


def test_slide_folds_and_random_images_carry_their_labels(census_records) -> None:
    split = build_split(census_records, plan("slide_kfold"))
    assert split.label.startswith("CASE-LEAKY (")
    touched = sum(record_of(i).case in cases_of(split, "train") for i in split.parts["test"])
    assert split.label == f"CASE-LEAKY ({touched} images)"
    assert not cases_of(split, "val") & (cases_of(split, "train") | cases_of(split, "test"))
    assert build_split(census_records, plan("image_random")).label == "LEAKY"


def test_twins_are_kept_once_or_not_at_all(census_records) -> None:
    for task, count in (("binary", 7786), ("subtype", 7663)):
        split = build_split(census_records, plan("case_kfold"), task=task)
        assert sum(len(split.parts[p]) for p in PARTS) == count
    only_lc = [r for r in census_records if r.slide != "DC-14-13412"]
    kept, notes = without_twins(only_lc, "binary")
    assert (kept, notes) == (only_lc, [])
    assert build_split(census_records, plan("case_kfold"), magnification="40x").parts["train"]


def test_subtype_says_which_classes_a_part_lacks(census_records) -> None:
    notes = build_split(census_records, plan("case_kfold"), task="subtype").notes
    assert any("val holds no image of" in note for note in notes)


def test_bad_plans_are_refused(census_records) -> None:
    for changes, text in (
        ({"fold": 5}, "allowed are 0 to 4"),
        ({"fold": -1}, "out of range"),
        ({"folds": 17}, "3 to 16"),
        ({"folds": 2}, "no training part"),
    ):
        with pytest.raises(UserError, match=text):
            build_split(census_records, plan("case_kfold", **changes))
    with pytest.raises(UserError, match="official folds are 1 to 5"):
        build_split(census_records, plan("official", fold=0))
    few = [r for r in census_records if r.class_name == "malignant" or r.case == "14-22549"]
    with pytest.raises(UserError, match=r"holds only 1 benign case\(s\)"):
        build_split(few, plan("case_kfold"))
    with pytest.raises(UserError, match="it holds 40x"):
        build_split(
            [r for r in census_records if r.magnification == 40], plan("case_kfold"), magnification="200x"
        )
    assert build_split(census_records, plan("case_kfold", folds=16)).notes  # more than 5 folds: warned


def write_csv(path: Path, rows) -> str:
    path.write_text("path,part\n" + "".join(f"{image},{part}\n" for image, part in rows))
    return str(path)


def rows_of(split):
    return [(f"some folder/{image}", part) for part in PARTS for image in split.parts[part]]


def test_a_planted_leak_in_a_split_file_is_refused(census_records, tmp_path: Path) -> None:
    honest = build_split(census_records, plan("case_kfold"), magnification="40x")
    path = write_csv(tmp_path / "split.csv", rows_of(honest))
    read = build_split(census_records, plan("file", path=path), magnification="40x")
    assert read.hash == honest.hash
    assert read.label == ""
    rows = rows_of(honest)
    stolen = next(i for i, (_, part) in enumerate(rows) if part == "test")
    rows[stolen] = (rows[stolen][0], "train")
    leaky = write_csv(tmp_path / "leaky.csv", rows)
    with pytest.raises(
        UserError, match=r"1 case\(s\) are in two parts, e\.g\. case .* in train and test: that is a leak"
    ):
        build_split(census_records, plan("file", path=leaky), magnification="40x")
    labelled = build_split(census_records, plan("file", path=leaky, group="image"), magnification="40x")
    assert labelled.label == "LEAKY"
    rows.append((rows[0][0], "test"))
    with pytest.raises(UserError, match="keep it in one part"):
        build_split(census_records, plan("file", path=write_csv(tmp_path / "twice.csv", rows), group="image"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,part\nnowhere.png,train\nb.png,test\n", r"2 image.s. are not in the data set, e\.g\. b\.png"),
        ("path,part\na.png,trian\n", "row 2: unknown part 'trian'"),
        ("name,part\na.png,train\n", "nor a header with path and part"),
        ("", "the file is empty"),
        ("path,part\na.png,train\na.png,train\nb.png,test\n", "a.png is listed twice in train"),
        ("fold,path,part\n1,a.png,train\n1,b.png,test\n2,a.png,test\n2,b.png,train\n", "holds 2 splits"),
    ],
)
def test_bad_split_files_say_where(census_records, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "split.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        build_split(census_records, plan("file", path=str(path)))


def test_a_file_without_validation_gets_one_cut_by_case(census_records, tmp_path: Path) -> None:
    honest = build_split(census_records, plan("case_kfold"))
    rows = [(image, "train" if part == "val" else part) for image, part in rows_of(honest)]
    split = build_split(census_records, plan("file", path=write_csv(tmp_path / "two.csv", rows)))
    assert split.label == ""
    assert 5 <= len(split.cases["val"]) <= 14
    assert not cases_of(split, "val") & (cases_of(split, "train") | cases_of(split, "test"))


def test_a_runs_split_json_is_a_split_file(census_records, tmp_path: Path) -> None:
    split = build_split(census_records, plan("case_kfold", fold=1), magnification="40x")
    path = tmp_path / "split.json"
    data = split.as_dict()
    assert tuple(data["parts"]["val"]) == split.parts["val"]
    path.write_text(json.dumps(data))
    again = build_split(census_records, plan("file", path=str(path)), magnification="40x")
    assert (again.hash, again.cases, again.label) == (data["hash"], split.cases, "")
    data["parts"]["train"].append(data["parts"]["test"].pop())
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match="that is a leak"):
        build_split(census_records, plan("file", path=str(path)), magnification="40x")


def test_unknown_names_are_labelled(tmp_path: Path) -> None:
    records = [
        Record(f"{c}{p}{i}.png", f"{p}/{c}/{c}{p}{i}.png", c)
        for p in PARTS
        for c in ("benign", "malignant")
        for i in range(2)
    ]
    split = build_split(records, plan("folders"))
    assert split.label == "GROUPING UNKNOWN"
    one_class = [r for r in records if not r.path.startswith("train/malignant")]
    with pytest.raises(UserError, match="absent from train"):
        build_split(one_class, plan("folders"))
    moved = replace(records[0], case="14-1", slide="A-14-1")
    assert build_split([moved, *records[1:]], plan("folders")).label == "GROUPING UNKNOWN"
    with pytest.raises(UserError, match="no image in part train; a split needs train and test"):
        build_split([replace(r, path=r.image) for r in records], plan("folders"))
