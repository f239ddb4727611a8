"""What a study leaves: the summary, the tables, the pictures and the page."""

import csv
import json
import math
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib import pyplot, rcParams
from PIL import Image

from factories.studies import IDENTITY, finish, fit, plan_of
from histo_lightning.errors import UserError
from histo_lightning.tuning.results import (
    OPTIMISTIC,
    Row,
    draw_study,
    summarise,
    trial_rows,
    visible_range,
    write_study_page,
    write_tables,
)
from histo_lightning.tuning.search import Attempt, Studies
from histo_lightning.tuning.study import objective

FACTS = [
    {
        "fold": 0,
        "kind": "case_kfold",
        "label": "",
        "hash": "ab",
        "source": "drawn",
        "parts": {"train": 98, "val": 30, "test": 34},
        "cases": {"train": 42, "val": 14, "test": 14},
    }
]
FEW = ("tune.trials=14", "tune.warmup_epochs=2", "tune.pruner_trials=3")


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Studies:
    """14 trials that count and a failed one with a hostile error."""
    plan, hostile = plan_of(tmp_path_factory.mktemp("a study"), *FEW), ["=<script>alert(1)</script>"]

    def train(attempt: Attempt) -> float:
        if attempt.number == 4 and hostile:
            raise UserError(hostile.pop())
        return fit(plan, attempt)

    finish(plan, train)
    return Studies(plan, IDENTITY)


def test_the_summary_counts_and_names_the_best(studies: Studies) -> None:
    rows = trial_rows(studies)
    study = summarise(studies, rows, FACTS, None)
    complete = [row for row in rows if row["state"] == "complete"]
    pruned = sum(row["state"] == "pruned" for row in rows)
    assert study["counts"] == {
        "trials": 14,
        "complete": len(complete),
        "pruned": pruned,
        "failed": 1,
        "taken_up_again": 0,
    }
    assert (study["state"], len(complete) + pruned) == ("finished", 14)
    budget = study["by_depth"]["resnet18"]["budget"]
    assert (budget["trials"], budget["epochs"]) == (14, sum(len(row["curve"]) for row in rows))
    best = min(complete, key=lambda row: row["value"])
    assert study["best"]["value"] == best["value"]
    assert study["best"]["overrides"][0] == f"optimizer.lr={best['values']['optimizer.lr']}"
    assert [edge["key"] for edge in study["best"]["edges"]] == ["optimizer.lr", "optimizer.weight_decay"]
    assert study["search"]["space"]["optimizer.lr"] == {"low": 1e-5, "high": 0.1, "log": True, "step": None}
    assert (study["data"], study["protocol"]["test_read"]) == ("synthetic", 0)
    json.dumps(study, allow_nan=False)


def test_the_tables_have_a_row_a_trial_and_a_row_an_epoch(studies: Studies, tmp_path: Path) -> None:
    rows = trial_rows(studies)
    write_tables(tmp_path, rows, {})
    with (tmp_path / "trials.csv").open(newline="") as file:
        trials = list(csv.DictReader(file))
    assert [row["error"] for row in trials if row["error"]] == ["'=<script>alert(1)</script>"]
    assert [float(row["optimizer.lr"]) for row in trials] == [row["values"]["optimizer.lr"] for row in rows]
    with (tmp_path / "curves.csv").open(newline="") as file:
        curves = [float(row["value"]) for row in csv.DictReader(file)]
    assert curves == [value for row in rows for value in row["curve"]]


