"""How commands start and end: errors become one line on stderr and an exit status."""

import os
import signal
import sys
import traceback
from collections.abc import Callable

from histo_lightning.errors import UserError

EXIT_DEFECT, EXIT_USER, EXIT_FOUND, EXIT_INTERRUPTED = 1, 2, 3, 75
INTERRUPTED = "interrupted: the same command goes on (training: from its last finished epoch)"


def start_program(main: Callable[[], int], module: str) -> None:
    """Run a front door whose module is the program itself (``python -m``), and leave with its exit status."""
    if module == "__main__":
        sys.exit(guard(main))


def stop_on_sigterm() -> None:
    """A stopped command is resumed later, like one ended by Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def guard(run: Callable[[], int]) -> int:
    """Run a front door; what goes wrong becomes one line on stderr and an exit status. ``HISTO_DEBUG=1`` shows the traceback."""
    debugging = os.environ.get("HISTO_DEBUG") == "1"
    try:
        return run()
    except BrokenPipeError:  # the reader (`| head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:
        if debugging:
            traceback.print_exception(error)
        if isinstance(error, UserError):
            message, status = f"error: {error}", EXIT_USER
        elif isinstance(error, KeyboardInterrupt):
            message, status = INTERRUPTED, EXIT_INTERRUPTED
        else:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            hint = "" if debugging else " (HISTO_DEBUG=1 shows where)"
            message, status = f"defect: {type(error).__name__}: {' '.join(lines[:2])}{hint}", EXIT_DEFECT
        print(message, file=sys.stderr)
        return status
