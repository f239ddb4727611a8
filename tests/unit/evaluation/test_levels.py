"""From images to slides to cases, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from factories.predictions import table_of
from histo_lightning.errors import UserError
from histo_lightning.evaluation import Table, make_table, score_predictions
from histo_lightning.evaluation.levels import kish, units

# slide, subtype, case, logit of malignant: case 14-1 has two slides, 14-9 two subtypes, as the real ones do.
ROWS = [
    ("F-14-1", "F", "14-1", -2.0),
    ("F-14-1", "F", "14-1", -1.0),
    ("F-14-1", "F", "14-1", 4.0),
    ("F-14-1B", "F", "14-1", -3.0),
    ("A-14-9", "A", "14-9", 1.0),
    ("F-14-9", "F", "14-9", -0.5),
    ("DC-14-2", "DC", "14-2", 0.5),
    ("DC-14-2", "DC", "14-2", -0.25),
    ("DC-14-3", "DC", "14-3", -1.0),
    ("DC-14-3", "DC", "14-3", 2.0),
    ("DC-14-3", "DC", "14-3", -1.5),
]


def hand_table(task: str = "binary") -> Table:
    logits = np.array([[0.0, x] for *_, x in ROWS])
    if task == "subtype":
        logits = np.zeros((len(ROWS), 8))
        logits[:, 4] = [x for *_, x in ROWS]
        logits[:, 1] = 1.0
    slide, subtype, case, _ = (list(column) for column in zip(*ROWS, strict=True))
    return table_of(task, subtype, slide, case, logits)


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def by_case(here, cases=("14-1", "14-2", "14-3", "14-9")):
    assert [str(here.cases[c]) for c in here.case] == list(cases)
    return dict(zip(cases, zip(here.p.tolist(), here.decision.tolist(), strict=True), strict=True))


def test_mean_probability() -> None:
    found = by_case(units(hand_table(), "case"))
    p = np.mean([sigmoid(x) for x in (-1.0, 2.0, -1.5)])
    assert found["14-3"] == (pytest.approx(p), int(p >= 0.5))
    p = np.mean([sigmoid(x) for x in (-2.0, -1.0, 4.0, -3.0)])
    assert found["14-1"] == (pytest.approx(p), 0)


def test_a_threshold_on_the_mean_probability() -> None:
    plain = units(hand_table(), "case")
    at = float(plain.p[0])
    assert units(hand_table(), "case", threshold=at).decision[0] == 1, "malignant at p >= threshold"
    assert units(hand_table(), "case", threshold=np.nextafter(at, 1)).decision[0] == 0


def test_patient_recognition_rate_by_hand() -> None:
    slide = score_predictions(hand_table(), intervals=False)["slide"]
    benign = [2 / 3, 1.0, 0.0, 1.0]  # F-14-1, F-14-1B, A-14-9, F-14-9
    malignant = [1 / 2, 1 / 3]
    assert slide["n"] == 6
    assert slide["patient_recognition_rate"]["value"] == pytest.approx(np.mean(benign + malignant))
    assert slide["patient_recognition_rate_benign"]["value"] == pytest.approx(np.mean(benign))
    assert slide["patient_recognition_rate_malignant"]["value"] == pytest.approx(np.mean(malignant))
    image = score_predictions(hand_table(), intervals=False)["image"]
    assert image["accuracy"]["value"] == pytest.approx(6 / 11), (
        "not the image rate, which weighs big slides more"
    )


def test_eight_classes_count_case_by_subtype() -> None:
    result = score_predictions(hand_table("subtype"), intervals=False)
    assert result["case"]["n"] == 5
    assert result["case"]["binary"]["n"] == 4
    assert result["case"]["recall"]["F"]["cases"] == 2
    assert result["case"]["confusion"][0][1] == 1, "the A part of case 14-9 is a unit of its own, called F"


def test_eight_classes_decide_by_the_largest_and_binary_by_p_malignant() -> None:
    table = hand_table("subtype")
    logits = np.zeros((len(ROWS), 8))
    logits[:, 1] = 1.0
    logits[:, 4:] = 0.9  # F is the largest, but the four malignant subtypes hold more than half
    table = make_table(
        "subtype",
        **{n: getattr(table, n).tolist() for n in ("image", "path", "class_name")},
        **{n: getattr(table, n).tolist() for n in ("subtype", "slide", "case", "magnification", "part")},
        logits=logits,
    )
    image = score_predictions(table, intervals=False)["image"]
    assert image["recall"]["F"]["value"] == 1.0
    assert image["binary"]["specificity"]["value"] == 0.0


def test_single_images_are_their_own_cases() -> None:
    table = hand_table()
    alone = replace(table, slide=table.image, case=table.image)
    image, case = units(alone, "image"), units(alone, "case")
    order = np.argsort(alone.image)
    np.testing.assert_array_equal(case.decision, image.decision[order])
    np.testing.assert_allclose(case.p, image.p[order])


def test_groups_of_two_classes_are_refused() -> None:
    table = hand_table()
    with pytest.raises(UserError, match="case one has two classes"):
        units(replace(table, case=np.full(len(table), "one")), "image")
    mixed = replace(table, slide=np.where(table.image == "10.png", "F-14-1", table.slide))
    with pytest.raises(UserError, match="slide F-14-1 has two classes"):
        score_predictions(mixed)


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(UserError, match="level=patient: levels are image, slide, case"):
        units(hand_table(), "patient")


def test_kish_numbers() -> None:
    assert kish(np.array([5, 5, 5, 5])) == pytest.approx(4)
    assert kish(np.array([97, 1, 1, 1])) == pytest.approx(100**2 / (97**2 + 3))
    assert kish(np.array([], np.int64)) == 0


def test_sixteen_benign_cases_are_worth_about_nine_and_a_half(census_records) -> None:
    sizes: dict[str, int] = {}
    for record in census_records:
        if record.class_name == "benign":
            sizes[record.case] = sizes.get(record.case, 0) + 1
    assert len(sizes) == 16
    assert kish(np.array(list(sizes.values()))) == pytest.approx(9.5, abs=0.4)
