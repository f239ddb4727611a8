"""What a person sees of a running sweep: jobs done, running, failed, and the time left."""

import sys
import threading
import time

from rich.live import Live
from rich.table import Table

from histo_lightning.report.console import LINE_EVERY_SECONDS, console
from histo_lightning.training.estimate import duration
from histo_lightning.training.sweep_folder import STATES, SweepFolder

SECONDS_BETWEEN_LOOKS = 1.0
ENDED = ("finished", "failed")


class SweepWatch:
    """Prints the jobs' states while a sweep runs: a live table on a terminal, else a line now and then."""

    def __init__(self, folder: SweepFolder, names: list[str], waiting: list[str], *, shown: bool) -> None:
        self.folder, self.names, self.waiting, self.shown = folder, names, set(waiting), shown
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

    def __exit__(self, *error: object) -> None:
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
        printed, before, last = 0.0, -1, False
        while not last:
            last = self.ended.wait(SECONDS_BETWEEN_LOOKS)
            states = self.states()
            done = sum(state in ENDED for state in states.values())
            if done != before or (not last and time.monotonic() - printed > LINE_EVERY_SECONDS):
                printed, before = time.monotonic(), done
                print(self.line(states), flush=True)

    def line(self, states: dict[str, str]) -> str:
        """``jobs: 3 finished, 1 running, 8 pending; about 4 min left``, from the pace of those that ended since the start."""
        values = list(states.values())
        counts = [f"{values.count(state)} {state}" for state in STATES if state in values]
        done = sum(states[name] in ENDED for name in self.waiting)
        left = (time.monotonic() - self.start) / done * (len(self.waiting) - done) if done else 0
        return f"jobs: {', '.join(counts)}" + (f"; about {duration(left)} left" if left else "")

    def _table(self, states: dict[str, str]) -> Table:
        table = Table("job", "state", "seconds", title=self.line(states), title_justify="left")
        table.columns[2].justify = "right"
        active = [name for name in self.names if states[name] in ("running", "failed")]
        latest = [name for name in self.names if states[name] == "finished"][-5:]
        for name in [*latest, *active][-20:]:
            seconds = self.folder.run_of(name).status.get("seconds")
            table.add_row(name, states[name], f"{seconds:.0f}" if seconds else "")
        return table
