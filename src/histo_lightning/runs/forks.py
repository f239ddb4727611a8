"""Work on files in a process that is forked for it."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def beside(work: Callable[[], object], fork: bool) -> Iterator[None]:
    """Do ``work`` while the body is done, in a process of its own; after the body where ``fork`` is false, or not on Linux.

    ``work`` uses no thread pool, which a forked process lacks. If it fails there it is done again here, where its error is heard.
    """
    child = None
    if fork and sys.platform == "linux":
        with warnings.catch_warnings(action="ignore"):  # Python 3.12: that this process has threads
            child = os.fork()
        if child == 0:
            with suppress(BaseException):
                work()
                os._exit(0)
            os._exit(1)
    yield
    if child is None or os.waitpid(child, 0)[1]:
        work()
