"""``python -m histo_lightning.prepare``: verify a data set, build its pixel cache, report on it."""

import sys
from pathlib import Path

from histo_lightning.config.command_line import launch
from histo_lightning.config.exits import EXIT_USER, guard
from histo_lightning.config.schema import Config, PrepareConfig


def run(config: Config) -> int:
    """One data set; returns the exit status: 2 where training would refuse the copy."""
    from histo_lightning.inspection.preparation import (  # matplotlib and codecs: not for --help or a typo
        prepare,
        print_outcome,
    )

    if not isinstance(config, PrepareConfig):
        raise TypeError(f"{type(config).__name__} instead of PrepareConfig")
    folder = Path(config.output_dir) / "datasets" / (config.run_name or config.dataset.name)
    facts = prepare(config, folder)
    if config.preview:
        from histo_lightning.inspection.preview import write_preview

        write_preview(config, folder / "preview.png")
    print_outcome(facts, folder, config.preview)
    return EXIT_USER if facts.verdict()[1] else 0


def main() -> int:
    return launch("prepare", run)


if __name__ == "__main__":
    sys.exit(guard(main))
