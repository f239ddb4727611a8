"""Processes of one command: wait for them, end them, and let none outlive it."""

import multiprocessing
import multiprocessing.connection
import os
import threading
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from typing import cast

EXIT_INTERRUPTED = 75


def wait_for(children: Sequence[BaseProcess]) -> None:
    """Wait until every process has ended, or one of them with a failure."""
    running = {child.sentinel: child for child in children}
    while (
        running
    ):  # asking is_alive() between two waits could leave nothing to wait for, and wait([]) never returns
        for sentinel in multiprocessing.connection.wait(list(running)):
            child = running.pop(cast(int, sentinel))
            child.join()
            if child.exitcode != 0:
                return


def end(children: Sequence[BaseProcess], grace: float = 20.0) -> None:
    """Ask the processes that still run to end; after ``grace`` seconds, kill them.

    One that waits for a failed process inside a collective operation never gets to handle a signal.
    """
    started = [child for child in children if child.pid is not None]
    for child in started:
        child.terminate()
    until = time.monotonic() + grace
    for child in started:
        child.join(max(0.0, until - time.monotonic()))
        if child.is_alive():
            child.kill()
            child.join()


def follow_parent() -> None:
    """In a child: end with the command. A child whose parent was killed would go on unseen, without its lock."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(EXIT_INTERRUPTED)
