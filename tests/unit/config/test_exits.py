"""Signals that are held back while something is written, then have their effect, however they came."""

import _thread
import os
import signal
from collections.abc import Callable, Iterator

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
