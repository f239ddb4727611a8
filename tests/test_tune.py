"""A study on scripted fits: budgets, pruning, killed and failed trials, several processes, what it writes."""

import csv
import json
import math
import multiprocessing
import signal
import sqlite3
import statistics
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from histo_lightning.report.study_page import write_study_page
from histo_lightning.report.study_pictures import draw_study, limits
from histo_lightning.tuning.collect import importances, rows
from histo_lightning.tuning.store import FRUITLESS, Claim, Store
from histo_lightning.tuning.workers import gpu_of, visible_gpus
from PIL import Image

from factories.studies import EPOCHS, curve_of, die, fit, work
from histo_lightning.errors import UserError
from histo_lightning.tuning.plan import Plan
from histo_lightning.tuning.results import OPTIMISTIC, TrialRow, summarise, write_tables
from test_tune_space import settled

FACTS = [
    {
        "fold": 0,
        "split": "case_kfold",
        "label": "",
        "split_hash": "ab",
        "source": "drawn",
        "images": {"train": 98, "val": 30, "test": 34},
        "cases": {"train": 42, "val": 14, "test": 14},
        "val_cases_by_label": [3, 11],
    }
]
FEW = ("tune.trials=14", "tune.warmup_epochs=2", "tune.pruner_trials=3")


def plan_of(folder: Path, *arguments: str) -> Plan:
    return Plan(folder, settled(*arguments), {"settings": "the same"}, {})


def finish(plan: Plan, store: Store | None = None) -> list[TrialRow]:
    store = store or Store(plan)
    while isinstance(claim := store.claim(), Claim):
        fit(plan, store, claim)
    assert claim == "done"
    return rows(plan, store)


def essence(found: list[TrialRow]) -> list[TrialRow]:
    """Rows without what a clock or a kill may change."""
    return [replace(row, seconds=None, attempts=0) for row in found]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[TrialRow]:
    return finish(plan_of(tmp_path_factory.mktemp("undisturbed"), *FEW))


def test_a_study_uses_its_budget_and_a_longer_one_begins_like_a_shorter(
    tmp_path: Path, undisturbed: list[TrialRow]
) -> None:
    folder = tmp_path / "it's {odd}? & 100%"
    first = finish(plan_of(folder, *FEW, "tune.trials=5"))
    assert essence(first) == essence(undisturbed[:5])
    found = finish(plan_of(folder, *FEW))
    assert essence(found) == essence(undisturbed)
    assert [row.trial for row in found] == list(range(14))
    assert {row.state for row in found} == {"complete", "pruned"}
    assert len({row.values["optimizer.lr"] for row in found}) == 14
    assert Store(plan_of(folder, *FEW)).claim() == "done"
    with sqlite3.connect(folder / "study.db") as connection:
        assert connection.execute("SELECT COUNT(*) FROM trials").fetchone() == (14,)


def test_median_pruning_follows_its_rule(undisturbed: list[TrialRow]) -> None:
    """By hand: best so far above the median of the values that completed trials had at that epoch."""
    full = [row for row in undisturbed if row.state == "complete"]
    pruned = [row for row in undisturbed if row.state == "pruned"]
    assert len(pruned) >= 4
    assert {len(row.curve) for row in full} == {EPOCHS}
    assert min(row.value for row in full) < min(min(row.curve) for row in pruned)
    checked = 0
    for row in undisturbed:
        before = [other for other in full if other.trial < row.trial]
        for epochs in range(2, len(row.curve) + 1):
            if len(before) < 3 or epochs == EPOCHS:
                continue
            median = statistics.median(other.curve[epochs - 1] for other in before)
            given_up = row.state == "pruned" and epochs == len(row.curve)
            assert (min(row.curve[:epochs]) > median) == given_up, (row.trial, epochs)
            checked += 1
    assert checked > 20


@pytest.mark.long
def test_halving_spares_epochs(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path, "tune.trials=10", "tune.pruner=halving", "tune.warmup_epochs=2", "tune.sampler=random"
    )
    found = finish(plan)
    assert {len(row.curve) for row in found if row.state == "complete"} == {EPOCHS}
    assert {len(row.curve) for row in found if row.state == "pruned"} <= {2, 3, 4}
    assert any(row.state == "pruned" for row in found)


def test_depths_have_equal_budgets_and_searches_of_their_own(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "tune=depth", "tune.trials=9")
    store = Store(plan)
    order = []
    while isinstance(claim := store.claim(), Claim):
        order.append(claim.arm.name)
        assert claim.values["model.name"] == claim.arm.name
        if claim.slot == 4:
            store.fail(claim, "diverged")  # made up for within the same depth
        else:
            fit(plan, store, claim)
    found = rows(plan, store)
    done = Counter(row.depth for row in found if row.state in ("complete", "pruned"))
    assert done == {"resnet18": 3, "resnet34": 3, "resnet50": 3}
    assert order[:3] == ["resnet18", "resnet34", "resnet50"]
    assert len(found) == 10
    study = summarise(plan, found, FACTS, importances(plan, store), None)
    for depth in done:
        budget = study["by_depth"][depth]["budget"]
        assert (budget["trials"], budget["complete"] + budget["pruned"]) == (3, 3)
        own = [row.value for row in found if row.depth == depth and row.state == "complete"]
        assert study["by_depth"][depth]["best"]["value"] == min(own)
        assert {edge["key"] for edge in study["by_depth"][depth]["best"]["edges"]} == {
            "optimizer.lr",
            "optimizer.weight_decay",
        }
    assert (
        sum(study["by_depth"][depth]["budget"]["failed"] for depth in done) == study["counts"]["failed"] == 1
    )