def test_the_page_says_the_protocol_in_words(studies: Studies) -> None:
    folder, rows, before = studies.plan.folder, trial_rows(studies), dict(rcParams)
    study = summarise(studies, rows, FACTS, None)
    titles = draw_study(studies, rows)
    assert list(titles) == ["history", "values_resnet18", "curves_resnet18"]
    for name in titles:
        with Image.open(folder / "plots" / f"{name}.png") as picture:
            assert picture.width >= 600
    assert pyplot.get_fignums() == []
    assert {key for key in before if before[key] != rcParams[key]} <= {"backend", "backend_fallback"}
    write_study_page(folder, rows, study, titles)
    page = " ".join((folder / "report.html").read_text().split())
    for words in (
        "SYNTHETIC IMAGES: says nothing about tissue",
        "Fold 0 of case_kfold: 98 images of 42 cases to train on, 30 validation images of 14 cases to choose on",
        "The study belongs to fold 0 and reads that fold's validation set only.",
        "No trial read the test set. It was not read at all.",
        "The test set was left unread.",
        "Validation holds 14 cases only",
        "Budget: 14 trials of at most",
        "and 1 failed",
        f"python -m histo_lightning.train {study['best']['overrides'][0]}",
    ):
        assert words in page, words
    assert page.count("data:image/png") == 3
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_several_folds_are_called_optimistic_and_test_scores_are_shown(
    studies: Studies, tmp_path: Path
) -> None:
    config = replace(studies.plan.config, nested=False, tune=replace(studies.plan.config.tune, folds=[0, 2]))
    several = Studies(replace(studies.plan, config=config), IDENTITY)
    score = {"value": 0.91, "low": 0.82, "high": None}
    level = {"auroc": score, "balanced_accuracy": {"value": 0.7, "low": 0.6, "high": 0.8}}
    run = {"run": "a", "test_read": 1, "same_training": None, "test": {"case": level, "image": level}}
    final = {"trial": 3, "runs": [run | {"fold": 0}, run | {"fold": 2}]}
    rows = trial_rows(several)
    study = summarise(several, rows, [FACTS[0], FACTS[0] | {"fold": 2}], final)
    assert (study["protocol"]["nested"], study["protocol"]["warning"]) == (False, OPTIMISTIC)
    write_study_page(tmp_path, rows, study, {})
    page = (tmp_path / "report.html").read_text()
    assert page.count(OPTIMISTIC) >= 2
    assert "validation sets of folds 0, 2" in page
    assert "It was read twice, after the best setting was fixed" in page
    assert "0.600 to 0.800" in page
    assert page.count("0.910") == 4


@pytest.mark.long
def test_importance_is_that_of_the_key_that_matters_and_tpe_finds_its_value(
    studies: Studies, tmp_path: Path
) -> None:
    plan = plan_of(tmp_path, *FEW, "tune.sampler=random", "tune.pruner=none", "seed=1")
    nine = replace(plan, config=replace(plan.config, tune=replace(plan.config.tune, trials=9)))
    assert "importance_resnet18" not in draw_study(Studies(nine, IDENTITY), finish(nine))
    others = finish(plan)
    searched = Studies(plan, IDENTITY)
    assert "importance_resnet18" in draw_study(searched, others)

    def spread(rows: list[Row]) -> float:
        return statistics.mean(abs(math.log10(row["values"]["optimizer.lr"]) + 3) for row in rows[5:])

    first = trial_rows(studies)
    assert spread(first) < spread(others)
    assert others[0]["values"] != first[0]["values"]  # another seed


def test_the_objective_is_the_scored_epoch_s() -> None:
    curve = [0.9, math.nan, 0.5, 0.7]
    best = plan_of(Path("x"), "scored_weights=best")
    assert objective(best, curve) == 0.5
    assert objective(plan_of(Path("x"), "scored_weights=best", "monitor=val_case_auroc"), curve) == 0.9
    last = plan_of(Path("x"))
    assert objective(last, curve) == 0.7
    for plan, undefined in ((best, [math.nan]), (last, [0.5, math.nan])):
        with pytest.raises(UserError, match="val_case_log_loss was undefined in the scored epoch"):
            objective(plan, undefined)


def test_diverged_values_do_not_press_the_others_into_a_line() -> None:
    low, high = visible_range([0.5, 0.52, 0.55, 0.6, 80.0], minimise=True)
    assert low < 0.5 < 0.6 < high < 1
    low, high = visible_range([0.9, 0.88, 0.86, 0.01], minimise=False)
    assert 0.5 < low < 0.86 < 0.9 < high


@pytest.mark.parametrize("key", ["optimizer.weight_decay", "both"])
def test_a_study_of_one_key_and_one_value_can_be_drawn(key: str, tmp_path: Path) -> None:
    one = "tune.space.optimizer.lr={low:null,high:null,log:null,choices:[0.001,100.0]}"
    left = [f"tune.space.{key}=null"] if key != "both" else []
    plan = plan_of(tmp_path, "tune.trials=1", one, *left)
    rows = finish(plan)
    titles = draw_study(Studies(plan, IDENTITY), rows)
    assert (tmp_path / "plots" / "values_resnet18.png").is_file()
    assert list(titles) == ["history", "values_resnet18", "curves_resnet18"]


def test_a_study_in_which_everything_failed_has_a_page(tmp_path: Path) -> None:
    def train(attempt: Attempt) -> float:
        raise UserError("val_loss became nan")

    plan = plan_of(tmp_path, "tune.trials=2", "tune.max_failed=2")
    rows = finish(plan, train)
    failed = Studies(plan, IDENTITY)
    study = summarise(failed, rows, FACTS, None)
    assert (study["state"], study["best"], study["counts"]["failed"]) == ("stopped", None, 2)
    write_tables(tmp_path, rows, study)
    write_study_page(tmp_path, rows, study, draw_study(failed, rows))
    page = (tmp_path / "report.html").read_text()
    assert "No trial was completed, so nothing was chosen." in page
    assert "This study stopped before its budget was used up" in page
