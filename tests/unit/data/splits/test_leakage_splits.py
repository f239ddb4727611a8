"""Splits of the leakage study on all 7,909 names: what the arms share, what they must not, and what is refused."""

import json
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from histo_lightning.data.breakhis.names import census_names
from histo_lightning.data.breakhis.records import PARTS, record_of
from histo_lightning.data.splits import SplitConfig, build_split
from histo_lightning.data.splits.build import labelled
from histo_lightning.data.splits.groups import content_hash, proportional_order
from histo_lightning.errors import UserError

SHARES = (0.0, 0.25, 0.5, 1.0)
RECORDS = tuple(record_of(name) for name in sorted(census_names()))
OFFICIAL = {"name": "official", "group": "slide"}


@cache
def injected(fold: int, share: float, magnification: str = "100x", **changes):
    plan = SplitConfig(name="injection", fold=fold, injected=share, **changes)
    return build_split(RECORDS, plan, magnification=magnification)


@cache
def by_case(fold: int):
    return build_split(RECORDS, SplitConfig(fold=fold), magnification="100x")


def images_by_class(names) -> Counter[str]:
    return Counter(record_of(name).class_name for name in names)


def cases_by_class(names) -> Counter[str]:
    return Counter(c for _, c in {(record_of(name).case, record_of(name).class_name) for name in names})


@pytest.mark.parametrize("fold", range(5))
def test_arms_of_a_fold_differ_in_nothing_but_the_siblings(fold: int) -> None:
    arms = [injected(fold, share) for share in SHARES]
    whole = set(by_case(fold).parts["test"])
    for arm in arms:
        assert arm.parts["test"] == arms[0].parts["test"]
        assert arm.parts["val"] == arms[0].parts["val"] == by_case(fold).parts["val"]
        assert images_by_class(arm.parts["train"]) == images_by_class(arms[0].parts["train"])
        assert cases_by_class(arm.parts["train"]) == cases_by_class(arms[0].parts["train"])
        assert not set(arm.parts["train"]) & set(arm.parts["test"])
        assert not set(arm.cases["val"]) & (set(arm.cases["train"]) | set(arm.cases["test"]))
        assert {record_of(name).magnification for part in PARTS for name in arm.parts[part]} == {100}
        assert set(arm.parts["test"]) <= whole
        assert arm.partition_hash == arms[0].partition_hash != by_case(fold).partition_hash
    assert len({arm.hash for arm in arms}) == len(arms)
    pool = whole - set(arms[0].parts["test"])
    found = [set(arm.parts["train"]) & pool for arm in arms]
    assert [arm.injection["images"] for arm in arms] == [len(each) for each in found]
    assert found[0] <= found[1] <= found[2] <= found[3] == pool  # a larger share contains a smaller one
    assert not found[0]
    tested = set(arms[0].cases["test"])
    assert not set(arms[0].cases["train"]) & tested
    for arm in arms[1:]:
        assert set(arm.cases["train"]) & tested == {record_of(name).case for name in pool}
        touched = sum(record_of(name).case in set(arm.cases["train"]) for name in arm.parts["test"])
        assert arm.label == f"CASE-LEAKY ({touched} images)"
        assert touched >= 0.98 * len(arm.parts["test"])
    assert arms[0].label == ""
    for class_name in ("benign", "malignant"):
        size = images_by_class(pool)[class_name]
        for share, siblings in zip(SHARES[1:], found[1:], strict=True):
            assert images_by_class(siblings)[class_name] == int(share * size + 0.5)


@pytest.mark.parametrize("fold", range(5))
def test_the_clean_arm_exchanges_partners_of_the_same_kind_and_size(fold: int) -> None:
    clean, leaky = injected(fold, 0.0), injected(fold, 1.0)
    gone = set(clean.parts["train"]) - set(leaky.parts["train"])
    come = set(leaky.parts["train"]) - set(clean.parts["train"])
    partners, tested = {record_of(n).case for n in gone}, {record_of(n).case for n in come}
    assert not partners & set(leaky.cases["train"])  # dropped whole
    assert set(clean.cases["train"]) - partners == set(leaky.cases["train"]) - tested  # the base stays
    assert len(partners) == len(tested)
    sizes = [
        sorted(Counter(record_of(n).case for n in names).values(), reverse=True) for names in (gone, come)
    ]
    assert abs(sizes[0][0] - sizes[1][0]) <= 0.5 * sizes[1][0]  # no partner is out of proportion
    subtypes = [Counter(record_of(n).subtype for n in names) for names in (gone, come)]
    assert sum((subtypes[0] & subtypes[1]).values()) >= 0.5 * len(come)


