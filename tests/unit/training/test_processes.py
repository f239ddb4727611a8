"""Several processes of a run: who is first, what it tells the others, and that none outlives it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from histo_lightning.config.exits import EXIT_INTERRUPTED
from histo_lightning.errors import UserError
from histo_lightning.runs import RunFolder
from histo_lightning.training import fit
from histo_lightning.training.fit import FOLDER, first_of_several, folder_of_first, rank


@pytest.mark.parametrize(
    ("environment", "number"),
    [({}, 0), ({"LOCAL_RANK": "1"}, 1), ({"RANK": "3", "LOCAL_RANK": "1"}, 3), ({"SLURM_PROCID": "2"}, 2)],
)
def test_the_number_of_a_process(monkeypatch: pytest.MonkeyPatch, environment, number: int) -> None:
    for name in fit.RANKS:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert rank() == number


def test_the_first_process_leaves_nothing_in_the_environment(tmp_path: Path) -> None:
    before = dict(os.environ)
    with first_of_several(tmp_path / "run"):
        assert os.environ[FOLDER] == f"{os.getpid()} {(tmp_path / 'run').resolve()}"
        os.environ["LOCAL_RANK"] = "0"  # Lightning's launcher does
        os.environ["MASTER_PORT"] = "1"
    assert dict(os.environ) == before


def test_a_process_that_slurm_started_finds_the_living_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.setattr(fit, "PATIENCE_SECONDS", 0.6)
    with RunFolder(tmp_path / "run").recorded():  # running, by its file, and nobody holds its lock
        with pytest.raises(UserError, match="the first process has not begun its run"):
            folder_of_first(tmp_path, "run")
        second = RunFolder(tmp_path / "run-2")
        with second.locked(), second.recorded():
            assert folder_of_first(tmp_path, "run") == tmp_path / "run-2"


PARENT = """
import os, subprocess, sys, time
os.environ["HISTO_RUN_FOLDER"] = f"{os.getpid()} {sys.argv[1]}"
child = subprocess.Popen([sys.executable, "-c", '''
import os, time
from pathlib import Path
from histo_lightning.training.fit import folder_of_first
print(os.getpid(), folder_of_first(Path("."), "run"), flush=True)
time.sleep(600)
'''])
time.sleep(600)
"""


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False


def test_a_further_process_ends_when_the_first_is_killed(tmp_path: Path) -> None:
    line = [sys.executable, "-c", PARENT, str(tmp_path / "run")]
    parent = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    number, folder = parent.stdout.readline().split(" ", 1)
    assert folder.strip() == str(tmp_path / "run")
    child = int(number)
    assert alive(child)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 20
    while alive(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(child)


def test_a_further_process_ends_when_the_first_was_killed_before_it_looked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    statuses, ended = list[int](), threading.Event()
    monkeypatch.setattr(os, "_exit", lambda status: (statuses.append(status), ended.set()))
    monkeypatch.setenv(FOLDER, f"{os.getpid()} run")  # which did not start this process
    assert folder_of_first(Path(), "run") == Path("run")
    assert ended.wait(10)
    assert statuses[0] == EXIT_INTERRUPTED