def test_a_failed_trial_is_recorded_and_made_up_for_until_too_many_fail(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "tune.trials=4", "tune.max_failed=2")
    store = Store(plan)
    first = store.claim()
    assert isinstance(first, Claim)
    store.fail(first, "val_loss became nan")
    second = store.claim()
    assert isinstance(second, Claim)
    assert (second.slot, second.values != first.values) == (1, True)
    store.fail(second, "=1+1")
    assert store.claim() == "stopped"
    assert [row.error for row in rows(plan, store)] == ["val_loss became nan", "=1+1"]
    again = replace(plan, failed_before=store.failed())  # the same command
    found = finish(again)
    assert Counter(row.state for row in found) == {"failed": 2, "complete": 4}
    write_tables(tmp_path, found, {})
    with (tmp_path / "trials.csv").open(newline="") as file:
        assert [row["error"] for row in csv.DictReader(file)][:2] == ["val_loss became nan", "'=1+1"]


def run_and_die(plan: Plan, epochs: int) -> None:
    process = multiprocessing.get_context("spawn").Process(target=die, args=(plan, epochs))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def test_kill_9_and_the_same_command_ends_like_an_undisturbed_study(
    tmp_path: Path, undisturbed: list[TrialRow]
) -> None:
    plan = plan_of(tmp_path, *FEW)
    store = Store(plan)
    for _ in range(9):
        claim = store.claim()
        assert isinstance(claim, Claim)
        fit(plan, store, claim)
    run_and_die(plan, 3)
    found = finish(plan)
    assert essence(found) == essence(undisturbed)
    assert [row.attempts for row in found] == [1] * 9 + [2] + [1] * 4
    assert summarise(plan, found, FACTS, importances(plan, store), None)["counts"] == {
        "trials": 14,
        "complete": sum(row.state == "complete" for row in undisturbed),
        "pruned": sum(row.state == "pruned" for row in undisturbed),
        "failed": 0,
        "taken_up_again": 1,
    }


def let_die(store: Store, epochs: int) -> Claim:
    """What is left of a killed worker: a trial that is said to run, and a lock that nobody holds."""
    claim = store.claim()
    assert isinstance(claim, Claim)
    claim.judge(curve_of(claim)[:epochs])
    claim.lock.close()
    return claim


def test_a_trial_that_always_kills_its_process_is_given_up(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "tune.trials=3")
    store = Store(plan)
    tries = [let_die(store, 0) for _ in range(FRUITLESS)]
    assert {claim.slot for claim in tries} == {0}
    assert len({json.dumps(dict(claim.values)) for claim in tries}) == 1
    found = finish(plan, store)
    assert [(row.state, row.attempts) for row in found] == [("failed", FRUITLESS)] + [("complete", 1)] * 3
    assert "its process died 3 times without finishing an epoch" in found[0].error
    assert store.failed() == 1


def test_a_trial_that_gets_on_is_taken_up_as_often_as_it_takes(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "tune.trials=1")
    store = Store(plan)
    for epochs in range(1, EPOCHS):
        let_die(store, epochs)
    (row,) = finish(plan, store)
    assert (row.state, row.attempts, len(row.curve)) == ("complete", EPOCHS, EPOCHS)


def test_a_living_trial_is_not_taken_for_a_dead_one(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "tune.trials=3")
    one, other = Store(plan), Store(plan)
    held = one.claim()
    assert isinstance(held, Claim)
    for _ in range(2):
        claim = other.claim()
        assert isinstance(claim, Claim)
        assert claim.slot != held.slot
        fit(plan, other, claim)
    assert other.claim() == "wait"  # it may yet fail
    fit(plan, one, held)
    assert (one.claim(), other.claim()) == ("done", "done")
    assert [row.attempts for row in rows(plan, one)] == [1, 1, 1]


