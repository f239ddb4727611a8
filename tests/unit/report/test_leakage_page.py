"""The leakage study's page, Markdown, figure and sentences, from the content of ``leakage.json``."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from factories.html import Page
from histo_lightning.report.leakage_page import draw_leakage, points, sentences, write_study
from histo_lightning.report.words import SHUFFLED, SYNTHETIC

Json = dict[str, Any]


def score(value: float | None, low: float | None = None, high: float | None = None, **more: Any) -> Json:
    """An entry of ``leakage.json``."""
    basis = {
        "cases": 27,
        "benign": 16,
        "images": 227,
        "seeds": 2,
        "reason": "too few cases",
        "conditional": None,
    }
    by_seed = [value, None if value is None else value - 0.01]
    return basis | {"value": value, "low": low, "high": high, "by_seed": by_seed} | more


def record(among: str, auroc: Json, **names: str) -> Json:
    other = {"balanced_accuracy": score(None), "accuracy": score(0.25)}
    return names | {"among": among, "auroc": auroc, "coverage": {"runs_left_out": 0}} | other


@pytest.fixture
def study() -> Json:
    """A study of all three blocks with a control, whose figures are made up."""
    arms = {
        "injected 0": score(0.71, 0.5, 0.86),
        "injected 0.5": score(None),
        "injected 1": score(0.97, 0.86, 0.99),
    }
    difference_1 = {"arm": "injected 1", "reference": "injected 0"}
    injection = {
        "arms": [record("all images", auroc, arm=arm) for arm, auroc in arms.items()],
        "pairs": [record("all images", score(0.26, 0.11, 0.4, p_holm=0.004), **difference_1)],
    }
    splits = {
        "image_random": score(0.96, 0.9, 0.99),
        "slide_kfold": score(0.8),
        "case_kfold": score(0.64, 0.4, 0.8),
    }
    contrast = {"arms": [record("all images", auroc, arm=arm) for arm, auroc in splits.items()], "pairs": []}
    folds = {"arm": "official", "reference": "official clean"}
    official = {
        "arms": [record("touched minus untouched", score(0.3, 0.06, 0.5), arm="official")],
        "pairs": [
            record("touched images", score(None), **folds),
            record("untouched images", score(-0.01, -0.08, 0.06), **folds),
        ],
    }
    shuffled = {"arms": [record("all images", score(0.5, 0.38, 0.62), arm="injected 0")], "pairs": []}
    found: Json = {
        "recipe": {"model.name": "resnet10", "dataset.name": "breakhis"}, "seeds": [0, 1], "magnifications": [100, 0],
        "runs": 12, "blocks": {"injection": injection, "contrast": contrast, "official": official},
        "control": {"injection": shuffled, "contrast": {"arms": [], "pairs": []}},
        "doses": {"injected 1": {"images": 45.2, "pool": 45.2, "probe": 45.4, "share": 1.0}},
        "design": [
            {"arm": "injected 0", "shuffled": True, "runs": 5, "label": "", "benign images": 9.0, "test images": 3.0,
             "malignant images": 20.5, "benign cases": 2.0, "malignant cases": 4.0},
        ],
        "problems": [], "missing": [],
    }  # fmt: skip
    return found | {"words": sentences(found)}


def written(study: Json, folder: Path) -> tuple[Page, str]:
    """The page and the Markdown."""
    return Page(write_study(study, folder)), (folder / "leakage.md").read_text(encoding="utf-8")


def test_sentences_point_both_ways(study: Json) -> None:
    words = study["words"]
    assert words["injection"] == (
        "Putting 100 % of the tested slides' siblings (on average 45 images a fold) into the train set, at the same "
        "number of train cases and images, changes image AUROC by +26.0 points (95 % interval +11.0 to +40.0; 27 cases, "
        "16 benign; 2 seeds). A rise below 11.0 and one above 40.0 points are not compatible with these data at that level."
    )
    assert words["control"].endswith(
        "an image AUROC of 0.50 (95 % interval 0.38 to 0.62), chance being 0.50."
    )
    assert "on the untouched images, changes image accuracy" not in words["official"]
    (pair,) = study["blocks"]["injection"]["pairs"]
    pair["auroc"] = score(0.0, -0.02, 0.03, conditional="conditional")
    around = sentences(study)["injection"]
    assert "It may be 0; a fall beyond 2.0 and a rise beyond 3.0 points" in around
    assert around.endswith("This is conditional.")
    pair["auroc"] = score(None)
    assert sentences(study)["injection"].endswith("cases and images,: AUROC is undefined (too few cases).")
    assert [points(value) for value in (0.0001, -0.0123, 0.05)] == ["0.0", "−1.2", "+5.0"]


def test_page_and_markdown_tell_the_same(study: Json, tmp_path: Path) -> None:
    page, text = written(study, tmp_path)
    assert [path.name for path in tmp_path.glob("*.*g")] == ["leakage.png"]
    assert page.is_self_contained()
    assert len(page.images) == 1
    assert "![Image scores by share" in text
    assert "](leakage.png)" in text
    for words in (
        *study["words"].values(),
        "12 finished runs; magnification 100X, all; seeds 0, 1",
        "a pool of 45.2",
    ):
        assert words in page.text
        assert words in text
    assert page.labels == [SHUFFLED]
    assert text.count(f"> **{SHUFFLED}**") == 1
    assert page.row("injected 1")[1:3] == ["0.970 0.860 to 0.990", "undefined: too few cases"]
    assert page.row("injected 1 minus injected 0")[1] == "+26.0 +11.0 to +40.0"
    assert page.row(f"injected 0, {SHUFFLED}")[2:] == ["9.0 / 20.5", "2.0 / 4.0", "3.0"]
    assert "Nothing: every run of the study is there." in page.text
    assert f"{SYNTHETIC}: Leakage study" == written(study | {"data": "synthetic"}, tmp_path)[0].title


def test_tables_say_differences_in_points_and_what_was_left_out(study: Json, tmp_path: Path) -> None:
    changed = deepcopy(study)
    changed["blocks"]["injection"]["pairs"][0]["coverage"]["runs_left_out"] = 3
    page, _ = written(changed, tmp_path)
    assert page.row("official")[:2] == ["touched minus untouched", "+30.0 +6.0 to +50.0"]
    row = page.row("injected 1 minus injected 0")
    assert row[4:] == ["0.004", "227, 27 (16), 2; finished runs without a counterpart left out: 3"]


def test_what_is_missing_is_said(study: Json, tmp_path: Path) -> None:
    gone = {"problems": ["two recipes"], "missing": [{"run": "a", "why": "<b>failed</b>"}]}
    page, text = written(study | gone, tmp_path)
    assert page.labels == ["two recipes", SHUFFLED]
    assert "Runs missing or left out: 1." in page.text
    assert "a: <b>failed</b>" in page.text
    assert r"- a: \<b\>failed\</b\>" in text


def test_nothing_to_compare(study: Json, tmp_path: Path) -> None:
    nothing = {"arms": [], "pairs": []}
    empty = study | {"blocks": {"injection": nothing, "contrast": nothing}, "doses": {}, "words": {}}
    empty["control"] = {"injection": nothing, "contrast": nothing}
    assert sentences(empty) == {}
    paths = draw_leakage(empty, tmp_path / "leakage", ("png", "svg"))
    assert "could be compared" in paths[1].read_text()
    assert "No two arms could be compared." in written(empty, tmp_path)[0].text
