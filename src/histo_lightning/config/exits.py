"""How commands start and end: errors become one line on stderr and an exit status."""

import atexit
import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import Any

from histo_lightning.errors import error_line

EXIT_DEFECT, EXIT_USER, EXIT_FOUND, EXIT_INTERRUPTED = 1, 2, 3, 75
INTERRUPTED = "interrupted: the same command goes on (training: from the step where it stopped)"
RESERVE = [bytearray(2**22)]  # given back where all memory is used, for the line that says so
_arrived: list[int] = []
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # the last is submitit's


def start_program(main: Callable[[], int], module: str) -> None:
    """Run a front door whose module is the program itself (``python -m``); leave with its exit status, and without the interpreter's clean-up."""
    if module != "__main__":
        return
    status = EXIT_DEFECT

    def leave() -> None:  # taking the interpreter apart takes a second with torch in it
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)

    atexit.register(leave)  # the first to be registered is the last to be called
    try:
        status = guard(main)
    except BaseException:
        atexit.unregister(leave)
        raise
    sys.exit(status)


def stop_on_signals() -> list[int]:
    """SIGTERM and SIGUSR1 end a program like Ctrl-C, to be resumed later; further signals do not disturb its end. Those that have arrived."""

    def interrupt(number: int, frame: object) -> None:
        _arrived.append(number)
        if len(_arrived) == 1:
            raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()  # only there handlers can be set
    for number in SIGNALS[:3] if main else ():
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):  # not of an engine
            signal.signal(number, interrupt)
    return _arrived


@contextmanager
def signals_held(forward: bool = False) -> Iterator[list[int]]:
    """Hold signals back until the body is done, which sees those that have arrived; then the first one has its effect.

    ``forward`` sends them on, as SIGTERM, to the processes that this one has started.
    """

    def hold(number: int, frame: object) -> None:
        arrived.append(number)
        for child in multiprocessing.active_children() if forward else ():
            child.terminate()

    arrived = list[int]()
    main = threading.current_thread() is threading.main_thread()  # signals only ever reach this one
    former: dict[int, Any] = {number: signal.getsignal(number) for number in (SIGNALS if main else ())}
    # Left alone: what is ignored, and an engine's signal where there is no such engine.
    former = {k: v for k, v in former.items() if callable(v) or (v == signal.SIG_DFL and k != signal.SIGUSR2)}
    for number in former:
        signal.signal(number, hold)
    try:
        yield arrived
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        if arrived and callable(handler := former[arrived[0]]):
            handler(arrived[0], None)  # raised, it would not come in a process of Ray, which blocks SIGINT
        elif arrived:
            signal.raise_signal(arrived[0])


def guard(run: Callable[[], int]) -> int:
    """Run a front door; what goes wrong becomes one line on stderr and an exit status. ``HISTO_DEBUG=1`` shows the traceback."""
    if isinstance(sys.stdout, TextIOWrapper):  # a file's name may be no text
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.raiseExceptions = False  # no traceback of a log file on a full disk: what writes results says it
    debugging = os.environ.get("HISTO_DEBUG") == "1"
    try:
        return run()
    except BrokenPipeError:  # the reader (`| head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:
        RESERVE.clear()
        if debugging:
            traceback.print_exception(error)
        message, status = f"error: {error_line(error)}", EXIT_USER
        if isinstance(error, KeyboardInterrupt):
            message, status = INTERRUPTED, EXIT_INTERRUPTED
        elif message.startswith("error: defect: "):
            hint = "" if debugging else " (HISTO_DEBUG=1 shows where)"
            message, status = message.removeprefix("error: ") + hint, EXIT_DEFECT
        with suppress(OSError):  # stderr may be a file on the full disk
            print(message, file=sys.stderr)
        return status
