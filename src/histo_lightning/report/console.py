"""The console: how far a long step has come, as a bar on a terminal and as lines elsewhere."""

import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_EVERY_SECONDS = 15.0


def console() -> Console:
    return Console(highlight=False, soft_wrap=True)


class _Rate(ProgressColumn):
    """Steps a second, over the last half minute."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")


class StepProgress:
    """A bar on a terminal, else a line now and then: call it with (done, in all); use it as a context."""

    def __init__(self, text: str, shown: bool = True) -> None:
        self.text, self.shown = text, shown
        self.bar: Progress | None = None
        self.task: Any = None
        self.done = 0
        self.started = self.said = time.monotonic()

    def __enter__(self) -> "StepProgress":
        return self

    def __call__(self, done: int, total: int) -> None:
        if not self.shown:
            return
        if done < self.done:  # another step has begun
            self.started = time.monotonic()
        self.done = done
        if not sys.stdout.isatty():
            if done == total or time.monotonic() - self.said > LINE_EVERY_SECONDS:
                self.said = time.monotonic()
                rate = done / max(self.said - self.started, 1e-9)
                left = "" if done == total else f", {(total - done) / rate:,.0f} s left"
                print(f"{self.text}: {done:,} of {total:,} ({rate:,.0f}/s{left})", flush=True)
            return
        if self.bar is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                _Rate(),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=console(), transient=True)
            self.bar.start()
            self.task = self.bar.add_task(self.text, total=total)
        self.bar.update(self.task, completed=done, total=total)
        if done == total:
            self.bar.stop()
            self.bar = None

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
