"""What a person sees of a running sweep: jobs done, running, failed, and the time left."""

import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType

from rich.live import Live
from rich.table import Table

from histo_lightning.report.console import LINE_EVERY_SECONDS, console
from histo_lightning.training.sweep_folder import STATES, SweepFolder

SECONDS_BETWEEN_LOOKS = 1.0


class SweepWatch:
    """Looks at the jobs' files while a sweep runs: a live table on a terminal, else a line when a job has ended or a while has passed."""

    def __init__(
        self, folder: SweepFolder, names: Sequence[str], waiting: Sequence[str], *, shown: bool
    ) -> None:
        self.folder, self.names, self.waiting, self.shown = folder, list(names), set(waiting), shown
        self.start = time.monotonic()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "SweepWatch":
        if self.shown:
            finished = list(self.states().values()).count("finished")
            already = f", {finished} of them finished before" if finished else ""
            print(f"{len(self.names)} jobs{already}: {self.folder.path}", flush=True)
            self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        if self.shown:
            self.thread.join()

    def states(self) -> dict[str, str]:
        """The state of each job, in the sweep's order."""
        return {name: self.folder.state(name) for name in self.names}

    def _watch(self) -> None:
        if sys.stdout.isatty():
            with Live(console=console(), auto_refresh=False, transient=True) as live:
                while not self.ended.wait(SECONDS_BETWEEN_LOOKS):
                    live.update(self._table(self.states()), refresh=True)
            print(self.line(self.states()), flush=True)
            return
        said, told = 0.0, -1
        while True:
            last = self.ended.wait(SECONDS_BETWEEN_LOOKS)
            states = self.states()
            over = sum(state in ("finished", "failed") for state in states.values())
            if over != told or (not last and time.monotonic() - said > LINE_EVERY_SECONDS):
                said, told = time.monotonic(), over
                print(self.line(states), flush=True)
            if last:
                return

    def line(self, states: dict[str, str]) -> str:
        """``jobs: 3 finished, 1 running, 8 pending; about 4 min left``, from the pace of those that ended since the start."""
        values = list(states.values())
        counts = [f"{values.count(state)} {state}" for state in STATES if state in values]
        done = sum(states[name] in ("finished", "failed") for name in self.waiting)
        left = (time.monotonic() - self.start) / done * (len(self.waiting) - done) if done else 0
        return f"jobs: {', '.join(counts)}" + (f"; about {_duration(left)} left" if left else "")

    def _table(self, states: dict[str, str]) -> Table:
        table = Table(title=self.line(states), title_justify="left")
        table.add_column("job")
        table.add_column("state")
        table.add_column("seconds", justify="right")
        active = [name for name in self.names if states[name] in ("running", "failed")]
        latest = [name for name in self.names if states[name] == "finished"][-5:]
        for name in [*latest, *active][-20:]:
            seconds = self.folder.run_of(name).status.get("seconds")
            table.add_row(name, states[name], f"{seconds:.0f}" if seconds else "")
        return table


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
