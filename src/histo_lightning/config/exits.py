"""The last place that keeps a traceback off the screen: one line on stderr and an exit status."""

import os
import sys
import traceback
from collections.abc import Callable

from histo_lightning.errors import UserError

EXIT_DEFECT, EXIT_USER, EXIT_FOUND, EXIT_INTERRUPTED = 1, 2, 3, 75


def guard(run: Callable[[], int]) -> int:
    """Run a front door; turn what goes wrong into one line on stderr and an exit status.

    ``HISTO_DEBUG=1`` shows the traceback.
    """
    try:
        return run()
    except UserError as error:
        return _report(error, f"error: {error}", EXIT_USER)
    except KeyboardInterrupt as error:
        return _report(
            error,
            "interrupted: the same command goes on (training: from its last finished epoch)",
            EXIT_INTERRUPTED,
        )
    except BrokenPipeError:  # the reader (`| head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # a defect of ours
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        where = "" if _debugging() else " (HISTO_DEBUG=1 shows where)"
        return _report(error, f"defect: {type(error).__name__}: {' '.join(lines[:2])}{where}", EXIT_DEFECT)


def _debugging() -> bool:
    return os.environ.get("HISTO_DEBUG") == "1"


def _report(error: BaseException, message: str, status: int) -> int:
    if _debugging():
        traceback.print_exception(error)
    print(message, file=sys.stderr)
    return status