def test_two_processes_share_one_budget(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    plan = plan_of(tmp_path, *FEW)
    workers = [context.Process(target=work, args=(plan, name)) for name in ("a", "b")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    found = rows(plan, Store(plan))
    assert [row.trial for row in found] == list(range(14))
    assert all(row.attempts == 1 and row.state in ("complete", "pruned") for row in found)
    taken = sorted(int(path.stem) for path in tmp_path.glob("*.[ab]"))
    assert taken == list(range(14))  # each by one of them


def test_another_study_in_the_folder_is_refused(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "tune.trials=1")
    Store(plan)
    with pytest.raises(
        UserError, match=r"other settings or data \(different: settings\); give another study_name"
    ):
        Store(replace(plan, identity={"settings": "others"}))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "study.db").write_text("no data base at all" * 100)
    with pytest.raises(UserError, match=r"study\.db: cannot be used"):
        Store(replace(plan, folder=tmp_path / "broken"))


def test_several_folds_are_pruned_fold_by_fold_and_called_optimistic(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "tune.folds=[0,2]", "nested=false", "tune.trials=8", "tune.sampler=random")
    store = Store(plan)
    while isinstance(claim := store.claim(), Claim):
        values = [curve_of(claim)[-1] + fold for fold in plan.folds]
        if claim.judge_fold(values[0]):
            store.prune(claim)
            continue
        claim.judge_fold(values[1])
        store.complete(claim, statistics.mean(values))
    found = rows(plan, store)
    for row in found:
        if row.state == "complete":
            assert row.value == pytest.approx(row.curve[1]) == pytest.approx(row.curve[0] + 1)
        else:
            assert len(row.curve) == 1
    facts = [FACTS[0], FACTS[0] | {"fold": 2}]
    study = summarise(plan, found, facts, importances(plan, store), None)
    assert (study["protocol"]["nested"], study["protocol"]["warning"]) == (False, OPTIMISTIC)
    page = write_study_page(tmp_path, found, study).read_text()
    assert page.count(OPTIMISTIC) >= 2


@pytest.mark.long
def test_importance_is_that_of_the_key_that_matters_and_tpe_finds_its_value(
    tmp_path: Path, undisturbed: list[TrialRow]
) -> None:
    plan = plan_of(tmp_path, *FEW, "tune.sampler=random", "tune.pruner=none", "seed=1")
    store = Store(plan)
    for _ in range(9):
        claim = store.claim()
        assert isinstance(claim, Claim)
        fit(plan, store, claim)
    (few,) = importances(plan, store).values()
    assert (few["values"], few["reason"]) == (None, "10 completed trials are needed, there are 9")
    others = finish(plan, store)
    (found,) = importances(plan, store).values()
    assert sum(found["values"].values()) == pytest.approx(1)
    assert found["values"]["optimizer.lr"] > 0.7  # the script looks at nothing else
    assert {row.state for row in others} == {"complete"}

    def spread(rows: list[TrialRow]) -> float:
        return statistics.mean(abs(math.log10(row.values["optimizer.lr"]) + 3) for row in rows[5:])

    assert spread(undisturbed) < spread(others)
    assert others[0].values != undisturbed[0].values  # another seed


def test_the_objective_is_the_scored_epoch_s() -> None:
    curve = [0.9, None, 0.5, 0.7]
    assert plan_of(Path("x")).objective(curve) == 0.5
    assert plan_of(Path("x"), "monitor=val_case_auroc").objective(curve) == 0.9
    assert plan_of(Path("x"), "scored_weights=last").objective(curve) == 0.7
    assert plan_of(Path("x")).objective([None]) is None


def test_diverged_values_do_not_press_the_others_into_a_line() -> None:
    low, high = limits([0.5, 0.52, 0.55, 0.6, 80.0], minimise=True)
    assert low < 0.5 < 0.6 < high < 1
    low, high = limits([0.9, 0.88, 0.86, 0.01], minimise=False)
    assert 0.5 < low < 0.86 < 0.9 < high


def test_gpus_go_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-ab")
    names = visible_gpus(2)
    assert [gpu_of(index, names) for index in range(5)] == ["3", "GPU-ab", "3", "GPU-ab", "3"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus(2) == ["0", "1"]
    assert gpu_of(1, []) is None


def test_the_page_says_the_protocol_in_words(tmp_path: Path, undisturbed: list[TrialRow]) -> None:
    plan = plan_of(tmp_path, *FEW)
    failed = replace(
        undisturbed[0], trial=14, state="failed", value=None, curve=(), error="<script>alert(1)</script>"
    )
    found = [*undisturbed, failed]
    about = {"resnet18": {"method": "", "trials": 3, "values": None, "reason": "3 completed trials"}}
    study = summarise(plan, found, FACTS, about, None)
    names = draw_study(tmp_path, found, study)
    assert names == [
        "history",
        "values_optimizer.lr",
        "values_optimizer.weight_decay",
        "importance",
        "curves_resnet18",
    ]
    for name in names:
        with Image.open(tmp_path / "plots" / f"{name}.png") as picture:
            assert picture.width >= 600
    page = write_study_page(tmp_path, found, study).read_text()
    for words in (
        "Fold 0 of case_kfold: 98 images of 42 cases to train on, 30 validation images of 14 cases (3 benign, 11 malignant)",
        "The study belongs to fold 0 and reads that fold&#x27;s validation part only.",
        "No trial read the test part. It was not read at all.",
        "The test part was left unread.",
        "Budget: 14 trials of at most",
        "and 1 failed",
    ):
        assert words in page, words
    assert page.count("data:image/png") == 5
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
