"""Signals that are held back while something is written, then have their effect, however they came."""

import _thread
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from histo_lightning.config import exits


@pytest.fixture(params=["delivered by the system", "called for, while SIGINT is blocked as Ray does"])
def send(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    monkeypatch.setattr(exits, "_arrived", [])
    blocked = {signal.SIGINT} if "blocked" in request.param else set()
    former, mask = signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield _thread.interrupt_main if blocked else (lambda number: os.kill(os.getpid(), number))
    signal.signal(signal.SIGINT, former)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def test_a_signal_held_back_within_another_hold_reaches_the_outer_one(send: Callable[[int], None]) -> None:
    exits.stop_on_signals()
    steps = []

    def step() -> None:
        with exits.signals_held() as outer:
            with exits.signals_held() as inner:
                send(signal.SIGINT)
                steps.append("written")
            assert inner == outer == [signal.SIGINT]
            steps.append("step done")

    with pytest.raises(KeyboardInterrupt):
        step()
    assert steps == ["written", "step done"]
    assert exits._arrived == [signal.SIGINT]
    with exits.signals_held() as later:  # nothing is left that comes later
        pass
    assert later == []


def test_the_default_effect_comes_after_the_hold() -> None:
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with exits.signals_held():
            os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)  # not reached
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGTERM


EXHAUSTED = """
import resource
from histo_lightning.config.exits import guard
kept = []
def fill():
    size = resource.getpagesize() * int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    for length in (10**6, 10**5, 10**4, 1000, 100, 10):
        try:
            while True:
                kept.append(bytes(length))
        except MemoryError:
            pass
    raise MemoryError
raise SystemExit(guard(fill))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="the limit is of Linux")
def test_the_line_about_memory_needs_none(tmp_path: Path) -> None:
    """Where every byte is used and stays so, what is held back for it is enough."""
    done = subprocess.run(
        [sys.executable, "-c", EXHAUSTED], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: not enough memory (MemoryError)")
    assert done.stderr.count("\n") == 1
