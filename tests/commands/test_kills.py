"""Runs that are stopped, killed and moved end like runs that nobody disturbed: bit for bit, with nothing left behind."""

import json
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch

from factories.kills import OVERRIDES, Moments, attempt, differing, narrow, soak
from factories.runs import SMALL, finish, read, run_folder, start, train_here, wait_for_epoch
from histo_lightning.config.exits import INTERRUPTED
from histo_lightning.runs.files import replacing, write_atomic

STEPS = 6  # an epoch
STOPS = (
    ("on_train_batch_start", 2, (signal.SIGTERM, signal.SIGTERM), 2),
    ("on_train_batch_start", 1, (signal.SIGUSR1,), 3),
    ("on_validation_batch_start", 2, (signal.SIGINT, signal.SIGTERM), STEPS),
    ("on_train_epoch_end", 1, (signal.SIGTERM,), STEPS + 1),
    ("on_validation_batch_start", 1, (signal.SIGUSR1, signal.SIGUSR1), 2 * STEPS),
    ("on_train_epoch_end", 1, (signal.SIGINT,), 2 * STEPS),
    ("on_predict_batch_start", 3, (signal.SIGTERM,), 2 * STEPS),
)


@pytest.fixture(scope="module", autouse=True)
def narrow_networks() -> Iterator[None]:
    with narrow():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> tuple[Path, list[str]]:
    """A run that nobody disturbs, and the moments that it has."""
    root = tmp_path_factory.mktemp("whole")
    status, moments = attempt(root, cache_dir)
    assert status == 0, (root / "log").read_text()
    return run_folder(root), moments


def stop(
    root: Path, cache_dir: Path, hook: str, at: int, numbers: tuple[signal.Signals, ...], *overrides: str
) -> int:
    """Run until signals come in the hook's ``at``-th call; the step of the checkpoint."""
    moments = Moments(at, lambda: [signal.raise_signal(number) for number in numbers], (hook,))
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        with pytest.raises(KeyboardInterrupt):
            train_here(root, cache_dir, *overrides, callbacks=[moments], pictures=False)
        assert all(signal.getsignal(number) is signal.default_int_handler for number in numbers)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    folder = run_folder(root)
    assert read(folder / "status.json")["state"] == "interrupted"
    assert not list(root.rglob(".*.tmp"))
    return int(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"])


def test_a_run_goes_on_from_the_step_where_a_signal_stopped_it(
    whole: tuple[Path, list[str]], tmp_path: Path, cache_dir: Path
) -> None:
    """In an epoch, in a validation, at the end of an epoch and of the fit, in scoring; each time in another place."""
    root = tmp_path / "run"
    for number, (hook, at, signals, step) in enumerate(STOPS):
        assert stop(root, cache_dir, hook, at, signals, *OVERRIDES) == step
        root = root.rename(tmp_path / f"moved {number}")
    folder = train_here(root, cache_dir, *OVERRIDES, pictures=False)
    assert folder.is_relative_to(root)
    assert differing(whole[0], folder) == []


@pytest.mark.long
@pytest.mark.parametrize(
    "more",
    [
        ("scheduler=plateau", "scheduler.patience=0"),
        ("+trainer.val_check_interval=3",),
        ("+trainer.accumulate_grad_batches=2",),
        ("+trainer.check_val_every_n_epoch=2", "epochs=4"),
        ("trainer.workers=2", "sampler=case_balanced"),
        ("augment=thesis_pillow", "trainer.workers=1"),
        ("callbacks=none",),
        ("trainer.progress=bar",),
    ],
    ids=lambda more: more[0],
)
def test_a_stopped_run_of_any_kind_goes_on_from_its_step(
    tmp_path: Path, cache_dir: Path, more: tuple[str, ...]
) -> None:
    line = (*OVERRIDES, "epochs=3", *more)
    if "callbacks=none" in more:
        line = tuple(given for given in line if not given.startswith(("callbacks=[", "callbacks.")))
    whole = train_here(tmp_path / "whole", cache_dir, *line, pictures=False)
    for number, (hook, at) in enumerate(
        [("on_train_batch_start", 1), ("on_train_batch_start", STEPS + 2), ("on_validation_batch_start", 3)]
    ):
        root = tmp_path / str(number)
        stop(root, cache_dir, hook, at, (signal.SIGTERM,), *line)
        folder = train_here(root, cache_dir, *line, pictures=False)
        assert differing(whole, folder) == []


def test_killed_runs_end_like_whole_ones(
    whole: tuple[Path, list[str]], tmp_path: Path, cache_dir: Path
) -> None:
    """One run, killed at ever later moments; a long soak of many: ``python -m factories.kills``."""
    generator, kills = random.Random(0), list[str]()
    for _ in range(4):
        status, reached = attempt(tmp_path, cache_dir, at=generator.randint(1, len(whole[1])))
        assert status in (0, -signal.SIGKILL), (tmp_path / "log").read_text()
        kills += reached[-1:] if status else []
    status, _ = attempt(tmp_path, cache_dir)
    assert status == 0, (tmp_path / "log").read_text()
    assert differing(whole[0], run_folder(tmp_path)) == [], kills


@pytest.mark.long
def test_a_soak_of_kills_finds_no_difference(cache_dir: Path, tmp_path: Path) -> None:
    found = soak(int(os.environ.get("HISTO_KILLS", "30")), 1, cache_dir)
    assert found["kills"] >= int(os.environ.get("HISTO_KILLS", "30"))
    assert found["differing"] == 0, json.dumps([each for each in found["outcomes"] if each["differences"]])


@pytest.mark.parametrize("moment", ["open", "write", "fsync", "replace"])
def test_a_file_whose_writer_was_killed_is_whole_and_nothing_is_left(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "a [1].json"
    write_atomic(path, "before")
    child = os.fork()
    if child == 0:
        with replacing(path) as file:
            if moment != "open":
                file.write(b"af")
                file.flush()
            if moment in ("open", "write"):
                os.kill(os.getpid(), signal.SIGKILL)
            owner = os if moment == "fsync" else Path
            mock.patch.object(
                owner, moment, side_effect=lambda *_: signal.raise_signal(signal.SIGKILL)
            ).start()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert path.read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 2
    with replacing(tmp_path / "b.json") as file:  # another's: stays
        file.write(b"text")
        write_atomic(path, "after")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a [1].json", "b.json"]
    assert path.read_text() == "after"


def test_a_living_writer_keeps_its_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with replacing(path) as file:
            file.write(b"slow")
            os.write(ready[1], b"1")
            os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    write_atomic(path, "fast")
    os.write(done[1], b"1")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert path.read_text() == "slow"
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_two_processes_stop_at_the_same_step_and_go_on(
    tmp_path: Path, cache_dir: Path, number: signal.Signals
) -> None:
    """The signal reaches the first process alone, twice."""
    line = (*SMALL[:3], *OVERRIDES, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    line += ("trainer.threads=1", "trainer.progress=none", "epochs=4")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
    assert finish(start(whole, cache_dir, *line)) == 0
    process = start(stopped, cache_dir, *line)
    wait_for_epoch(stopped, process, 0)
    process.send_signal(number)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (75, f"{INTERRUPTED}\n")
    state = torch.load(run_folder(stopped) / "checkpoints" / "last.ckpt", weights_only=True)
    assert 0 < state["global_step"] < 4 * STEPS
    assert finish(start(stopped, cache_dir, *line)) == 0
    assert differing(run_folder(whole), run_folder(stopped)) == []
