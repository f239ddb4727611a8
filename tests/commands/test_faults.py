"""Faults of the machine: a full disk, few open files, a clock that goes back, many commands at once: a line each, nothing lost."""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from factories.forkserver import server
from factories.runs import PICTURES, SMALL, logits_of, main_here, read, run_folder, start, train_here
from factories.soak import has_grown, soak


@contextmanager
def limited(kind: int, limit: int) -> Iterator[None]:
    """A limit of the system on this process."""
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Path:
    """A run that nothing disturbed."""
    return train_here(tmp_path_factory.mktemp("whole"), cache_dir, pictures=False)


def scores(run: Path) -> tuple[object, object, object]:
    return (
        read(run / "metrics.json")["test"],
        logits_of(run / "predictions" / "test.csv"),
        read(run / "status.json")["state"],
    )


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    whole: Path, tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    """At the log file, at the first checkpoint, at a picture; then with 64 open files and a clock that goes back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_dir))
    for size in (1000, 300_000):
        with limited(resource.RLIMIT_FSIZE, size):
            assert main_here("train", *SMALL, PICTURES, "trainer.progress=none") == 2
        shown = capfd.readouterr().err
        assert shown.count("\n") == 1, shown
        assert shown.startswith("error: ")
        assert "free space" in shown
        assert not list(tmp_path.rglob("*.tmp"))
    begun, seconds = time.time(), count()
    monkeypatch.setattr(time, "time", lambda: begun - 3600 * next(seconds))
    with limited(resource.RLIMIT_NOFILE, 64):
        assert main_here("train", *SMALL, PICTURES, "trainer.progress=none") == 0
    assert capfd.readouterr().err == ""
    run = run_folder(tmp_path)
    assert scores(run) == scores(whole)
    assert read(run / "status.json")["seconds"] < 600


SCARCE = """
import resource, sys
from histo_lightning import export
size = resource.getpagesize() * int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (size + {more} * 2**20,) * 2)
sys.argv = ["export", *{arguments}]
from histo_lightning.config.exits import guard
sys.exit(guard(export.main))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="the limit is of Linux")
def test_too_little_memory_is_one_line_and_leaves_nothing(whole: Path, tmp_path: Path) -> None:
    """Where a network is built, a library is loaded, a file is mapped; with enough the same command works."""
    arguments = [f"checkpoint={whole / 'checkpoints' / 'best.ckpt'}", f"output_dir={tmp_path}"]
    ends = []
    for more in (0, 60, 100, 2000):
        code = SCARCE.format(more=more, arguments=[*arguments, "format=safetensors"])
        done = server().run(["-c", code], tmp_path, os.environ)
        ends.append(done.returncode)
        if done.returncode:
            assert done.stderr.startswith("error: not enough memory ("), done.stderr
            assert done.stderr.count("\n") == 1, done.stderr
            assert not list((tmp_path / "exports").rglob("*.*"))
    assert ends[0] == 2
    assert ends[-1] == 0, done.stderr


@pytest.mark.long
def test_eight_equal_commands_on_one_cold_cache_do_one_run(whole: Path, tmp_path: Path) -> None:
    """One trains, the others wait for the images, and say that another process is working, or that all is done."""
    line = (*SMALL, "trainer.progress=none")
    processes = [start(tmp_path, tmp_path / "cache", *line) for _ in range(8)]
    for process in processes:
        _, err = process.communicate(timeout=600)
        assert process.returncode in (0, 2), err
        assert err.count("\n") == (process.returncode == 2), err
        assert "another process is working in it" in err or not err
    assert 0 in {process.returncode for process in processes}
    run = run_folder(tmp_path)
    assert scores(run) == scores(whole)
    assert read(run / "status.json")["test_read"] == 1
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".tmp", ".building")]


@pytest.mark.long
def test_eight_different_commands_on_one_cold_cache_and_folder(whole: Path, tmp_path: Path) -> None:
    target, few = f"checkpoint={whole / 'checkpoints' / 'best.ckpt'}", SMALL[1:]
    lines = {
        "train": SMALL,
        "train seed": (*SMALL, "seed=1"),
        "train -m": (*SMALL, "seed=2,3"),
        "prepare": few,
        "evaluate": (*few, target, "allow_seen_cases=true"),
        "predict": (target, f"input={whole / 'plots'}", "trainer=cpu"),
        "compare": (f"runs={whole}",),
        "tune": (*SMALL, "tune.trials=1", "tune.final=false"),
    }
    processes = {
        name: start(
            tmp_path, tmp_path / "cache", *line, program=f"histo_lightning.{name.removesuffix(' seed')}"
        )
        for name, line in lines.items()
    }
    for name, process in processes.items():
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, (name, err)
    states = [read(path)["state"] for path in tmp_path.rglob("status.json")]
    assert states == ["finished"] * 5
    assert (tmp_path / "outputs" / "index.html").is_file()
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".tmp", ".building")]


@pytest.mark.long
def test_a_sweep_of_many_runs_adds_no_memory_files_or_threads(tmp_path: Path, cache_dir: Path) -> None:
    trials = int(os.environ.get("HISTO_SOAK_TRIALS", "12"))
    found = soak(tmp_path, cache_dir, trials)
    assert (found["status"], found["finished"], found["stderr"]) == (0, trials, "")
    assert not has_grown(found), found["growth"]
