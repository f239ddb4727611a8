"""A search on scripted fits: budgets, pruning, killed and failed trials, several processes."""

import os
import pickle
import signal
import sqlite3
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from factories.forkserver import Command, server
from factories.studies import EPOCHS, IDENTITY, die, finish, fit, plan_of, quicken, work
from histo_lightning.callbacks.progress import Pruned
from histo_lightning.errors import UserError
from histo_lightning.tuning import search
from histo_lightning.tuning.results import Row
from histo_lightning.tuning.search import Attempt, Studies
from histo_lightning.tuning.space import Plan

TESTS = str(Path(__file__).parents[2])
FEW = ("tune.trials=14", "tune.warmup_epochs=2", "tune.pruner_trials=3")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEARTBEAT_SECONDS", "GRACE_SECONDS", "POLL_SECONDS"):
        monkeypatch.setattr(search, name, getattr(search, name))
    quicken()


def essence(rows: list[Row]) -> list[dict]:
    """Rows without what a clock or a kill may change."""
    return [{key: value for key, value in row.items() if key not in ("seconds", "attempts")} for row in rows]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return finish(plan_of(tmp_path_factory.mktemp("undisturbed"), *FEW))


def test_a_study_uses_its_budget_and_a_longer_one_begins_like_a_shorter(
    tmp_path: Path, undisturbed: list[Row]
) -> None:
    folder = tmp_path / "it's {odd}? & 100%"
    first = finish(plan_of(folder, *FEW, "tune.trials=5"))
    assert essence(first) == essence(undisturbed[:5])
    rows = finish(plan_of(folder, *FEW))
    assert essence(rows) == essence(undisturbed)
    assert [row["trial"] for row in rows] == list(range(14))
    assert {row["state"] for row in rows} == {"complete", "pruned"}
    assert len({row["values"]["optimizer.lr"] for row in rows}) == 14
    assert len(finish(plan_of(folder, *FEW))) == 14
    with sqlite3.connect(folder / "study.db") as connection:
        assert connection.execute("SELECT COUNT(*) FROM trials").fetchone() == (14,)


def test_median_pruning_follows_its_rule(undisturbed: list[Row]) -> None:
    """By hand: best so far above the median of the values that completed trials had at that epoch."""
    full = [row for row in undisturbed if row["state"] == "complete"]
    pruned = [row for row in undisturbed if row["state"] == "pruned"]
    assert len(pruned) >= 4
    assert {len(row["curve"]) for row in full} == {EPOCHS}
    assert min(row["value"] for row in full) < min(min(row["curve"]) for row in pruned)
    checked = 0
    for row in undisturbed:
        before = [other for other in full if other["trial"] < row["trial"]]
        for epochs in range(2, len(row["curve"]) + 1):
            if len(before) < 3 or epochs == EPOCHS:
                continue
            median = statistics.median(other["curve"][epochs - 1] for other in before)
            given_up = row["state"] == "pruned" and epochs == len(row["curve"])
            assert (min(row["curve"][:epochs]) > median) == given_up, (row["trial"], epochs)
            checked += 1
    assert checked > 20


@pytest.mark.long
def test_halving_spares_epochs(tmp_path: Path) -> None:
    settings = ("tune.trials=10", "tune.pruner=halving", "tune.warmup_epochs=2", "tune.sampler=random")
    rows = finish(plan_of(tmp_path, *settings))
    assert {len(row["curve"]) for row in rows if row["state"] == "complete"} == {EPOCHS}
    assert {len(row["curve"]) for row in rows if row["state"] == "pruned"} <= {2, 3, 4}
    assert any(row["state"] == "pruned" for row in rows)


def test_depths_have_equal_budgets_and_searches_of_their_own(tmp_path: Path) -> None:
    plan, order = plan_of(tmp_path, "tune=depth", "tune.trials=9"), []

    def train(attempt: Attempt) -> float:
        order.append(attempt.search.name)
        assert attempt.values["model"] == attempt.search.name
        if len(order) == 5:
            raise UserError("diverged")  # replaced within the same depth
        return fit(plan, attempt)

    rows = finish(plan, train)
    done = Counter(row["depth"] for row in rows if row["state"] in ("complete", "pruned"))
    assert done == {"resnet18": 3, "resnet34": 3, "resnet50": 3}
    assert order[:3] == ["resnet18", "resnet34", "resnet50"]
    assert [(row["depth"], row["error"]) for row in rows if row["state"] == "failed"] == [
        ("resnet34", "diverged")
    ]
    first = {row["values"]["optimizer.lr"] for row in rows if row["trial"] == 0}
    assert len(first) == 1  # every depth begins with the same random setting


def test_a_failed_trial_is_recorded_and_replaced_until_too_many_fail(tmp_path: Path) -> None:
    plan, left = plan_of(tmp_path, "tune.trials=4", "tune.max_failed=2"), ["=1+1", "val_loss became nan"]

    def train(attempt: Attempt) -> float:
        if left:
            raise UserError(left.pop()) if len(left) > 1 else ZeroDivisionError(left.pop())
        return fit(plan, attempt)

    rows = finish(plan, train)
    errors = ["val_loss became nan", "defect: ZeroDivisionError: =1+1"]
    assert [(row["state"], row["error"]) for row in rows] == [("failed", error) for error in errors]
    assert rows[0]["values"] != rows[1]["values"]
    rows = finish(plan, train)  # the same command counts anew
    assert Counter(row["state"] for row in rows) == {"failed": 2, "complete": 4}
    assert [row["error"] for row in rows[:2]] == errors