def test_halves_are_of_every_slide_and_depend_on_the_seed_alone() -> None:
    split = injected(2, 0.0)
    whole = Counter(record_of(n).slide for n in by_case(2).parts["test"])
    probe = Counter(record_of(n).slide for n in split.parts["test"])
    assert all(probe[slide] == -(-count // 2) for slide, count in whole.items())
    again = build_split(
        RECORDS[::-1], SplitConfig(name="injection", fold=2, injected=0.0), magnification="100x"
    )
    assert again == split
    other = injected(2, 0.0, seed=1)
    assert other.parts["test"] != split.parts["test"]
    assert other.partition_hash != split.partition_hash


@pytest.mark.parametrize("magnification", ["40x", "400x"])
def test_every_magnification_has_its_own_halves(magnification: str) -> None:
    arms = [injected(0, share, magnification) for share in (0.0, 0.5)]
    assert len({tuple(sorted(cases_by_class(a.parts["train"]).items())) for a in arms}) == 1
    assert len({tuple(sorted(images_by_class(a.parts["train"]).items())) for a in arms}) == 1
    assert {record_of(n).magnification for n in arms[1].parts["train"]} == {int(magnification[:-1])}


def test_few_images_a_slide_still_give_equal_arms() -> None:
    few = [r for r in RECORDS if r.sequence <= 4]
    arms = [
        build_split(few, SplitConfig(name="injection", fold=1, injected=s), magnification="40x")
        for s in SHARES
    ]
    assert len({tuple(sorted(cases_by_class(a.parts["train"]).items())) for a in arms}) == 1
    assert len({len(a.parts["train"]) for a in arms}) == 1
    # at least one image a case, else the number of cases would depend on the share
    assert arms[1].injection["images"] == len(set(arms[1].cases["train"]) & set(arms[1].cases["test"]))


def test_the_order_of_exchange_takes_equal_shares_of_every_case() -> None:
    members = {c: [r for r in RECORDS if r.case == c][:n] for c, n in (("14-22549", 40), ("14-21998", 10))}
    order = proportional_order(members, "key")
    assert {r.case for r in order[:2]} == set(members)
    for length in range(2, 51):
        large = sum(r.case == "14-22549" for r in order[:length])
        assert abs(large - 0.8 * length) <= 1.5
    assert proportional_order(members, "key") == order != proportional_order(members, "another")


def test_the_split_json_of_an_injection_is_a_leak_as_a_file(tmp_path: Path) -> None:
    path = tmp_path / "split.json"

    def again(split):
        path.write_text(json.dumps(split.as_dict()))
        return build_split(RECORDS, SplitConfig("file", path=str(path)), magnification="100x")

    assert again(injected(0, 0.0)).hash == injected(0, 0.0).hash  # the clean arm is a split by case
    with pytest.raises(UserError, match="that is a leak"):
        again(injected(0, 0.25))


@pytest.mark.parametrize("fold", [1, 2, 3, 4, 5])
def test_the_matched_control_is_as_small_as_the_cleaned_fold(fold: int) -> None:
    arms = {
        name: build_split(RECORDS, SplitConfig(fold=fold, **OFFICIAL, **more), magnification="100x")
        for name, more in (("as is", {}), ("clean", {"clean": True}), ("matched", {"matched": True}))
    }
    assert arms["as is"].parts["test"] == arms["clean"].parts["test"] == arms["matched"].parts["test"]
    assert arms["as is"].parts["val"] == arms["clean"].parts["val"] == arms["matched"].parts["val"]
    for count in (images_by_class, cases_by_class):
        sizes = {name: count(arm.parts["train"]) for name, arm in arms.items()}
        assert sizes["matched"] == sizes["clean"] != sizes["as is"]
    shared = set(arms["as is"].cases["train"]) & set(arms["as is"].cases["test"])
    assert shared <= set(arms["matched"].cases["train"])  # every shared case stays
    lost = set(arms["as is"].parts["train"]) - set(arms["matched"].parts["train"])
    thinned = sum(record_of(name).case in shared for name in lost)
    # Fold 4 shares more benign images than it has others; only there images of shared cases have to go too.
    assert thinned == (17 if fold == 4 else 0)
    assert arms["matched"].label == arms["as is"].label
    assert arms["clean"].label == ""
    plan = SplitConfig(fold=fold, matched=True, seed=1, **OFFICIAL)
    assert build_split(RECORDS, plan, magnification="100x").hash != arms["matched"].hash


def test_a_fold_without_enough_unshared_cases_is_refused() -> None:
    plan = SplitConfig(fold=4, matched=True, **OFFICIAL)
    split = build_split(RECORDS, SplitConfig(fold=4, **OFFICIAL))
    shared = set(split.cases["train"]) & set(split.cases["test"])
    benign = sorted({r.case for r in RECORDS if r.class_name == "benign"} - shared - set(split.cases["test"]))
    few = [r for r in RECORDS if r.case not in benign[:5]]
    with pytest.raises(UserError, match=r"shares 5 benign cases with test and holds only \d others"):
        build_split(few, plan)


def shuffled_by(records, seed: int):
    return labelled(records, SplitConfig(shuffle_labels=True, seed=seed))


def test_shuffled_labels_say_nothing_about_the_true_ones() -> None:
    shuffled = shuffled_by(RECORDS, 0)
    classes = {(r.case, r.class_name) for r in shuffled}
    assert len(classes) == 70  # one class a case
    assert Counter(c for _, c in classes) == {"benign": 16, "malignant": 54}
    assert {r.subtype for r in shuffled} == {""}
    true = {r.case: r.class_name for r in RECORDS}
    kept = sum(true[case] == c == "benign" for case, c in classes)
    assert kept == 4  # 16 / 70 of the 16: benign is as frequent among the truly benign as among all
    assert shuffled_by(RECORDS[::-1], 0)[::-1] == shuffled != shuffled_by(RECORDS, 1)
    assert [replace(r, class_name="", subtype="") for r in shuffled] == [
        replace(r, class_name="", subtype="") for r in RECORDS
    ]
    with pytest.raises(UserError, match="do not say their case"):
        shuffled_by([replace(RECORDS[0], case="")], 0)


@pytest.mark.parametrize("kind", ["case_kfold", "slide_kfold", "image_random", "injection"])
def test_shuffled_splits_are_labelled_and_have_a_hash_of_their_own(kind: str) -> None:
    group = {"slide_kfold": "slide", "image_random": "image"}.get(kind, "case")
    plan = SplitConfig(
        name=kind, group=group, shuffle_labels=True, injected=1.0 if kind == "injection" else None
    )
    split = build_split(RECORDS, plan, magnification="100x")
    assert split.label.endswith("SHUFFLED LABELS")
    assert split.hash != content_hash(split.parts)
    assert split.as_dict()["hash"] == split.hash
    assert split.as_dict()["shuffled_labels"]


@pytest.mark.parametrize(
    ("plan", "magnification", "text"),
    [
        ({"name": "injection", "injected": 1.0}, "all", "photographed at every magnification"),
        ({"name": "injection", "injected": 0.1}, "100x", "allowed are 0"),
        ({"name": "injection", "injected": 1.5}, "100x", "allowed are 0"),
        ({"name": "injection", "injected": 1.0, "fold": 5}, "100x", "allowed are 0 to 4"),
        ({"name": "injection", "injected": 1.0, "folds": 3}, "100x", "so none stays"),
        ({"shuffle_labels": True, **OFFICIAL, "fold": 1}, "100x", "only split="),
    ],
)
def test_what_cannot_be_is_refused(plan: dict, magnification: str, text: str) -> None:
    with pytest.raises(UserError, match=text):
        build_split(RECORDS, SplitConfig(**plan), magnification=magnification)


def test_slides_without_siblings_are_refused() -> None:
    single = list({(r.slide, r.magnification): r for r in RECORDS}.values())
    with pytest.raises(UserError, match="no benign test slide has two images"):
        build_split(single, SplitConfig(name="injection", injected=1.0), magnification="100x")
