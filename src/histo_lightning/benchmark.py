"""``python -m histo_lightning.benchmark``: speed against the limit of the hardware and the naive pipeline."""

import sys
from pathlib import Path

from histo_lightning.config.command_line import launch
from histo_lightning.config.exits import guard
from histo_lightning.config.schema import BenchmarkConfig, Config


def run(config: Config) -> None:
    """Measure, print the table, write ``json``."""
    from histo_lightning.benchmarks.suite import measure, say
    from histo_lightning.runs import write_json

    if not isinstance(config, BenchmarkConfig):
        raise TypeError(f"{type(config).__name__} instead of BenchmarkConfig")
    rows = measure(config)
    say(rows)
    if config.json:
        write_json(Path(config.json), [row.as_dict() for row in rows])


def main() -> int:
    return launch("benchmark", run)


if __name__ == "__main__":
    sys.exit(guard(main))