def worker(plan: Plan, function: Callable[..., None], *given: object) -> Command:
    """A function of the studies' factory on a plan, in a process of its own."""
    told = repr(pickle.dumps((function, plan, given)))
    code = f"import pickle, sys; sys.path.append({TESTS!r}); f, plan, given = pickle.loads({told}); f(plan, *given)"
    return server().start(["-c", code], plan.folder.parent, os.environ)


def run_and_die(plan: Plan, number: int, epochs: int) -> None:
    assert worker(plan, die, number, epochs).wait(60) == -signal.SIGKILL


def test_kill_9_and_the_same_command_ends_like_an_undisturbed_study(
    tmp_path: Path, undisturbed: list[Row]
) -> None:
    plan = plan_of(tmp_path, *FEW)
    run_and_die(plan, number=9, epochs=3)
    rows = finish(plan)
    assert essence(rows) == essence(undisturbed)
    assert [row["attempts"] for row in rows] == [1] * 9 + [2] + [1] * 4


def test_ctrl_c_and_the_same_command_ends_like_an_undisturbed_study(
    tmp_path: Path, undisturbed: list[Row]
) -> None:
    plan = plan_of(tmp_path, *FEW)

    def train(attempt: Attempt) -> float:
        if attempt.number == 6:
            raise KeyboardInterrupt
        return fit(plan, attempt)

    with pytest.raises(KeyboardInterrupt):
        finish(plan, train)
    rows = finish(plan)
    assert essence(rows) == essence(undisturbed)
    assert [row["attempts"] for row in rows] == [1] * 6 + [2] + [1] * 7


def test_a_trial_that_always_kills_its_process_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MAX_RETRIES", 1)
    plan = plan_of(tmp_path, "tune.trials=2")
    run_and_die(plan, number=0, epochs=0)

    def train(attempt: Attempt) -> float:
        if attempt.number == 0:
            run_and_die(plan_of(tmp_path / "other", "tune.trials=1"), 0, 0)
            raise KeyboardInterrupt
        return fit(plan, attempt)

    with pytest.raises(KeyboardInterrupt):
        finish(plan, train)
    rows = finish(plan)
    assert [(row["state"], row["attempts"]) for row in rows] == [("failed", 2)] + [("complete", 1)] * 2
    assert rows[0]["error"] == "its process died 2 times"


def test_two_processes_share_one_budget_and_a_slow_trial_is_not_taken_for_a_dead_one(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, *FEW)
    workers = [worker(plan, work, name, 7) for name in ("a", "b")]
    assert [each.wait(120) for each in workers] == [0, 0]
    rows = finish(plan)
    assert [row["trial"] for row in rows] == list(range(14))
    assert all(row["attempts"] == 1 and row["state"] in ("complete", "pruned") for row in rows)
    taken = sorted(int(path.stem) for path in tmp_path.glob("*.[ab]"))
    assert taken == list(range(14))  # each by one of them
    assert max(row["seconds"] for row in rows) > search.GRACE_SECONDS


def test_another_study_in_the_folder_is_refused(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "tune.trials=1")
    Studies(plan, IDENTITY)
    with pytest.raises(
        UserError, match=r"other settings or data \(different: settings\); give another study_name"
    ):
        Studies(plan, {"settings": "others"})
    broken = plan_of(tmp_path / "broken", "tune.trials=1")
    broken.folder.mkdir()
    (broken.folder / "study.db").write_text("no data base at all" * 100)
    with pytest.raises(UserError, match=r"study\.db: cannot be used"):
        Studies(broken, IDENTITY)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"study\.db: cannot be used"):
        Studies(plan_of(tmp_path / "file" / "below", "tune.trials=1"), IDENTITY)


def test_several_folds_are_pruned_fold_by_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from factories.studies import curve_of
    from histo_lightning.tuning import study

    monkeypatch.setattr(study, "_train", lambda plan, attempt, fold: curve_of(attempt)[-1] + fold)
    plan = plan_of(tmp_path, "tune.folds=[0,2]", "nested=false", "tune.trials=12", "tune.pruner_trials=2")
    rows = finish(plan, lambda attempt: study.train_trial(plan, attempt))
    assert {row["state"] for row in rows} == {"complete", "pruned"}
    for row in rows:
        if row["state"] == "complete":
            assert row["value"] == pytest.approx(row["curve"][1]) == pytest.approx(row["curve"][0] + 1)
        else:
            assert len(row["curve"]) == 1


def test_a_curve_that_is_told_again_is_reported_once(tmp_path: Path) -> None:
    plan, counts = plan_of(tmp_path, "tune.trials=1"), []

    def train(attempt: Attempt) -> float:
        attempt.judge([0.5])
        attempt.judge([0.5, float("nan"), 0.3])
        attempt.judge([0.5, float("nan"), 0.3])
        counts.append(attempt.reported)
        raise Pruned("enough")

    (row,) = finish(plan_of(tmp_path, "tune.trials=1"), train)
    assert (row["curve"], counts, row["state"]) == ([0.5, 0.3], [3], "pruned")
    assert plan.run_name(plan.searches[0], 3) == "trial_0003"
