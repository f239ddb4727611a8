"""What may not be compared is refused in one line that says what and where."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from factories.replicates import changed, rows, seeds_of, three, without
from histo_lightning.errors import UserError
from histo_lightning.evaluation.differences import Replicate, compare_levels
from histo_lightning.evaluation.differences.layout import Predictions
from histo_lightning.evaluation.registry import named_score


def one_changed(name: str, change: Callable[[Replicate], Replicate]) -> Predictions:
    """All arms, with a change to one arm's second replicate at 100x."""
    arms = three()
    arms[name]["100x"][1] = change(arms[name]["100x"][1])
    return arms


def renamed(r: Replicate) -> Replicate:
    image = r.table.image.copy()
    image[0] = "other.png"
    return r._replace(table=replace(r.table, image=image))


def regrouped(r: Replicate) -> Replicate:
    fold = r.fold.copy()
    fold[r.table.case == "14-000"] = 1
    return r._replace(fold=fold)


def ungrouped(r: Replicate) -> Replicate:
    return r._replace(table=replace(r.table, case=np.full_like(r.table.case, "")))


def split_case(r: Replicate) -> Replicate:
    fold = r.fold.copy()
    fold[np.flatnonzero(r.table.case == "14-002")[0]] = 4
    return r._replace(fold=fold)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: one_changed("r34", lambda r: without(r, "14-003")),
            "different images: image .* of the benign case 14-003 is not in it",
        ),
        (
            lambda: one_changed("r18", lambda r: without(r, "14-003")),
            "different images: image .* case 14-003",
        ),
        (
            lambda: one_changed("r50", lambda r: rows(r, np.arange(1, len(r.table)))),
            "image 100-0.png of the benign case 14-000 is not in it",
        ),
        (lambda: one_changed("r50", renamed), "different images"),
        (lambda: one_changed("r34", regrouped), "different folds"),
        (lambda: one_changed("r34", ungrouped), "GROUPING UNKNOWN"),
        (lambda: one_changed("r18", lambda r: r._replace(fold=r.fold[1:])), "folds for"),
        (lambda: one_changed("r18", lambda r: rows(r, np.r_[0, np.arange(len(r.table))])), "appears twice"),
        (lambda: changed(three(), split_case), "case 14-002 is in two folds"),
        (
            lambda: {"r18": seeds_of(0), "r34": seeds_of(100, seeds=3)},
            r"r34 has replicates \(seeds\): 3 at 40x, 3 at 100x; r18 has 4 at 40x",
        ),
        (
            lambda: {"r18": seeds_of(0), "r34": {"40x": seeds_of(100)["40x"]}},
            "r34 has .* 4 at 40x; r18 has 4 at 40x, 4 at 100x",
        ),
        (lambda: {"r18": {}, "r34": {}}, "r18 has replicates .* none"),
        (lambda: {"r18": {"40x": []}, "r34": {"40x": []}}, "r18 has replicates .* 0 at 40x"),
        (lambda: {"r18": seeds_of(0)}, "needs it and another level; there is r18"),
        (lambda: {"r34": seeds_of(0), "r50": seeds_of(1)}, "reference=r18: a comparison needs it"),
        (lambda: {"r18": seeds_of(0, benign=1), "r34": seeds_of(1, benign=1)}, "only 1 benign case"),
        (lambda: changed(three(), lambda r: r._replace(fold=r.table.malignant)), "undefined"),
    ],
)
def test_what_may_not_be_compared_is_refused(make: Callable[[], Predictions], message: str) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        compare_levels(make(), reference="r18", draws=50)
    assert "\n" not in str(refusal.value)


def test_magnifications_on_different_folds_are_refused() -> None:
    arms = {n: {m: a[m] for m in a} for n, a in three().items()}
    for name in arms:
        arms[name]["100x"] = [regrouped(r) for r in arms[name]["100x"]]
    with pytest.raises(UserError, match="case 14-000 is in two folds"):
        compare_levels(arms, reference="r18")


def test_classes_that_disagree_are_refused() -> None:
    def flipped(r: Replicate) -> Replicate:
        names = r.table.class_name.copy()
        names[r.table.case == "14-000"] = "malignant"
        return r._replace(table=replace(r.table, class_name=names))

    with pytest.raises(
        UserError, match=r"image 100-0\.png of the (malignant|benign) case 14-000 is not in it"
    ):
        compare_levels(one_changed("r34", flipped), reference="r18")


@pytest.mark.parametrize(
    "score", ["auroc", "case_f2", "patient_auroc", "case_patient_recognition_rate", "case_aurok"]
)
def test_unknown_scores_are_refused(score: str) -> None:
    with pytest.raises(UserError, match=f"score={score}: unknown"):
        compare_levels(three(), reference="r18", score=score)


def test_unknown_scores_are_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean case_auroc"):
        named_score("case_aurok")
