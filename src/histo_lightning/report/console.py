"""The console, and how far a long step has come; imports nothing heavy."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

LINE_EVERY_SECONDS = 15.0


def console() -> Console:
    """Where commands print: numbers are not coloured, long lines are not broken."""
    return Console(highlight=False, soft_wrap=True)


class StepProgress:
    """A bar on a terminal, else a line now and then: call it with (done, in all); use it as a context."""

    def __init__(self, text: str, shown: bool = True) -> None:
        terminal = sys.stdout.isatty()
        self.text, self.lines = text, shown and not terminal
        rate = "{task.fields[rate]}"
        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
        self.bar = Progress(*columns, console=console(), transient=True, disable=not (shown and terminal))
        self.task = self.bar.add_task(text, total=None, rate="")
        self.done = 0
        self.started = self.printed = time.monotonic()

    def __enter__(self) -> "StepProgress":
        self.bar.start()
        return self

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done < self.done:  # another step has begun
            self.started = now
        self.done = done
        rate = f"{done / max(now - self.started, 1e-9):,.0f}/s"
        self.bar.update(self.task, completed=done, total=total, rate=rate)
        if self.lines and (done == total or now - self.printed > LINE_EVERY_SECONDS):
            self.printed = now
            seconds = (total - done) * (now - self.started) / max(done, 1)
            left = "" if done == total else f", {seconds:,.0f} s left"
            print(f"{self.text}: {done:,} of {total:,} ({rate}{left})", flush=True)

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
