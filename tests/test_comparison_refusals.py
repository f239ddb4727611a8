"""What may not be compared is refused in one line that says what and where."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from histo_lightning.errors import UserError
from histo_lightning.evaluation.comparison import Arm, Replicate, compare_arms
from histo_lightning.evaluation.named_scores import named_score
from test_comparison import arm, changed, rows, three, without


def one_changed(name: str, change: Callable[[Replicate], Replicate]) -> dict[str, Arm]:
    """All arms, with a change to one arm's second replicate at 100x."""
    arms = three()
    arms[name]["100x"][1] = change(arms[name]["100x"][1])
    return arms


def renamed(r: Replicate) -> Replicate:
    image = r.table.image.copy()
    image[0] = "other.png"
    return replace(r, table=replace(r.table, image=image))


def regrouped(r: Replicate) -> Replicate:
    fold = r.fold.copy()
    fold[r.table.case == "14-000"] = 1
    return replace(r, fold=fold)


def ungrouped(r: Replicate) -> Replicate:
    return replace(r, table=replace(r.table, case=np.full_like(r.table.case, "")))


def split_case(r: Replicate) -> Replicate:
    fold = r.fold.copy()
    fold[np.flatnonzero(r.table.case == "14-002")[0]] = 4
    return replace(r, fold=fold)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: one_changed("r34", lambda r: without(r, "14-003")),
            "different cases: case 14-003 is in one",
        ),
        (lambda: one_changed("r18", lambda r: without(r, "14-003")), "different cases"),
        (
            lambda: one_changed("r50", lambda r: rows(r, np.arange(1, len(r.table)))),
            "14-000 is in one|image 100-0.png",
        ),
        (lambda: one_changed("r50", renamed), "different images"),
        (lambda: one_changed("r34", regrouped), "different folds"),
        (lambda: one_changed("r34", ungrouped), "GROUPING UNKNOWN"),
        (lambda: one_changed("r18", lambda r: replace(r, fold=r.fold[1:])), "folds for"),
        (lambda: one_changed("r18", lambda r: rows(r, np.r_[0, np.arange(len(r.table))])), "stands twice"),
        (lambda: changed(three(), split_case), "14-002 stands in two folds"),
        (lambda: {"r18": arm(0), "r34": arm(100, seeds=3)}, "r34 at 40x has 3 replicates"),
        (
            lambda: {"r18": arm(0), "r34": {"40x": arm(100)["40x"]}},
            "r34 has magnifications 40x, r18 has 40x, 100x",
        ),
        (lambda: {"r18": {}, "r34": {}}, "no predictions"),
        (lambda: {"r18": {"40x": []}, "r34": {"40x": []}}, "has 0 replicates"),
        (lambda: {"r18": arm(0)}, "only one arm"),
        (lambda: {"r34": arm(0), "r50": arm(1)}, "reference=r18: no such arm"),
        (lambda: {"r18": arm(0, benign=1), "r34": arm(1, benign=1)}, "only 1 benign case"),
        (lambda: changed(three(), lambda r: replace(r, fold=r.table.malignant)), "undefined"),
    ],
)
def test_what_may_not_be_compared_is_refused(make: Callable[[], Mapping[str, Arm]], message: str) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        compare_arms(make(), reference="r18", draws=50)
    assert "\n" not in str(refusal.value)


def test_magnifications_on_different_folds_are_refused() -> None:
    arms = {n: {m: a[m] for m in a} for n, a in three().items()}
    for name in arms:
        arms[name]["100x"] = [regrouped(r) for r in arms[name]["100x"]]
    with pytest.raises(UserError, match="14-000 stands in two folds"):
        compare_arms(arms, reference="r18")


def test_classes_that_disagree_are_refused() -> None:
    def flipped(r: Replicate) -> Replicate:
        names = r.table.class_name.copy()
        names[r.table.case == "14-000"] = "malignant"
        return replace(r, table=replace(r.table, class_name=names))

    with pytest.raises(UserError, match="two cases or classes"):
        compare_arms(one_changed("r34", flipped), reference="r18")


@pytest.mark.parametrize(
    "score", ["auroc", "case_f2", "patient_auroc", "case_patient_recognition_rate", "case_aurok"]
)
def test_unknown_scores_are_refused(score: str) -> None:
    with pytest.raises(UserError, match=f"score={score}: unknown"):
        compare_arms(three(), reference="r18", score=score)


def test_unknown_scores_are_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean case_auroc"):
        named_score("case_aurok")
